"""Workers of the tests: fills on a real disk, and clients that read them."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from typing import cast

from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.fill import Fill
from mirror.fills import Fills
from mirror.metadata.base import BlobRecord, Metadata
from mirror.oci import Reference
from mirror.sharing import Sharing
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.growing import Growing
from tests.fill.source import MemorySource
from tests.support.waiting import eventually

KIB = 1024
MIB = 1024 * 1024
REPOSITORY = Reference("up", "team/filter", tag="v1")


def some_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes without a pattern, the same each time."""
    return random.Random(seed).randbytes(size)


class Notes:
    """As much of the metadata as a fill writes to."""

    def __init__(self) -> None:
        self.blobs: list[BlobRecord] = []

    async def put_blob(self, record: BlobRecord) -> None:
        """Note it."""
        self.blobs.append(record)


class Worker:
    """One worker on a disk. ``fills`` is what is tested; the store is its own, the disk may be shared."""

    def __init__(
        self,
        directory: DataDirectory,
        source: MemorySource,
        metadata: Metadata | None = None,
        sharing: Sharing | None = None,
        threads: Executor | None = None,
    ) -> None:
        self.directory = directory
        self.source = source
        self.store = BlobStore(directory)
        self.notes = Notes()
        noting = metadata or cast(Metadata, self.notes)
        self.fills = Fills(directory, self.store, noting, {"up": source}, sharing, threads=threads)

    def start(
        self,
        digest: Digest,
        size: int | None = None,
        *,
        patience: float = 20.0,
        origin: Reference = REPOSITORY,
    ) -> Fill:
        """Ask for a blob."""
        return self.fills.start(origin, digest, size, patience)

    async def ended(self, fill: Fill) -> None:
        """Wait until a fill is over, and all that belongs to it."""
        await eventually(lambda: fill.digest not in self.fills._fills, what="the end of the fill")

    def held(self, digest: Digest) -> bytes | None:
        """What lies under ``blobs/``."""
        blob = self.store.open(digest)
        return None if blob is None else bytes(blob.read(0, blob.size))

    def spools(self) -> list[str]:
        """What lies in ``spool/``."""
        return sorted(file.name for file in self.directory.spool.iterdir())


@contextlib.asynccontextmanager
async def worker(
    directory: DataDirectory,
    source: MemorySource,
    metadata: Metadata | None = None,
    sharing: Sharing | None = None,
) -> AsyncIterator[Worker]:
    """A worker that is stopped at the end."""
    one = Worker(directory, source, metadata, sharing)
    try:
        yield one
    finally:
        await one.fills.aclose()


class Client:
    """Reads a body, or a range of it, as a connection would. ``received`` is what has come; `pause` stops taking."""

    def __init__(
        self,
        content: Growing,
        start: int = 0,
        end: int | None = None,
        *,
        paused: bool = False,
        tentative: bool = False,
    ) -> None:
        self.received = bytearray()
        self._going = asyncio.Event()
        if not paused:
            self._going.set()
        self._task = asyncio.create_task(self._read(content.stream(start, end, tentative=tentative)))

    async def _read(self, content: AsyncGenerator[bytes | memoryview]) -> None:
        async with contextlib.aclosing(content) as body:
            async for data in body:
                self.received += data
                await self._going.wait()

    def pause(self) -> None:
        """Take nothing more for now."""
        self._going.clear()

    def resume(self) -> None:
        """Go on."""
        self._going.set()

    def leave(self) -> None:
        """Disconnect."""
        self._task.cancel()

    @property
    def done(self) -> bool:
        """Whether the body has ended, or was cut."""
        return self._task.done()

    async def body(self) -> bytes:
        """All of it; raises what cut it."""
        await self._task
        return bytes(self.received)

    async def cut(self) -> MirrorError | OSError:
        """What cut it."""
        try:
            await self._task
        except (MirrorError, OSError) as error:
            return error
        raise AssertionError(f"a whole body of {len(self.received)} bytes came")

    async def gets(self, size: int) -> None:
        """Wait until so many bytes have come."""
        await eventually(lambda: len(self.received) >= size or self.done, what=f"{size} bytes at a client")
        assert len(self.received) >= size


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)
