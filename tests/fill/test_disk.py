"""A disk that fails costs the copy, not the clients: everything comes through memory, of which little is used."""

import asyncio
import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror import download
from mirror.digest import Digest
from mirror.errors import DigestMismatch, UpstreamUnavailable
from mirror.store import growing, spool
from mirror.store.growing import WITHHELD
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.workers import KIB, MIB, Client, settled, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

CONTENT = some_bytes(4 * MIB)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)
NAME = f"sha256-{DIGEST.hex}"
WINDOW = MIB


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 1 MiB, an eighth of which comes at a time as it does else; a laggard is given up after 0.5 s."""
    monkeypatch.setattr(growing, "WINDOW", WINDOW)
    monkeypatch.setattr(download, "_MAX_PENDING", WINDOW // 8)
    monkeypatch.setattr(growing, "_LAGGARD_AFTER", 0.5)


Fault = Callable[[pytest.MonkeyPatch], None]


def full_from(position: int) -> Fault:
    """No space for the bytes from a position on; part of a write still fits."""

    def install(patch: pytest.MonkeyPatch) -> None:
        write = os.pwrite

        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            if offset + len(data) <= position:
                return write(fd, data, offset)
            if offset < position:
                return write(fd, data[: position - offset], offset)
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "pwrite", pwrite)

    return install


def failing(name: str, number: int, where: str = "") -> Fault:
    """A call of `os` that fails, on paths that contain ``where``."""

    def install(patch: pytest.MonkeyPatch) -> None:
        call = getattr(os, name)

        def fail(*arguments: object, **options: object) -> object:
            if where in str(arguments[0]):
                raise OSError(number, os.strerror(number))
            return call(*arguments, **options)

        patch.setattr(os, name, fail)

    return install


def all_of(*faults: Fault) -> Fault:
    """Several at once."""

    def install(patch: pytest.MonkeyPatch) -> None:
        for fault in faults:
            fault(patch)

    return install


FAULTS = {
    "full at the first byte": full_from(0),
    "full in the middle": full_from(1_234_567),
    "full at the last byte": full_from(SIZE - 1),
    "read-only at the start": failing("open", errno.EROFS, "spool"),
    "no descriptor left": failing("open", errno.EMFILE, "spool"),
    "fails at the commit": failing("fsync", errno.EIO),
    "full at the commit": failing("fsync", errno.ENOSPC),
    "the blob's folder cannot be made": failing("mkdir", errno.ENOSPC),
    "cannot be renamed": failing("replace", errno.EROFS),
    "read-only in the middle": all_of(full_from(MIB), failing("unlink", errno.EROFS)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.shows("the disk is full, or fails")
async def test_all_clients_get_the_exact_bytes_nothing_is_kept_and_the_next_fill_works(
    tmp_path: Path, fault: Fault
) -> None:
    source = MemorySource(CONTENT)
    async with worker(data_in(tmp_path), source) as one:
        with pytest.MonkeyPatch.context() as patch:
            fault(patch)
            fill = one.start(DIGEST, SIZE)
            clients = [Client(fill.content) for _ in range(5)]
            middle = Client(fill.content, MIB, 3 * MIB)
            short = Client(fill.content, MIB, MIB + 100)
            assert all([await client.body() == CONTENT for client in clients])
            assert await middle.body() == CONTENT[MIB : 3 * MIB]
            assert await short.body() == CONTENT[MIB : MIB + 100]
            await one.ended(fill)
        assert one.held(DIGEST) is None
        assert source.offsets == [0]
        assert await Client(fill.content).body() == CONTENT
        again = one.start(DIGEST, SIZE)
        assert await Client(again.content).body() == CONTENT
        await one.ended(again)
        assert one.held(DIGEST) == CONTENT
        assert one.spools() == []


@pytest.mark.shows("the disk is full, or fails")
async def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    async with worker(data_in(tmp_path), MemorySource(CONTENT)) as one:
        with limited(MIB + 1):
            fill = one.start(DIGEST, SIZE)
            assert await Client(fill.content).body() == CONTENT
            await one.ended(fill)
        assert one.held(DIGEST) is None
        assert one.spools() == []


@pytest.mark.parametrize("fault", [full_from(0), full_from(1_234_567)], ids=["no disk", "half a disk"])
async def test_without_a_disk_wrong_bytes_are_cut_all_the_same(
    tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    source = MemorySource(CONTENT)
    tap = Tap(3 * MIB)
    source.script.append(Sending(content=CONTENT[:-1] + b"!", tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        clients = [Client(fill.content), Client(fill.content, MIB, 2 * MIB), Client(fill.content, 5, 10)]
        await clients[0].gets(MIB)
        tap.open()
        for client, size in zip(clients, (SIZE, MIB, 5), strict=True):
            assert isinstance(await client.cut(), DigestMismatch)
            assert len(client.received) <= max(0, size - WITHHELD)


async def test_without_a_disk_a_range_that_is_withheld_is_never_that_of_a_try_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from(0)(monkeypatch)
    source = MemorySource(CONTENT, hosts=("mirror.test", "origin.test"))
    source.script.append(Sending(content=bytes(SIZE), tap=(tap := Tap(MIB))))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        client = Client(fill.content, 5, 50)
        await eventually(lambda: fill.content.available == MIB)
        await settled()
        tap.open()
        assert isinstance(await client.cut(), DigestMismatch)
        assert not client.received


@pytest.mark.usefixtures("small_window")
async def test_without_a_disk_memory_is_bounded_whoever_reads_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from(0)(monkeypatch)
    waited = []
    has_gone_on = growing.Growing._has_gone_on

    async def counting(self: growing.Growing, slowest: int) -> bool:
        waited.append(await has_gone_on(self, slowest))
        return waited[-1]

    monkeypatch.setattr(growing.Growing, "_has_gone_on", counting)
    content = some_bytes(16 * MIB)
    source = MemorySource(content)
    source.script.append(Sending(piece=50_000))  # so that the window does not end where a piece does
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(Digest.of(content), len(content))
        fast, still = Client(fill.content), Client(fill.content, paused=True)
        most = 0
        while not fast.done:
            if (overflow := fill.content.overflow) is not None:
                most = max(most, sum(map(len, overflow._chunks)))
            await asyncio.sleep(0)
        assert await fast.body() == content
        assert most <= WINDOW + 9 * MIB  # what comes while the window is full waits in the writer
        assert waited.count(False) == 1, "one who was given up held up the fill again"
        still.resume()
        assert isinstance(await still.cut(), UpstreamUnavailable)


@pytest.mark.usefixtures("small_window")
async def test_without_a_disk_a_fill_waits_for_its_slowest_client_while_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from(0)(monkeypatch)
    content = some_bytes(24 * MIB)
    source = MemorySource(content)
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(Digest.of(content), len(content))
        slow = Client(fill.content, paused=True)
        await eventually(lambda: fill.content.available > WINDOW)
        await settled()
        assert fill.content.available < 16 * MIB
        while not slow.done:
            slow.pause()
            slow.resume()
            await asyncio.sleep(0)
        assert await slow.body() == content
    assert source.offsets == [0]


@pytest.mark.usefixtures("small_window")
async def test_without_a_disk_ranges_do_not_hold_up_the_fill_and_come_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a range waits for the digest, so for the whole: longer than its bytes stay in memory."""
    full_from(0)(monkeypatch)
    monkeypatch.setattr(growing, "_LAGGARD_AFTER", 30.0)
    content = some_bytes(24 * MIB)
    async with worker(data_in(tmp_path), MemorySource(content)) as one:
        fill = one.start(Digest.of(content), len(content))
        spans = [(0, 100), (0, 3 * MIB), (5 * MIB, 6 * MIB), (20 * MIB, 20 * MIB + 5), (23 * MIB, 24 * MIB)]
        clients = [Client(fill.content, *span) for span in spans]
        async with asyncio.timeout(20):
            for client, (start, end) in zip(clients, spans, strict=True):
                assert await client.body() == content[start:end]


@pytest.mark.usefixtures("small_window")
async def test_without_a_disk_a_range_that_waits_for_its_first_byte_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from(0)(monkeypatch)
    monkeypatch.setattr(growing, "_LAGGARD_AFTER", 30.0)
    content = some_bytes(24 * MIB)
    async with worker(data_in(tmp_path), MemorySource(content)) as one:
        fill = one.start(Digest.of(content), len(content))
        await fill.content.reached(20 * MIB)
        assert await Client(fill.content, 20 * MIB, 21 * MIB).body() == content[20 * MIB : 21 * MIB]


@pytest.mark.usefixtures("small_window")
async def test_without_a_disk_what_has_to_be_withheld_whole_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from(0)(monkeypatch)
    async with worker(data_in(tmp_path), MemorySource(CONTENT)) as one:
        fill = one.start(DIGEST, SIZE)
        fill.content.keep_whole = True
        await fill.content.whole()
        assert await Client(fill.content).body() == CONTENT


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("kept", [0, 1_234_567], ids=["no disk", "half a disk"])
async def test_without_a_disk_one_who_comes_too_late_gets_a_fill_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    full_from(kept)(monkeypatch)
    content = some_bytes(24 * MIB)
    digest, size = Digest.of(content), len(content)
    source = MemorySource(content)
    tap = Tap(size - 1)
    source.script.append(Sending(tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        early = one.start(digest, size)
        first = Client(early.content)
        await first.gets(size - WITHHELD)
        late = one.start(digest, size)
        assert late is not early
        assert await Client(late.content).body() == content
        tap.open()
        assert await first.body() == content
    assert source.offsets == [0, 0]


async def test_a_stop_does_not_wait_for_a_slow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_from(0)(monkeypatch)
    monkeypatch.setattr(growing, "WINDOW", WINDOW)
    monkeypatch.setattr(growing, "_LAGGARD_AFTER", 60.0)
    content = some_bytes(24 * MIB)
    async with worker(data_in(tmp_path), MemorySource(content)) as one:
        fill = one.start(Digest.of(content), len(content))
        still = Client(fill.content, paused=True)
        await eventually(lambda: fill.content.available > WINDOW)
        async with asyncio.timeout(5):
            await one.fills.aclose()
        still.leave()


@pytest.mark.parametrize("left", [300 * KIB, SIZE])
async def test_a_spool_that_cannot_be_read_back_is_fetched_anew_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    def broken(self: spool.Spool, start: int, end: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spool.Spool, "read", broken)
    source = MemorySource(CONTENT)
    directory = data_in(tmp_path)
    (directory.spool / NAME).write_bytes(CONTENT[:left])
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, SIZE)
        await fill.content.whole()
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) is None
        assert one.spools() == []
    assert source.offsets == [0]


async def test_wrong_bytes_that_cannot_be_dropped_do_not_keep_the_right_ones_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing("unlink", errno.EROFS)(monkeypatch)
    source = MemorySource(CONTENT)
    directory = data_in(tmp_path)
    (directory.spool / NAME).write_bytes(bytes(SIZE))
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, SIZE)
        await asyncio.wait_for(fill.content.whole(), 10)
        assert await Client(fill.content).body() == CONTENT
    assert source.offsets == [0]


async def test_a_spool_that_was_cut_short_by_another_hand_is_an_error_not_an_endless_loop(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=(tap := Tap(2 * MIB))))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        client = Client(fill.content, paused=True)
        await eventually(lambda: fill.content.available == 2 * MIB)
        os.truncate(one.directory.spool / NAME, 1000)
        client.resume()
        assert isinstance(await asyncio.wait_for(client.cut(), 10), OSError)
        tap.open()
