"""What is counted of fills: each download once, whoever follows it, and what became of it."""

from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import UpstreamDenied
from mirror.metrics import FILL_WAITERS, FILLS_IN_FLIGHT
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.spool import Spool
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.workers import KIB, MIB, Client, Worker, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

CONTENT = some_bytes(2 * MIB)
DIGEST = Digest.of(CONTENT)


def counted(one: Worker) -> dict[str, int]:
    return {str(result): number for (_, result), number in one.fills.metrics.fills.items() if number}


def measured(one: Worker) -> tuple[int, int]:
    gauges = one.fills.metrics.gauges
    return gauges[FILLS_IN_FLIGHT.name](), gauges[FILL_WAITERS.name]()


async def test_a_download_that_another_worker_follows_is_counted_once(tmp_path: Path) -> None:
    directory, source = data_in(tmp_path), MemorySource(CONTENT)
    source.script.append(Sending(tap=(tap := Tap(MIB))))
    async with worker(directory, source) as leader, worker(directory, MemorySource(CONTENT)) as follower:
        leading = leader.start(DIGEST, len(CONTENT))
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, len(CONTENT))
        client = Client(following.content)
        await client.gets(MIB)
        assert (measured(leader), measured(follower)) == ((1, 0), (0, 1))
        tap.open()
        assert await client.body() == CONTENT
        await leader.ended(leading)
        await follower.ended(following)
        assert (counted(leader), counted(follower)) == ({"success": 1}, {})
        assert measured(leader) == measured(follower) == (0, 0)


async def test_who_goes_on_where_another_worker_has_died_says_so(tmp_path: Path) -> None:
    directory, source = data_in(tmp_path), MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(MIB)))
    async with worker(directory, MemorySource(CONTENT)) as follower:
        async with worker(directory, source) as leader:
            leading = leader.start(DIGEST, len(CONTENT))
            await eventually(lambda: leading.content.available == MIB)
            following = follower.start(DIGEST, len(CONTENT))
            await eventually(lambda: following.content.available == MIB)
        await follower.ended(following)
        assert (counted(leader), counted(follower)) == ({}, {"taken_over": 1})


async def test_who_goes_on_from_what_an_earlier_try_has_left_says_so(tmp_path: Path) -> None:
    directory, source = data_in(tmp_path), MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(MIB)))
    async with worker(directory, source) as earlier:
        leading = earlier.start(DIGEST, len(CONTENT))
        await eventually(lambda: leading.content.available == MIB)
    async with worker(directory, MemorySource(CONTENT)) as later:
        await later.ended(later.start(DIGEST, len(CONTENT)))
        assert counted(later) == {"resumed": 1}


async def test_wrong_bytes_are_counted_even_where_the_next_try_has_the_right_ones(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.hosts = ("one", "two")
    source.script.append(Sending(content=some_bytes(2 * MIB, seed=2)))
    async with worker(data_in(tmp_path), source) as one:
        await one.ended(one.start(DIGEST, len(CONTENT)))
        assert counted(one) == {"digest_mismatch": 1, "success": 1}


async def test_a_download_that_fails_is_counted(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(refuses=UpstreamDenied("no")))
    async with worker(data_in(tmp_path), source) as one:
        await one.ended(one.start(DIGEST, len(CONTENT)))
        assert counted(one) == {"download_failure": 1}


async def test_an_answer_that_waits_for_the_whole_is_a_waiter(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=(tap := Tap(100 * KIB))))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        with fill.content.holding_back():
            await eventually(lambda: measured(one) == (1, 1))
        assert measured(one) == (1, 0)
        tap.open()
        await one.ended(fill)


async def test_who_gets_the_lock_just_after_the_commit_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, source = data_in(tmp_path), MemorySource(CONTENT)
    acquire = Spool.acquire

    def committed_before(directory: DataDirectory, digest: Digest) -> Spool | None:
        BlobStore(directory).put(digest, CONTENT)  # by another worker, after this one has looked
        return acquire(directory, digest)

    monkeypatch.setattr(Spool, "acquire", committed_before)
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert (source.offsets, counted(one), one.spools()) == ([], {}, [])
