"""A disk with blobs, and scrubbers of it, without a mirror around them; time is what the test says."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mirror.digest import Digest, Verifier
from mirror.errors import BlobUnknown
from mirror.metadata.base import BlobRecord
from mirror.metrics import Metrics
from mirror.scrubbing import Scrubber
from mirror.soundness import Pace, Soundness
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.store.reading import Reading
from tests.metadata.memory import Memory, MemoryMetadata

MIB = 1 << 20
EVERY = 1000.0


class Time:
    """Both clocks, which go on when somebody sleeps."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.at += seconds
        await asyncio.sleep(0)


class Tended:
    """A `mirror.scrubbing.Mending` that gives what the disk held at first, but for what is ``nowhere``."""

    def __init__(self, disk: "Disk") -> None:
        self._disk = disk
        self.asked: list[Digest] = []
        self.nowhere: set[Digest] = set()
        self.unneeded: set[Digest] = set()

    async def mend(self, digest: Digest) -> bool:
        self.asked.append(digest)
        await asyncio.sleep(0)
        if digest in self.unneeded:
            return False
        if digest in self.nowhere:
            raise BlobUnknown("nobody has it")
        self._disk.store.put(digest, self._disk.contents[digest])
        return True


class Disk:
    """What lies on a disk, and what was noted of it."""

    def __init__(self, path: Path) -> None:
        DataDirectory.open(path).close()
        self.directory = DataDirectory.attach(path)
        self.store = BlobStore(self.directory)
        self.notes = MemoryMetadata(Memory())
        self.contents: dict[Digest, bytes] = {}
        self.mending = Tended(self)
        self.opened: list[Digest] = []
        self.time = Time(os.stat(path / "format").st_mtime + EVERY)

    async def put(self, content: bytes, *, noted: bool = True) -> Digest:
        """Have a blob, as a fill leaves it."""
        digest = Digest.of(content)
        self.contents[digest] = content
        self.store.put(digest, content)
        if noted:
            verifier = Verifier(digest)
            verifier.update(content)
            await self.notes.put_blob(BlobRecord(digest, len(content), verifier.blake3(), 0.0))
        return digest

    async def fill(self, n: int, size: int = 1000) -> list[Digest]:
        """Have some blobs; in the order in which they are read."""
        return sorted([await self.put(number.to_bytes(4, "big") * (size // 4)) for number in range(n)])

    def file(self, digest: Digest) -> Path:
        """Where a blob lies."""
        return self.directory.blob(digest)

    def is_right(self, digest: Digest) -> bool:
        """Whether it lies there as it came."""
        blob = self.store.open(digest)
        return blob is not None and bytes(blob.read(0, blob.size)) == self.contents[digest]


class Worker:
    """One worker's scrubber of a disk. ``metrics`` are its own, as is its ``store``."""

    def __init__(self, disk: Disk, scrubber: Scrubber, store: BlobStore, metrics: Metrics) -> None:
        self.disk = disk
        self.scrubber = scrubber
        self.store = store
        self.metrics = metrics

    def counted(self) -> dict[str, int]:
        """What was found, but for nothing."""
        return {str(result): number for (result,), number in self.metrics.scrubbed.items() if number}


@contextlib.asynccontextmanager
async def worker(
    disk: Disk,
    *,
    rate: int = 1 << 40,
    open_file: Callable[[Path], Reading] = Reading,
    every: float = EVERY,
) -> AsyncIterator[Worker]:
    """A worker that has just started."""

    def opened(path: Path) -> Reading:
        disk.opened.append(Digest("sha256", path.name))
        return open_file(path)

    metrics, store, time = Metrics(), BlobStore(disk.directory), disk.time
    with ThreadPoolExecutor(1) as threads:
        soundness = Soundness(disk.directory, disk.notes, threads, Pace(rate, time), time.sleep, opened)
        leases, wanted = Leases(disk.directory.leases), Generation(disk.directory.scrub_wanted)
        scrubber = Scrubber(
            disk.directory,
            store,
            soundness,
            leases,
            disk.mending,
            metrics,
            threads,
            every,
            wanted,
            lambda: sum(1 for _ in store.scan()),
            time,
            time,
            time.sleep,
        )
        try:
            yield Worker(disk, scrubber, store, metrics)
        finally:
            wanted.close()


class Broken(Reading):
    """A file of which the disk gives no byte."""

    number = errno.EIO

    def next(self) -> bytes:
        raise OSError(self.number, os.strerror(self.number))


class Forbidden(Broken):
    """A file that may not be read."""

    number = errno.EACCES


def breaking(kind: type[Reading], *digests: Digest) -> Callable[[Path], Reading]:
    """Opens these files as such, all others as they are."""
    names = {digest.hex for digest in digests}
    return lambda path: kind(path) if path.name in names else Reading(path)
