"""A worker of the tests that pins one reference after the other: ``python -m tests.pins.book FOLDER NAME COUNT``.

It says the number of each once it is pinned, and is killed or comes to its end.
"""

import asyncio
import sys
import time
from pathlib import Path

from mirror.digest import Digest
from mirror.pinned import Book
from mirror.store.directory import DataDirectory
from mirror.store.leases import Leases
from mirror.store.pins import Named, Pin


def book_in(folder: Path) -> Book:
    """The records of pins, as a worker has them. For a coroutine."""
    directory = DataDirectory.attach(folder)
    directory.leases.mkdir(parents=True, exist_ok=True)
    return Book(directory, Leases(directory.leases), time.time)


async def pin(book: Book, reference: str, content: bytes = b"") -> None:
    """Pin, without asking anyone what ``reference`` names."""
    named = Named(Digest.of(content or reference.encode()), time.time())
    await book.change(lambda _: [Pin(reference, round(time.time() * 1000), "anna", names=(named,))])


async def _pins(folder: Path, name: str, count: int) -> None:
    book = book_in(folder)
    for number in range(count):
        await pin(book, f"up/{name}:{number}")
        print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(_pins(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
