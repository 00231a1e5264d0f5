"""What nothing names any more: links go after a grace, and bytes when no link is left.

Links go for all replicas, in agreement with them; bytes on this disk, by these records: whoever has linked a digest
again that is not linked here yet, has its bytes.

Runs during pushes. A push makes a file, then takes down its link: so a file younger than the grace is left alone, and
the bytes go within a transaction, in which nobody can link them. Whoever runs it: workers may do so side by side.
"""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import NotNow, StoreError
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.together import Together
from mirror.metadata.base import Link
from mirror.store.directory import DataDirectory

log = logging.getLogger(__name__)

_BATCH = 200
"""Digests that one transaction decides about: tens of milliseconds, for which pushes wait."""

_LOOKED_AT = 5_000
"""Links that are looked at at once: some milliseconds, for which pulls wait."""


class Cache(Protocol):
    """What is known of the cache, which lies in the same files: `mirror.metadata.base`."""

    @property
    def links_incomplete(self) -> bool:
        """Whether links were lost, so that a missing one proves nothing."""
        ...

    def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """All links, in portions."""
        ...


@dataclass(frozen=True, slots=True)
class Collected:
    """What a run has taken away: links of repositories, and files, with their bytes."""

    links: int
    files: int
    size: int = 0


class Gc:
    """Collects what nothing names. ``grace`` in seconds; ``now`` gives seconds since the epoch, as the disk does."""

    def __init__(
        self,
        catalogue: Catalogue,
        cache: Cache,
        directory: DataDirectory,
        grace: float,
        now: Callable[[], float] = time.time,
        named_at: Callable[[Path], float] = lambda file: file.stat().st_ctime,
        *,
        together: Together,
    ) -> None:
        """``named_at`` says when a file got its name."""
        self._together = together
        self._catalogue = catalogue
        self._cache = cache
        self._directory = directory
        self._grace = grace
        self._now = now
        self._named_at = named_at

    async def run(self, interval: float) -> None:
        """Collect every ``interval`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            try:
                collected = await self.once()
            except StoreError as error:
                log.error("what is not needed any more of hosted content stays for now: %s", error)
            else:
                if collected.links or collected.files:
                    log.info("of hosted content %d links and %d files were let go", collected.links, collected.files)

    async def once(self) -> Collected:
        """Collect what there is; where the replicas cannot agree now, nothing more. Raises `StoreError`."""
        links = 0
        before = self._now() - self._grace
        try:
            for repository in await self._expirable(before):
                expired = _BATCH
                while expired == _BATCH:
                    expired = await self._expire(repository, before)
                    links += expired
        except NotNow as error:
            log.info("what is not needed any more of hosted content stays for now: %s", error)
            return Collected(links, 0)
        await self._catalogue.forget_tombstones()
        return Collected(links, *await self._bury())

    async def _expirable(self, before: float) -> Iterable[str]:
        """Repositories with blobs that nobody touched since ``before``."""
        found: dict[str, None] = {}
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            repositories, after = await self._catalogue.expirable(before, after, _LOOKED_AT)
            found |= dict.fromkeys(repositories)
        return found

    async def _expire(self, repository: str, before: float) -> int:
        """Take from a repository some of what nobody touched since ``before``; how many blobs. Raises `NotNow`."""
        async with self._together.changing(repository) as turn:
            expired = await self._catalogue.expire(repository, before, _BATCH, moment=turn.moment)
            if expired:
                await self._together.told()
        return expired

    async def _bury(self) -> tuple[int, int]:
        """Let go of bytes that no repository of these records has; how many files, and bytes."""
        files = 0
        sizes: list[int] = []
        after = ""
        while digests := await self._catalogue.doomed(after, _BATCH):
            after = str(digests[-1])
            cached = await self._cached(set(digests))
            gone = await self._catalogue.bury(digests, functools.partial(self._decide_on, cached, sizes))
            files += len(gone)
        return files, sum(sizes)

    async def _cached(self, digests: set[Digest]) -> set[Digest]:
        """Those that the cache links too: they are its business, and its upstream may not answer now."""
        if self._cache.links_incomplete:
            return digests
        found: set[Digest] = set()
        async for links in self._cache.all_links():
            found |= digests & {link.digest for link in links}
        return found

    def _decide_on(self, cached: set[Digest], sizes: list[int], digests: Sequence[Digest]) -> dict[Digest, bool | None]:
        """What becomes of bytes without a link (`writes.bury`); notes the sizes of files that go. Blocks: for a
        thread.
        """
        return {digest: self._decide(cached, sizes, digest) for digest in digests}

    def _decide(self, cached: set[Digest], sizes: list[int], digest: Digest) -> bool | None:
        if digest in cached:
            return True
        file = self._directory.blob(digest)
        try:
            if self._named_at(file) > self._now() - self._grace:  # somebody may be about to link it
                return None
            size = file.stat().st_size
            file.unlink()
            sizes.append(size)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("the disk fails (%s); %s could not be deleted", error.strerror or error, digest)
            return None
        return False
