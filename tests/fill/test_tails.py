"""What other replicas are given of a fill that another worker on this disk does; and what they take, at the edges."""

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.download import BlobStream
from mirror.errors import BlobUnknown, MirrorError, StoreError, UpstreamUnavailable
from mirror.oci import Reference
from mirror.store.growing import Growing
from mirror.store.overflow import Overflow
from mirror.store.spool import Spool
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.test_replicas import CONTENT, DIGEST, Right, Town
from tests.fill.workers import MIB, Client, Worker, some_bytes, worker
from tests.store.disk import data_in, fail
from tests.support.waiting import eventually


class Reader:
    """Another replica that reads the tail."""

    def __init__(self, content: Growing) -> None:
        self.received = bytearray()
        self._task = asyncio.create_task(self._read(content))

    async def _read(self, content: Growing) -> None:
        async for data in content.stream(0, None, tentative=True):
            self.received.extend(data)

    async def end(self) -> MirrorError | None:
        """What cut it; None when all came."""
        try:
            await asyncio.wait_for(self._task, 5)
        except MirrorError as error:
            return error
        return None


async def tail_of(one: Worker) -> Growing:
    """What that worker gives of what another one fetches."""
    await eventually(lambda: one.fills.tail(DIGEST) is not None, what="a spool to follow")
    tail = one.fills.tail(DIGEST)
    assert tail is not None
    return tail


async def test_any_worker_gives_what_one_on_its_disk_gets(tmp_path: Path) -> None:
    directory, source, none = data_in(tmp_path), MemorySource(CONTENT), MemorySource()
    tap = Tap(MIB)
    source.script.append(Sending(tap=tap))
    async with worker(directory, source) as leader, worker(directory, none) as other:
        assert other.fills.tail(DIGEST) is None
        fill = leader.start(DIGEST, len(CONTENT))
        tail = await tail_of(other)
        assert other.fills.tail(DIGEST) is tail, "one for all who ask"
        readers = [Reader(tail) for _ in range(3)]
        await eventually(lambda: all(len(reader.received) >= MIB - 64 * 1024 for reader in readers))
        tap.open()
        for reader in readers:
            assert await reader.end() is None
            assert reader.received == CONTENT
        await leader.ended(fill)
        await eventually(lambda: other.fills.tail(DIGEST) is None, what="the end of the tail")
        assert not none.gets


async def test_a_tail_ends_with_the_worker_that_fetched_and_leaves_the_spool_to_whoever_goes_on(tmp_path: Path) -> None:
    directory, source = data_in(tmp_path), MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(MIB)))
    async with worker(directory, MemorySource()) as other:
        async with worker(directory, source) as leader:
            leader.start(DIGEST, len(CONTENT))
            reader = Reader(await tail_of(other))
            await eventually(lambda: len(reader.received) > MIB // 2)
        assert isinstance(await reader.end(), UpstreamUnavailable)
        assert len(reader.received) < len(CONTENT)
        spool = Spool.acquire(directory, DIGEST)
        assert spool is not None
        assert spool.size == MIB
        spool.close()


async def test_who_stops_cuts_those_that_read_a_tail_from_it(tmp_path: Path) -> None:
    directory, source = data_in(tmp_path), MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(MIB)))
    async with worker(directory, source) as leader:
        leader.start(DIGEST, len(CONTENT))
        async with worker(directory, MemorySource()) as other:
            reader = Reader(await tail_of(other))
            await eventually(lambda: len(reader.received) > MIB // 2)
        failure = await reader.end()
        assert "stopping" in str(failure)


async def test_who_reads_a_tail_is_cut_at_once_when_the_fill_begins_anew() -> None:
    content = Growing(DIGEST, None)
    content.overflow = Overflow(0)
    content.overflow.append(bytes(MIB))
    reader = Reader(content)
    await eventually(lambda: len(reader.received) > MIB // 2)
    content.begin_anew(None)
    assert isinstance(await reader.end(), UpstreamUnavailable)


class Strained(Town):
    """A town in which more goes wrong: replicas that refuse what they hold, and a Redis that does not answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.refuses: dict[str, MirrorError] = {}
        self.away = False
        self.told_under_lease: list[bool] = []

    async def __aenter__(self) -> "Strained":
        await super().__aenter__()
        return self

    async def holders(self, digest: Digest) -> Sequence[str]:
        if self.away:
            raise StoreError("Redis is away")
        return await super().holders(digest)

    async def add_holder(self, digest: Digest, address: str) -> None:
        if self.away:
            raise StoreError("Redis is away")
        self.told_under_lease.append(
            self.leases.get(digest) == address and self.workers[address].held(digest) is not None
        )
        await super().add_holder(digest, address)

    async def open_blob(self, address: str, digest: Digest, *, offset: int, held: bool, deadline: float) -> BlobStream:
        if address in self.refuses:
            raise self.refuses[address]
        return await super().open_blob(address, digest, offset=offset, held=held, deadline=deadline)


async def test_that_a_blob_is_held_is_told_before_the_lease_goes(tmp_path: Path) -> None:
    async with Strained(tmp_path) as town:
        a = await town.add("a")
        await a.ended(a.start(DIGEST, len(CONTENT)))
        assert town.told_under_lease == [True]


async def test_what_the_disk_did_not_take_is_not_said_to_be_held(tmp_path: Path) -> None:
    async with Strained(tmp_path) as town:
        a = await town.add("a")
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, "replace", errno.EROFS)
            fill = a.start(DIGEST, len(CONTENT))
            assert await Client(fill.content).body() == CONTENT
            await a.ended(fill)
        assert not town.known
        assert not town.leases


async def test_a_redis_that_does_not_answer_costs_no_byte(tmp_path: Path) -> None:
    async with Strained(tmp_path) as town:
        town.away = True
        a = await town.add("a")
        fill = a.start(DIGEST, len(CONTENT))
        assert await Client(fill.content).body() == CONTENT
        await a.ended(fill)
        assert a.held(DIGEST) == CONTENT


@pytest.mark.parametrize("refusal", [BlobUnknown("it is gone"), UpstreamUnavailable("it is busy")])
async def test_a_replica_that_does_not_give_what_it_holds_is_asked_once_and_then_upstream(
    tmp_path: Path, refusal: MirrorError
) -> None:
    async with Strained(tmp_path) as town:
        a = await town.add("a")
        await a.ended(a.start(DIGEST, len(CONTENT)))
        town.refuses["a"] = refusal
        b = await town.add("b")
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert b.source.offsets == [0]


@pytest.mark.parametrize("refusal", [BlobUnknown("it has stopped"), UpstreamUnavailable("it is busy")])
async def test_when_time_is_up_a_replica_that_fetches_in_vain_does_not_make_a_blob_unknown(
    tmp_path: Path, refusal: MirrorError
) -> None:
    async with Strained(tmp_path) as town:
        b = await town.add("b")
        town.leases[DIGEST] = "a"
        town.refuses["a"] = refusal
        client = Client(b.start(DIGEST, len(CONTENT), patience=0.2).content)
        assert isinstance(await asyncio.wait_for(client.cut(), 3), UpstreamUnavailable)
        assert not b.source.gets


async def test_two_replicas_at_one_address_ask_upstream_each_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Strained(tmp_path) as town:
        b = await town.add("b")
        with pytest.MonkeyPatch.context() as patch:

            async def take(self: Right) -> str:
                return "b"

            patch.setattr(Right, "take", take)
            assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert b.source.offsets == [0]
        assert not town.read_from
        assert "cluster.advertise" in caplog.text


async def test_a_replica_that_holds_it_is_asked_for_the_rest_only(tmp_path: Path) -> None:
    async with Strained(tmp_path) as town:
        a, b = await town.add("a"), await town.add("b")
        a.source.script.append(Sending(tap=Tap(MIB)))
        a.start(DIGEST, len(CONTENT))
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        client = Client(b.start(DIGEST, len(CONTENT)).content)
        await client.gets(MIB - 128 * 1024)
        c = await town.add("c")
        c.store.put(DIGEST, CONTENT)
        town.known[DIGEST] = ["c"]
        town.read_from.clear()
        town.kill("a")
        assert await client.body() == CONTENT
        assert not b.source.gets
        ((address, offset, held),) = town.read_from
        assert (address, held) == ("c", True)
        assert offset >= MIB - 128 * 1024


async def test_who_goes_on_reading_from_a_replica_that_fetches_reads_the_rest_only(tmp_path: Path) -> None:
    async with Strained(tmp_path) as town:
        a, b, c = [await town.add(name) for name in "abc"]
        taps = [Tap(MIB), Tap()]
        a.source.script.append(Sending(tap=taps[0]))
        for one in (b, c):
            one.source.script.append(Sending(tap=(tap := Tap(MIB + MIB // 2))))
            taps.append(tap)
        a.start(DIGEST, len(CONTENT))
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        clients = [Client(one.start(DIGEST, len(CONTENT)).content) for one in (b, c)]
        for client in clients:
            await client.gets(MIB - 128 * 1024)
        town.read_from.clear()
        town.kill("a")
        await eventually(lambda: town.read_from, what="one reads from the other")
        for tap in taps:
            tap.open()
        assert all([await client.body() == CONTENT for client in clients])
        assert all(offset >= MIB - 128 * 1024 for _, offset, _ in town.read_from)


async def test_each_repository_gets_as_many_tries_as_it_has_endpoints(tmp_path: Path) -> None:
    source = MemorySource(CONTENT, hosts=("mirror.test", "origin.test"))
    for endpoint in ("mirror.test", "origin.test", "mirror.test"):
        source.script.append(Sending(content=some_bytes(len(CONTENT), seed=9), endpoint=endpoint))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT), origin=Reference("up", "other/repository", tag="v1"))
        one.start(DIGEST, len(CONTENT))
        await fill.content.whole()
        assert await Client(fill.content).body() == CONTENT
    assert [asked.repository for asked in source.gets] == ["other/repository"] * 2 + ["team/filter"] * 2
    assert one.spools() == []
