"""What nothing needs any more of this disk goes now, because somebody wants that, and not when its time comes.

What is hosted and nothing names (`mirror.hosted.gc`), uploads and fills that nobody goes on with, files that nothing
names at all, and records about what is not here. Nobody who pulls or pushes has to wait, and nothing that a tag, a
link, a pin or a hosted record names goes: that is for eviction, or for people who purge it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import DigestInvalid, MirrorError, StoreError
from mirror.hosted.gc import Collected
from mirror.metadata.base import Link, TagEntry, TagRecord
from mirror.removal import Removal
from mirror.store.directory import DataDirectory
from mirror.store.eviction import closure
from mirror.store.leftovers import clear
from mirror.survey import Found, Survey

log = logging.getLogger(__name__)

UNUSED_FOR = 86400.0
"""Seconds after which what nothing names may go: whoever has just brought it may be about to take it down."""


class Metadata(Protocol):
    """What is known of the cache: `mirror.metadata.base`. Methods may raise `StoreError`."""

    @property
    def links_incomplete(self) -> bool: ...

    def all_tags(self) -> AsyncIterator[Sequence[TagEntry]]: ...

    def all_links(self) -> AsyncIterator[Sequence[Link]]: ...


class Known(Protocol):
    """What is noted on this disk: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    def all_unpacked_from(self) -> AsyncIterator[Sequence[tuple[str, str]]]: ...

    def all_noted(self) -> AsyncIterator[Sequence[str]]: ...

    async def forget(self, gone: Collection[str], before: float) -> int: ...


class Leases(Protocol):
    """Work that one worker of this disk does at a time: `mirror.store.leases`."""

    def hold(self, name: str) -> AbstractAsyncContextManager[object]: ...


class Uploads(Protocol):
    """`mirror.store.uploads`. May raise `StoreError`."""

    async def expire(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Hosting:
    """Who lets go of what is hosted and not needed: `mirror.hosted.gc` and `mirror.hosted.orphans`; ``asked`` has the
    other replicas tell all that they know. Where records were restored from a backup, the others tell what is missing
    within ``grace`` seconds after the start: before, no file is taken for one that nothing names.
    """

    collect: Callable[[], Awaitable[Collected]]
    orphans: Callable[[], Awaitable[int]]
    asked: Callable[[], Awaitable[None]]
    grace: float


@dataclass(frozen=True, slots=True)
class Swept:
    """What went: ``blobs``, whole or not, their bytes (``size``), ``uploads`` and ``records``."""

    blobs: int = 0
    size: int = 0
    uploads: int = 0
    records: int = 0


class Collecting:
    """Collects on one disk. ``hosting`` is None where nothing is hosted. ``now`` gives seconds since the epoch, as the
    disk does, ``clock`` seconds that never go back.
    """

    def __init__(
        self,
        directory: DataDirectory,
        survey: Survey,
        metadata: Metadata,
        known: Known,
        removal: Removal,
        uploads: Uploads,
        leases: Leases,
        hosting: Hosting | None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._survey = survey
        self._metadata = metadata
        self._known = known
        self._removal = removal
        self._uploads = uploads
        self._leases = leases
        self._hosting = hosting
        self._now = now
        self._clock = clock
        self._began = clock()

    async def once(self) -> Swept:
        """Collect what there is; one worker at a time. Where a part of it fails, the others are done all the same, and
        then `StoreError` is raised.
        """
        swept, failures = Swept(), []
        async with self._leases.hold("collect"):
            for part in (self._hosted, self._begun, self._unnamed):
                try:
                    swept = await part(swept)
                except (MirrorError, OSError) as error:
                    why = error.message if isinstance(error, MirrorError) else f"the mirror's disk fails: {error}"
                    log.error("not all that is not needed could be collected: %s", why)
                    failures.append(why)
        log.info("collected %d blobs (%d bytes), %d uploads, %d records", *_numbers(swept))
        if failures:
            raise StoreError(f"not all could be collected: {'; '.join(failures)}")
        return swept

    @property
    def _knows_all(self) -> bool:
        return self._hosting is None or self._clock() - self._began >= self._hosting.grace

    async def _hosted(self, swept: Swept) -> Swept:
        if self._hosting is None:
            return swept
        if self._knows_all:
            await self._hosting.orphans()
        gone = await self._hosting.collect()
        return replace(
            swept, blobs=swept.blobs + gone.files, size=swept.size + gone.size, records=swept.records + gone.links
        )

    async def _begun(self, swept: Swept) -> Swept:
        """What was begun, and nobody goes on with."""
        uploads = await self._uploads.expire()
        left = await asyncio.to_thread(clear, self._directory, self._now() - UNUSED_FOR)
        return replace(
            swept, blobs=swept.blobs + left.files, size=swept.size + left.size, uploads=swept.uploads + uploads
        )

    async def _unnamed(self, swept: Swept) -> Swept:
        """Files that nothing names, and what is noted of files that are not there."""
        before = self._now() - UNUSED_FOR
        noted = [digest async for portion in self._known.all_noted() for digest in portion]
        found = await self._survey.look()
        gone: dict[Digest, int] = {}
        if not self._metadata.links_incomplete and self._knows_all:
            if self._hosting is not None:
                await self._hosting.asked()
            named = await self._named(found)
            old = [digest for digest in found.files if digest not in named and found.last_used(digest) < before]
            gone = await self._removal.remove(_digests(old), lambda file: file.st_ctime < before)
        missing = [digest for digest in noted if digest not in found.files]
        records = await self._known.forget([*missing, *map(str, gone)], before)
        return replace(
            swept,
            blobs=swept.blobs + len(gone),
            size=swept.size + sum(gone.values()),
            records=swept.records + records,
        )

    async def _named(self, found: Found) -> set[str]:
        """All digests that anything names."""
        named = closure(found.pinned, found.names) | found.hosted | found.young
        async for tags in self._metadata.all_tags():
            named.update(str(entry.digest) for entry in tags if isinstance(entry, TagRecord))
        async for links in self._metadata.all_links():
            named.update(str(link.digest) for link in links)
        async for unpacked in self._known.all_unpacked_from():
            named.update(module for layer, module in unpacked if layer in named)
        return named


def _digests(texts: Sequence[str]) -> list[Digest]:
    """Without what is no name of a blob."""
    found = []
    for text in texts:
        try:
            found.append(Digest.parse(text))
        except DigestInvalid:
            continue
    return found


def _numbers(swept: Swept) -> tuple[int, int, int, int]:
    return swept.blobs, swept.size, swept.uploads, swept.records
