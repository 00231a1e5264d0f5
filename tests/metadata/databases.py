"""Opening the embedded database in tests, looking at its files, and harming them."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from mirror.digest import Digest
from mirror.metadata.base import Link, TagRecord
from mirror.metadata.sqlite import SqliteMetadata

NAME = "metadata.sqlite"
DIGEST = Digest.of(b"content")
TAG = TagRecord("ghcr.io", "team/filter", "v1", DIGEST, "application/vnd.oci.image.manifest.v1+json", 512, 1000.0)
LINK = Link("ghcr.io", "team/filter", DIGEST, "application/wasm", 512)


@asynccontextmanager
async def opened(place: Path, holds: Callable[[Digest], bool] = lambda _: True) -> AsyncIterator[SqliteMetadata]:
    """The database in the folder ``place``, closed at the end."""
    store = SqliteMetadata.open(place / NAME, holds=holds)
    try:
        yield store
    finally:
        await store.aclose()


async def fill(store: SqliteMetadata, count: int = 2000) -> None:
    """Put tags v0, v1, …, each with its link: enough for trees of two levels and more."""
    digests = [Digest.of(str(number).encode()) for number in range(count)]
    await store.put_links(replace(LINK, digest=digest) for digest in digests)
    await asyncio.gather(*(store.put_tag(replace(TAG, tag=f"v{n}", digest=digest)) for n, digest in enumerate(digests)))


async def surviving(store: SqliteMetadata, count: int = 2000) -> int:
    """How many of the tags that `fill` put are there; each that is there must be right."""
    records = await asyncio.gather(*(store.tag("ghcr.io", "team/filter", f"v{number}") for number in range(count)))
    for number, record in enumerate(records):
        assert record in (None, replace(TAG, tag=f"v{number}", digest=Digest.of(str(number).encode())))
    return count - records.count(None)


def files(place: Path) -> list[Path]:
    """All that lies in a folder, sorted."""
    return sorted(place.iterdir())


def set_aside(place: Path) -> list[Path]:
    """The damaged databases that were set aside."""
    return [path for path in sorted(place.glob(f"{NAME}.damaged-*")) if not path.name.endswith(("-wal", "-shm"))]


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection beside the store's."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def root_page(path: Path, table: str) -> int:
    """The byte offset of the page where a table's tree begins."""
    with raw(path) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int((page - 1) * size)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes in the middle of a file. Not while this process has it open: closing would drop SQLite's locks."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def take_in_log(path: Path) -> None:
    """Move all that is committed from the log to the database."""
    with raw(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


_DAMAGE_IN_SERVICE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
root, = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tag'").fetchone()
size, = connection.execute("PRAGMA page_size").fetchone()
while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
    pass
with open(sys.argv[1], "r+b") as file:
    file.seek((root - 1) * size)
    file.write(bytes(size))
connection.execute("INSERT OR REPLACE INTO access (digest, at) VALUES ('sha256:" + "0" * 64 + "', 1.0)")
"""


def damage_in_service(path: Path) -> None:
    """Zero the root of the table of tags, on the disk and beneath every connection's cache, from another process."""
    subprocess.run([sys.executable, "-c", _DAMAGE_IN_SERVICE, path], check=True, timeout=60)
