"""A module is unpacked once, kept as a blob, and remembered; its bytes are the right ones, whatever fails."""

import asyncio
import contextlib
import errno
import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import blake3
import pytest

from mirror import unpack
from mirror.digest import Digest
from mirror.errors import ModuleUnknown, StoreError
from mirror.metadata.base import BlobRecord, Unpacked
from mirror.metadata.sqlite import SqliteMetadata
from mirror.store.blobs import Blob, BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leases import Leases
from mirror.store.spool import sweep
from mirror.unpack import Unpacker
from mirror.wasm.archive import Entry, Limits, extract
from mirror.wasm.artifact import Found
from tests.store.disk import data_in, fail
from tests.support.waiting import eventually
from tests.wasm.archives import END, MODULE, entry, plugin, zipped

CONTENT = MODULE + random.Random(5).randbytes(3 << 20)
ARCHIVE = plugin(CONTENT, b"a/plugin.wasm")
LAYER = Digest.of(ARCHIVE)
MADE = Digest.of(CONTENT)
FOUND = Found(0, "a/plugin.wasm", len(CONTENT), True, 0)


class Worker:
    """One worker on a disk; ``started`` counts how often it has begun to unpack."""

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory
        self.store = BlobStore(directory)
        self.notes = SqliteMetadata.open(directory.database)
        self.unpacker = Unpacker(directory, self.store, self.notes, Leases(directory.leases), 4 << 20)

    def layer(self, content: bytes = ARCHIVE) -> Blob:
        """A layer, held."""
        digest = Digest.of(content)
        if not self.store.holds(digest):
            self.store.put(digest, content)
        blob = self.store.open(digest)
        assert blob is not None
        return blob

    async def module(self, content: bytes = ARCHIVE, found: Found = FOUND) -> Blob | bytes:
        """What is tested."""
        return await self.unpacker.module(self.layer(content), found)

    def drafts(self) -> list[str]:
        """What lies in ``spool/``."""
        return sorted(file.name for file in self.directory.spool.iterdir())


@contextlib.asynccontextmanager
async def worker(place: Path) -> AsyncIterator[Worker]:
    """A worker that is stopped at the end."""
    one = Worker(data_in(place))
    try:
        yield one
    finally:
        await one.unpacker.aclose()
        await one.notes.aclose()


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The entries that were unpacked, in this order."""
    entries: list[int] = []

    def counted(chunks: Iterable[bytes | memoryview], wanted: Entry, limits: Limits) -> Iterator[bytes]:
        entries.append(wanted.index)
        return extract(chunks, wanted, limits)

    monkeypatch.setattr(unpack, "extract", counted)
    return entries


def body(module: Blob | bytes) -> bytes:
    """All of a module that was kept."""
    assert isinstance(module, Blob), "it was not kept"
    return bytes(module.read(0, module.size))


async def test_the_module_becomes_a_blob_of_its_own_with_what_is_noted_of_blobs(tmp_path: Path) -> None:
    async with worker(tmp_path) as one:
        module = await one.module()
        assert isinstance(module, Blob)
        assert module.digest == MADE
        assert body(module) == CONTENT
        noted = await one.notes.blob(MADE)
        assert noted is not None
        assert noted == BlobRecord(MADE, len(CONTENT), blake3.blake3(CONTENT).hexdigest(), noted.stored_at)
        assert one.drafts() == []


async def test_what_lies_in_no_archive_is_the_layer_itself(tmp_path: Path) -> None:
    async with worker(tmp_path) as one:
        layer = one.layer(CONTENT)
        assert await one.unpacker.module(layer, Found(0, None, len(CONTENT), True)) is layer


async def test_fifty_waiters_have_it_unpacked_once(tmp_path: Path, unpacked: list[int]) -> None:
    async with worker(tmp_path) as one:
        modules = await asyncio.gather(*(one.module() for _ in range(50)))
        assert {id(module) for module in modules} == {id(modules[0])}
        assert body(modules[0]) == CONTENT
        assert await one.module() is modules[0]
        assert unpacked == [0]


async def test_two_workers_have_it_unpacked_once(tmp_path: Path, unpacked: list[int]) -> None:
    async with worker(tmp_path) as one, worker(tmp_path) as other:
        one.layer()
        modules = await asyncio.gather(*(each.module() for each in (one, other) for _ in range(5)))
        assert {body(module) for module in modules} == {CONTENT}
        assert unpacked == [0]


async def test_it_is_remembered_over_a_restart(tmp_path: Path, unpacked: list[int]) -> None:
    for _ in range(2):
        async with worker(tmp_path) as one:
            assert body(await one.module()) == CONTENT
    assert unpacked == [0]


async def test_one_that_was_evicted_is_unpacked_anew_into_the_same_blob(tmp_path: Path, unpacked: list[int]) -> None:
    async with worker(tmp_path) as one:
        await one.module()
        one.store.delete(MADE)
        assert body(await one.module()) == CONTENT
    async with worker(tmp_path) as one:
        one.store.delete(MADE)
        module = await one.module()
        assert isinstance(module, Blob)
        assert module.digest == MADE
    assert unpacked == [0, 0, 0]


async def test_one_whose_file_has_lost_bytes_is_unpacked_anew(tmp_path: Path, unpacked: list[int]) -> None:
    async with worker(tmp_path) as one:
        await one.module()
        os.truncate(one.directory.blob(MADE), 1000)
        assert body(await one.module()) == CONTENT
    assert unpacked == [0, 0]


async def test_the_archive_around_a_module_may_be_larger_than_a_module_may(tmp_path: Path) -> None:
    archive = zipped(entry(b"README.md", bytes(5 << 20)) + entry(b"plugin.wasm", MODULE) + END)
    async with worker(tmp_path) as one:
        assert body(await one.module(archive, Found(0, "plugin.wasm", 8, True, 1))) == MODULE


async def test_each_entry_is_a_module_of_its_own(tmp_path: Path) -> None:
    archive = zipped(entry(b"plugin.wasm", MODULE) + entry(b"other.wasm", MODULE + b"x") + END)
    async with worker(tmp_path) as one:
        first = await one.module(archive, Found(0, "plugin.wasm", 8, True, 0))
        second = await one.module(archive, Found(0, "other.wasm", 9, True, 1))
        assert (body(first), body(second)) == (MODULE, MODULE + b"x")


async def test_a_module_that_is_held_already_is_not_written_again(tmp_path: Path) -> None:
    """It may have come raw, or out of another archive."""
    async with worker(tmp_path) as one:
        held = one.layer(CONTENT)
        module = await one.module()
        assert isinstance(module, Blob)
        assert module.inode == held.inode
        assert one.drafts() == []


async def test_a_waiter_that_leaves_does_not_stop_it(tmp_path: Path, unpacked: list[int]) -> None:
    async with worker(tmp_path) as one:
        waiting = asyncio.create_task(one.module())
        await eventually(lambda: unpacked == [0])
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        await eventually(lambda: one.store.holds(MADE))
        assert body(await one.module()) == CONTENT
    assert unpacked == [0]


async def test_a_stop_in_the_middle_leaves_nothing(tmp_path: Path, unpacked: list[int]) -> None:
    async with worker(tmp_path) as one:
        waiting = asyncio.create_task(one.module())
        await eventually(lambda: unpacked == [0])
        await one.unpacker.aclose()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert one.drafts() == []


async def test_a_stop_waits_for_the_thread_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is closed under it would be another one by then."""
    write, begun, go_on = os.write, threading.Event(), threading.Event()

    def held_up(fd: int, data: memoryview) -> int:
        begun.set()
        go_on.wait(30)
        return write(fd, data)

    async with worker(tmp_path) as one:
        layer = one.layer()
        monkeypatch.setattr(os, "write", held_up)
        waiting = asyncio.create_task(one.unpacker.module(layer, FOUND))
        await eventually(begun.is_set)
        stopping = asyncio.create_task(one.unpacker.aclose())
        await asyncio.wait([stopping], timeout=0.1)
        assert not stopping.done()
        assert len(one.drafts()) == 1
        go_on.set()
        await asyncio.wait([stopping, waiting])
        assert one.drafts() == []


async def test_the_draft_of_a_crash_is_swept_away_and_the_module_unpacked_anew(tmp_path: Path) -> None:
    async with worker(tmp_path) as one:
        draft = unpack._Draft(one.directory, LAYER)
        draft.write(iter([CONTENT[:1000]]))
        assert len(one.drafts()) == 1
        assert sweep(one.directory) == 0
        assert one.drafts() == []
        assert body(await one.module()) == CONTENT


@contextlib.contextmanager
def worker_in_the_middle(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another worker, as a process that has written a part of the module; killed at the end."""
    command = [sys.executable, "-m", "tests.fill.unpacking", str(place), str(LAYER), "a/plugin.wasm", str(len(CONTENT))]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"there\n"
            yield child
        finally:
            child.kill()


async def test_when_a_worker_is_killed_in_the_middle_another_unpacks_and_the_start_sweeps_up(
    tmp_path: Path, unpacked: list[int]
) -> None:
    async with worker(tmp_path) as one:
        layer = one.layer()
        with worker_in_the_middle(tmp_path) as child:
            (left,) = one.drafts()
            assert 0 < (one.directory.spool / left).stat().st_size < len(CONTENT)
            waiting = asyncio.create_task(one.unpacker.module(layer, FOUND))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done()
            assert unpacked == []
            child.kill()
            assert body(await waiting) == CONTENT
        assert one.drafts() == [left]
        assert sweep(one.directory) == 0
        assert one.drafts() == []


FAULTS = {"write": errno.ENOSPC, "fsync": errno.EIO, "replace": errno.EROFS, "mkdir": errno.ENOSPC}


@pytest.mark.parametrize("call", FAULTS)
@pytest.mark.shows("the disk is full, or fails")
async def test_a_disk_that_fails_costs_the_copy_and_is_said_once(
    tmp_path: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with worker(tmp_path) as one:
        layer = one.layer()
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, call, FAULTS[call])
            for _ in range(2):
                assert await one.unpacker.module(layer, FOUND) == CONTENT
        assert len([line for line in caplog.records if "the disk fails" in line.getMessage()]) == 1
        assert one.drafts() == []
        assert not one.store.holds(MADE)
        assert body(await one.module()) == CONTENT


async def test_a_disk_full_in_the_middle_costs_the_copy(tmp_path: Path) -> None:
    async with worker(tmp_path) as one:
        layer = one.layer()
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, "write", errno.ENOSPC, after=2)
            assert await one.unpacker.module(layer, FOUND) == CONTENT
        assert one.drafts() == []


async def test_a_database_that_fails_costs_a_second_unpacking_only(tmp_path: Path, unpacked: list[int]) -> None:
    class Away:
        """No call works."""

        async def put_blob(self, record: BlobRecord) -> None:
            """No."""
            raise StoreError("away")

        async def unpacked(self, layer: Digest, entry: int) -> Unpacked | None:
            """No."""
            raise StoreError("away")

        async def put_unpacked(self, record: Unpacked) -> None:
            """No."""
            raise StoreError("away")

    async with worker(tmp_path) as one:
        one.unpacker._notes = Away()
        assert body(await one.module()) == CONTENT
        assert body(await one.module()) == CONTENT
        assert unpacked == [0]


@pytest.mark.parametrize(
    ("archive", "found", "says"),
    [
        (plugin(bytes((4 << 20) + 1)), Found(0, "plugin.wasm", (4 << 20) + 1, False), "more than wasm.max_module_size"),
        (ARCHIVE[:2000], FOUND, "cut short"),
        (b"not gzipped at all", FOUND, "not gzipped"),
        (ARCHIVE, Found(0, "plugin.wasm", len(CONTENT), True, 0), "holds no file"),
        (ARCHIVE, Found(0, "a/plugin.wasm", len(CONTENT) + 1, True, 0), "holds no file"),
        (ARCHIVE, Found(0, "a/plugin.wasm", len(CONTENT), True, 1), "holds no file"),
        (zipped(entry(b"plugin.wasm", b"", b"2") + END), Found(0, "plugin.wasm", 0, False), "holds no file"),
    ],
)
async def test_what_the_archive_does_not_have_is_said_in_a_sentence(
    tmp_path: Path, archive: bytes, found: Found, says: str
) -> None:
    async with worker(tmp_path) as one:
        with pytest.raises(ModuleUnknown, match=says):
            await one.module(archive, found)
        assert one.drafts() == []


@pytest.mark.parametrize("at", [len(ARCHIVE) // 2, len(ARCHIVE) - 3], ids=["in the module", "behind all that is read"])
async def test_a_layer_that_rots_on_the_disk_gives_nothing_and_is_dropped(tmp_path: Path, at: int) -> None:
    """Its module would be another one, under another digest that nobody could tell from the right one."""
    async with worker(tmp_path) as one:
        layer = one.layer()
        with one.directory.blob(LAYER).open("r+b") as file:
            os.pwrite(file.fileno(), bytes([ARCHIVE[at] ^ 1]), at)
        with pytest.raises(StoreError, match="rotted"):
            await one.unpacker.module(layer, FOUND)
        assert not one.store.holds(LAYER)
        assert one.drafts() == []
        assert body(await one.module()) == CONTENT
