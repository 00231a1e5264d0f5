"""What has come once is not asked for again: after a cut, after a restart; and how long a fill goes on trying."""

import asyncio
import time
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import UpstreamDenied, UpstreamTimeout, UpstreamUnavailable
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.workers import KIB, MIB, Client, Worker, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

CONTENT = some_bytes(MIB)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)
NAME = f"sha256-{DIGEST.hex}"


async def test_after_a_cut_it_goes_on_from_the_byte_that_is_missing_and_no_client_notices(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.extend(Sending(cut_at=at) for at in (1, 1000, 300 * KIB, 300 * KIB + 1))
    async with worker(data_in(tmp_path), source) as one:
        clients = [Client(one.start(DIGEST, SIZE).content) for _ in range(5)]
        assert all([await client.body() == CONTENT for client in clients])
    assert source.offsets == [0, 1, 1000, 300 * KIB, 300 * KIB + 1]
    assert all(stream.closed for stream in source.streams)


async def test_upstream_may_begin_at_the_first_byte_all_the_same(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.extend(
        [
            Sending(cut_at=300 * KIB),
            Sending(ignores_range=True, piece=1000, cut_at=500 * KIB),
            Sending(ignores_range=True),
        ]
    )
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
    assert source.offsets == [0, 300 * KIB, 500 * KIB]


async def test_a_blob_of_unknown_size_is_resumed_too(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.extend([Sending(announces=None, cut_at=300 * KIB), Sending(announces=None)])
    async with worker(data_in(tmp_path), source) as one:
        assert await Client(one.start(DIGEST).content).body() == CONTENT
    assert source.offsets == [0, 300 * KIB]


async def test_a_cut_right_after_the_last_byte_costs_no_other_get(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(cut_at=SIZE))
    async with worker(data_in(tmp_path), source) as one:
        assert await Client(one.start(DIGEST, SIZE).content).body() == CONTENT
    assert source.offsets == [0]


async def test_after_a_restart_it_goes_on_from_the_bytes_that_are_there(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    directory = data_in(tmp_path)
    (directory.spool / NAME).write_bytes(CONTENT[: 700 * KIB])
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, SIZE)
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
        assert one.spools() == []
    assert source.offsets == [700 * KIB]


@pytest.mark.parametrize("size", [SIZE, None])
async def test_a_spool_that_is_whole_already_costs_no_get(tmp_path: Path, size: int | None) -> None:
    source = MemorySource(CONTENT)
    directory = data_in(tmp_path)
    (directory.spool / NAME).write_bytes(CONTENT)
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, size)
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
    assert source.offsets == []


@pytest.mark.parametrize("left", [bytes(300 * KIB), bytes(SIZE), bytes(SIZE + 1)], ids=["part", "whole", "too long"])
@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.shows("a download that was interrupted left wrong bytes on the disk")
async def test_a_spool_with_wrong_bytes_is_replaced_unseen(tmp_path: Path, left: bytes, size: int | None) -> None:
    source = MemorySource(CONTENT)
    directory = data_in(tmp_path)
    (directory.spool / NAME).write_bytes(left)
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, size)
        await fill.content.whole()
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
    assert source.offsets[-1] == 0
    assert source.cooled == []


@pytest.mark.shows("a download that was interrupted left wrong bytes on the disk")
async def test_a_client_that_has_read_wrong_bytes_of_a_spool_is_cut_and_the_next_one_gets_the_right_ones(
    tmp_path: Path,
) -> None:
    source = MemorySource(CONTENT)
    directory = data_in(tmp_path)
    (directory.spool / NAME).write_bytes(bytes(300 * KIB))
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, SIZE)
        client = Client(fill.content)
        await client.cut()
        assert len(client.received) < SIZE
        await one.ended(fill)
        assert await Client(one.start(DIGEST, SIZE).content).body() == CONTENT
    assert source.offsets == [300 * KIB, 0]


async def test_it_gives_up_when_upstream_stays_away_for_longer_than_its_patience(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(cut_at=300 * KIB))
    source.script.extend(Sending(cut_at=0) for _ in range(1000))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE, patience=0.5)
        client = Client(fill.content)
        assert isinstance(await client.cut(), UpstreamUnavailable)
        assert client.received == CONTENT[: 300 * KIB]
        await one.ended(fill)
        assert one.spools() == [NAME]
    assert 2 < len(source.gets) < 15


async def test_bytes_that_come_renew_its_patience(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=(tap := Tap(KIB)), cut_at=2 * KIB))
    async with worker(data_in(tmp_path), source) as one:
        client = Client(one.start(DIGEST, SIZE, patience=0.5).content)
        await client.gets(KIB)
        await asyncio.sleep(0.6)  # a stream that is open is not measured by the patience
        tap.open()
        assert await client.body() == CONTENT
    assert source.offsets == [0, 2 * KIB]


async def test_a_client_that_joins_renews_its_patience(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=(tap := Tap(0)), refuses=UpstreamTimeout("the time that was left is up")))
    async with worker(data_in(tmp_path), source) as one:
        client = Client(one.start(DIGEST, SIZE, patience=0.1).content)
        await eventually(lambda: source.gets)
        one.start(DIGEST, SIZE, patience=20.0)
        tap.open()
        assert await client.body() == CONTENT
    assert source.offsets == [0, 0]


async def test_a_refusal_of_the_mirrors_credentials_ends_it_at_once(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(refuses=UpstreamDenied("no")))
    async with worker(data_in(tmp_path), source) as one:
        assert isinstance(await Client(one.start(DIGEST, SIZE).content).cut(), UpstreamDenied)
    assert source.offsets == [0]


async def test_a_failed_fill_holds_no_lock_though_a_client_still_reads_what_came(tmp_path: Path) -> None:
    """A client that stands still keeps the file of a fill open; the next fill of the digest must not wait for it."""
    source = MemorySource(CONTENT)
    source.script.append(Sending(cut_at=800 * KIB))
    source.script.append(Sending(refuses=UpstreamDenied("no")))
    async with worker(data_in(tmp_path), source) as one:
        failing = one.start(DIGEST, SIZE)
        still = Client(failing.content, paused=True)
        await one.ended(failing)
        assert not still.done
        assert await asyncio.wait_for(Client(one.start(DIGEST, SIZE).content).body(), 10) == CONTENT
        still.resume()
        assert isinstance(await still.cut(), UpstreamDenied)
    assert source.offsets == [0, 800 * KIB, 800 * KIB]


async def test_a_stop_in_the_middle_of_a_commit_closes_no_file_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor's number could be that of another file by then."""
    from mirror.store.spool import Spool

    commit, begun, seen = Spool.commit, [], []

    def slow_commit(spool: Spool, store: object) -> None:
        begun.append(1)
        time.sleep(0.2)  # a disk that takes its time; this is a thread
        seen.append(spool._fd)
        commit(spool, store)  # type: ignore[arg-type] # the store it was called with

    monkeypatch.setattr(Spool, "commit", slow_commit)
    directory = data_in(tmp_path)
    one = Worker(directory, MemorySource(CONTENT))
    one.start(DIGEST, SIZE)
    await eventually(lambda: begun)
    await one.fills.aclose()
    assert seen
    assert seen[0] >= 0
    assert one.held(DIGEST) == CONTENT
