"""An evictor on a data directory, as a worker has one; all that lies there came long ago.

``python -m tests.support.evicting FOLDER NUMBER`` is a worker that lets all go, and is killed as it unlinks its
``NUMBER``-th file.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from mirror.accesses import Accesses
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.evicting import Here
from mirror.evictor import Evictor
from mirror.hosted.catalogue import Catalogue
from mirror.metadata.sqlite import SqliteMetadata
from mirror.metrics import Metrics
from mirror.store.census import Census, free_bytes
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases

HOUR = 3600.0


class Worker:
    """What a worker has of eviction; ``now`` is an hour ahead of the disk's clock."""

    def __init__(
        self,
        folder: Path,
        settings: CacheSettings,
        *,
        hosts: bool = True,
        free: Callable[[Path], int] = free_bytes,
        unlink: Callable[[str], None] = os.unlink,
    ) -> None:
        self.directory = DataDirectory.attach(folder)
        self.metrics = Metrics()
        self.ahead = HOUR
        self.known = SqliteMetadata.open(self.directory.database)
        self.accesses = Accesses(self.known, self.now)
        self.catalogue = Catalogue.of(self.directory) if hosts else None
        self.generation = Generation(self.directory.evictions)
        self.withdrawn: list[Digest] = []
        self.let_go = 0
        self.pinned: set[str] = set()
        self.failure: Exception | None = None
        self.evictor = Evictor(
            Census(self.directory, free),
            self.known,
            self.accesses,
            self.catalogue,
            Leases(self.directory.leases),
            self.generation,
            settings,
            self.metrics,
            self._withdraw,
            self._let_go,
            lambda: Here(self.directory, self.known, self.catalogue, self.now, unlink),
            self._protected,
        )

    def now(self) -> float:
        return time.time() + self.ahead

    async def _withdraw(self, digests: Sequence[Digest]) -> None:
        self.withdrawn += digests

    async def _let_go(self) -> None:
        self.let_go += 1

    async def _protected(self) -> AbstractSet[str]:
        if self.failure is not None:
            raise self.failure
        return frozenset(self.pinned)

    async def aclose(self) -> None:
        """Let go of everything."""
        self.generation.close()
        if self.catalogue is not None:
            await self.catalogue.aclose()
        await self.known.aclose()


@contextlib.asynccontextmanager
async def evicting(
    folder: Path,
    settings: CacheSettings,
    *,
    hosts: bool = True,
    free: Callable[[Path], int] = free_bytes,
    unlink: Callable[[str], None] = os.unlink,
) -> AsyncIterator[Worker]:
    """Such a worker, for a while."""
    worker = Worker(folder, settings, hosts=hosts, free=free, unlink=unlink)
    try:
        yield worker
    finally:
        await worker.aclose()


async def _until_killed(folder: Path, number: int) -> None:
    left = [number]

    def unlink(file: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os.unlink(file)

    async with evicting(folder, CacheSettings(max_size=1), unlink=unlink) as worker:
        await worker.evictor.once()


if __name__ == "__main__":
    asyncio.run(_until_killed(Path(sys.argv[1]), int(sys.argv[2])))
