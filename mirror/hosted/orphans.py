"""Files that nothing names: of a process that was killed after a file had got its name, and before it was linked.

They are given to the collector (`mirror.hosted.gc`), which decides about each anew, as about all that has lost its
links.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.gc import Cache
from mirror.hosted.together import Together
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory

log = logging.getLogger(__name__)

_EVERY = 86400.0
_BATCH = 10_000
"""Files that are looked at together, each of which takes some hundred bytes meanwhile; all links are read for each."""


class Made(Protocol):
    """What was made here of what others have: `mirror.metadata.sqlite`."""

    async def all_unpacked(self) -> set[Digest]:
        """The modules that were taken out of archives."""
        ...


class Orphans:
    """Finds files older than ``grace`` seconds that no repository of the cache or of hosted content has, and that were
    not unpacked here. ``now`` gives seconds since the epoch, as the disk does; ``named_at`` says when a file got its
    name.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        cache: Cache,
        made: Made,
        directory: DataDirectory,
        grace: float,
        together: Together,
        now: Callable[[], float] = time.time,
        named_at: Callable[[Path], float] = lambda file: file.stat().st_ctime,
    ) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._made = made
        self._directory = directory
        self._grace = grace
        self._together = together
        self._now = now
        self._named_at = named_at

    async def run(self) -> None:
        """Look for them every day, until cancelled; for the first time when the mirror has run for the grace: records
        that were restored from a backup may lack what other replicas know, and tell by then.
        """
        await asyncio.sleep(self._grace)
        while True:
            try:
                if found := await self.once():
                    log.info("%d files that nothing names are given to the collector", found)
            except (StoreError, OSError) as error:
                log.error("files that nothing names could not be looked for: %s", error)
            await asyncio.sleep(_EVERY)

    async def once(self) -> int:
        """Give those that there are to the collector; how many. Raises `StoreError`, `OSError`."""
        if self._cache.links_incomplete:
            return 0
        await self._together.asked()
        found = 0
        files = BlobStore(self._directory).scan()
        while digests := await asyncio.to_thread(self._older, files):
            orphans = await self._without_links(digests)
            await self._catalogue.doom(orphans)
            found += len(orphans)
        return found

    def _older(self, files: Iterator[tuple[Digest, int]]) -> set[Digest]:
        """The next files that are older than the grace. Blocks."""
        before = self._now() - self._grace
        return set(islice((digest for digest, _ in files if self._is_older(digest, before)), _BATCH))

    def _is_older(self, digest: Digest, before: float) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._named_at(self._directory.blob(digest)) < before
        return False

    async def _without_links(self, digests: set[Digest]) -> Sequence[Digest]:
        alone = digests - await self._made.all_unpacked()
        async for links in self._cache.all_links():
            alone.difference_update(link.digest for link in links)
        return await self._catalogue.unlinked(sorted(alone, key=str))
