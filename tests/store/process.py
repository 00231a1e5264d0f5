"""A process of the tests: ``python -m tests.store.process WHAT FOLDER …``; it says ``there`` and waits to be killed."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.store.spool import Spool
from mirror.store.uploads import Uploads
from tests.store.uploading import ANNA, HOUR, LIMIT, REPOSITORY, pieces

ROOT = Path(__file__).parents[2]


@contextmanager
def process(what: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Such a process, once it is where it wants to be; killed at the end."""
    command = [sys.executable, "-m", "tests.store.process", what, str(folder), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"there\n"
            yield child
        finally:
            child.kill()


def there() -> None:
    """Say so."""
    print("there", flush=True)


def wait() -> None:
    """For the end."""
    time.sleep(60)


def hold_directory(folder: Path) -> None:
    """Be a mirror on this directory."""
    directory = DataDirectory.open(folder)
    there()
    wait()
    directory.close()


def outlive(folder: Path) -> None:
    """Be a mirror whose worker, of which the number is printed, goes on when the supervisor is killed."""
    directory = DataDirectory.open(folder)
    worker = os.fork()
    if worker:
        there()
        print(worker, flush=True)
    wait()
    directory.close()


def hold_spool(folder: Path, text: str) -> None:
    """Write a spool, and hold it."""
    spool = Spool.acquire(DataDirectory.attach(folder), Digest.of(text.encode()))
    assert spool is not None
    spool.append(text.encode()[:3])
    there()
    wait()


def hold_lease(folder: Path, name: str) -> None:
    """Hold a lease."""

    async def hold() -> None:
        async with Leases(folder).hold(name):
            there()
            await asyncio.sleep(60)

    asyncio.run(hold())


def count_under_lease(folder: Path, times: str) -> None:
    """Add to a number in a file, as only one may at a time."""

    async def count() -> None:
        leases, file = Leases(folder), folder.parent / "number"
        there()
        for _ in range(int(times)):
            async with leases.hold("number"):
                number = int(file.read_text())
                await asyncio.sleep(0)
                file.write_text(str(number + 1))

    asyncio.run(count())
    sys.stdin.read()


def advance(folder: Path, times: str) -> None:
    """Move the generation on, so many times, when told to."""
    generation = Generation(folder / "generation")
    there()
    sys.stdin.readline()
    for _ in range(int(times)):
        generation.advance()
    generation.close()
    sys.stdin.read()


def push(folder: Path, file: str, upload: str, start: str) -> None:
    """Go on with an upload, and print how far it is after each of its chunks."""
    content = Path(file).read_bytes()

    async def send() -> None:
        session = await _uploads(folder).find(REPOSITORY, ANNA, upload)
        there()
        for begin in range(int(start), len(content), 700_000):
            chunk = content[begin : begin + 700_000]
            print(await session.append(pieces(chunk), start=begin, limit=LIMIT), flush=True)

    asyncio.run(send())


def finish(folder: Path, upload: str, digest: str) -> None:
    """End an upload."""

    async def end() -> None:
        session = await _uploads(folder).find(REPOSITORY, ANNA, upload)
        there()
        await session.finish(Digest.parse(digest), BlobStore(DataDirectory.attach(folder)))

    asyncio.run(end())


def _uploads(folder: Path) -> Uploads:
    return Uploads(DataDirectory.attach(folder), time.time, expires=HOUR, max_uploads=4)


if __name__ == "__main__":
    tasks: dict[str, Callable[..., None]] = {
        "hold-directory": hold_directory,
        "outlive": outlive,
        "hold-spool": hold_spool,
        "hold-lease": hold_lease,
        "count-under-lease": count_under_lease,
        "advance": advance,
        "push": push,
        "finish": finish,
    }
    tasks[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
