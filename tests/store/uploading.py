"""Uploads of the tests, on a real disk: bytes in pieces, cuts, and a clock that stands where it is put."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.session import Desk, Session
from mirror.store.uploads import Uploads

CONTENT = random.Random(1).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
REPOSITORY = "team-a/filter"
ANNA = "anna"
NOW = float(int(time.time()))  # the kernel dates files too
HOUR = 3600.0
LIMIT = 1 << 30


class Cut(Exception):
    """The client has left."""


class Clock:
    """Seconds since the epoch, as the test has them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Worker:
    """One worker: its uploads and its store, on a disk that others may share."""

    def __init__(self, directory: DataDirectory, *, max_uploads: int = 4, patience: float = 0.0) -> None:
        self.clock = Clock()
        self.directory = directory
        self.store = BlobStore(directory)
        self.desk = Desk(self.clock, patience)
        self.uploads = Uploads(directory, self.clock, expires=HOUR, max_uploads=max_uploads, desk=self.desk)

    async def begin(self, repository: str = REPOSITORY, principal: str = ANNA) -> Session:
        """A new upload."""
        return await self.uploads.begin(repository, principal)

    async def find(self, upload: str, repository: str = REPOSITORY, principal: str = ANNA) -> Session:
        """That upload."""
        return await self.uploads.find(repository, principal, upload)

    def path(self, session: Session) -> Path:
        """The file with its bytes."""
        (path,) = self.directory.uploads.glob(f"*.{session.id}")
        return path

    def held(self, digest: Digest = DIGEST) -> bytes | None:
        """The blob, as it would be pulled."""
        blob = self.store.open(digest)
        return None if blob is None else bytes(blob.read(0, blob.size))


@contextmanager
def workers(folder: Path, count: int = 1, *, max_uploads: int = 4, patience: float = 0.0) -> Iterator[list[Worker]]:
    """So many workers on one data directory."""
    DataDirectory.open(folder).close()
    directory = DataDirectory.attach(folder)
    made = [Worker(directory, max_uploads=max_uploads, patience=patience) for _ in range(count)]
    try:
        yield made
    finally:
        for worker in made:
            worker.uploads.close()


@contextmanager
def worker(folder: Path, *, max_uploads: int = 4, patience: float = 0.0) -> Iterator[Worker]:
    """One of them."""
    with workers(folder, max_uploads=max_uploads, patience=patience) as (one,):
        yield one


async def pieces(content: bytes, size: int = 70_000, *, cut: bool = False) -> AsyncIterator[bytes]:
    """The bytes as a client sends them; ``cut``: it leaves then."""
    for start in range(0, len(content), size):
        yield content[start : start + size]
        await asyncio.sleep(0)
    if cut:
        raise Cut


class Body:
    """A body whose bytes the test sends one by one."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, chunk: bytes | None) -> None:
        """The next bytes; None: the end."""
        self._chunks.put_nowait(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk


def files(folder: Path) -> set[str]:
    """What lies in the uploads folder, without the lock."""
    return {file.name for file in (folder / "uploads").iterdir()} - {"lock"}
