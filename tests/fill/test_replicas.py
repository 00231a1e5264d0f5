"""Replicas share a download: one asks upstream, the others read from it, and go on where it dies."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mirror import meanwhile, sharing
from mirror.digest import Digest
from mirror.download import BlobStream
from mirror.errors import BlobUnknown, MirrorError, UpstreamTimeout, UpstreamUnavailable
from mirror.sharing import Shared
from tests.fill.source import PIECE, MemorySource, MemoryStream, Sending, Tap
from tests.fill.test_disk import full_from
from tests.fill.workers import MIB, Client, Worker, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

CONTENT = some_bytes(2 * MIB)
DIGEST = Digest.of(CONTENT)


class Town:
    """The replicas of a test, their leases, and the way from one to the other: all in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.leases: dict[Digest, str] = {}
        self.known: dict[Digest, list[str]] = {}
        self.workers: dict[str, Worker] = {}
        self.dead: set[str] = set()
        self.lies: dict[str, bytes] = {}
        self.cuts: dict[str, int] = {}
        """Where a replica that holds the blob cuts its next body."""
        self.idle_for = math.inf
        """Seconds after which who gets no bytes from another replica gives up."""
        self.blamed: list[str] = []
        self.looks = 0
        self.read_from: list[tuple[str, int, bool]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Town":
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def add(self, name: str) -> Worker:
        """A replica with an empty disk and an upstream of its own, whose GETs can be counted."""
        shared = Shared(Ledger(self, name), self, self, name)
        one = await self._stack.enter_async_context(
            worker(data_in(self.folder / name), MemorySource(CONTENT), sharing=shared)
        )
        self.workers[name] = one
        return one

    def kill(self, name: str) -> None:
        """It answers nobody any more, and its leases end."""
        self.dead.add(name)
        self.leases = {digest: holder for digest, holder in self.leases.items() if holder != name}

    async def holders(self, digest: Digest) -> Sequence[str]:
        return self.known.get(digest, [])

    async def add_holder(self, digest: Digest, address: str) -> None:
        self.known.setdefault(digest, []).append(address)

    async def remove_holders(self, digests: Sequence[Digest], address: str) -> None:
        for digest in digests:
            self.known[digest].remove(address)

    async def find(self, digest: Digest, hinted: Sequence[str], without: Collection[str]) -> str | None:
        self.looks += 1
        for name in hinted:
            if name not in {*self.dead, *without} and self.workers[name].held(digest) is not None:
                return name
        return None

    def cool_down(self, endpoint: str, digest: Digest) -> None:
        self.blamed.append(endpoint)

    async def open_blob(self, address: str, digest: Digest, *, offset: int, held: bool, deadline: float) -> BlobStream:
        if address in self.dead:
            raise UpstreamUnavailable(f"{address} refuses connections")
        self.read_from.append((address, offset, held))
        there = self.workers[address]
        if address in self.lies:
            return MemoryStream(self.lies[address], Sending(endpoint=address, announces=len(CONTENT)), offset)
        content = there.held(digest)
        if content is not None:
            return MemoryStream(content, Sending(endpoint=address, cut_at=self.cuts.pop(address, None)), offset)
        growing = None if held else there.fills.tail(digest)
        if growing is None:
            raise BlobUnknown(f"{address} does not have {digest}")
        return Flow(self, address, offset, growing.stream(offset, None), len(CONTENT))


class Flow:
    """A body that one replica reads from another; cut when that one dies."""

    def __init__(
        self, town: Town, endpoint: str, offset: int, body: AsyncIterator[bytes | memoryview], size: int
    ) -> None:
        self.town, self.endpoint, self.offset, self.size = town, endpoint, offset, size
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reading = asyncio.ensure_future(anext(self._body, None))
        clock = asyncio.get_running_loop().time
        came_at = clock()
        try:
            while True:
                await asyncio.wait([reading], timeout=0.01)
                if not reading.done() and clock() > came_at + self.town.idle_for:
                    raise UpstreamTimeout(f"{self.endpoint} sends nothing")
                if self.endpoint in self.town.dead:
                    raise UpstreamUnavailable(f"{self.endpoint} cut the connection")
                if reading.done():
                    try:
                        data = reading.result()
                    except MirrorError as error:  # seen through a connection, a cut
                        raise UpstreamUnavailable(f"{self.endpoint} cut the connection") from error
                    if data is None:
                        return
                    yield bytes(data)
                    came_at = clock()
                    reading = asyncio.ensure_future(anext(self._body, None))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def aclose(self) -> None:
        """Nothing is to be closed."""


class Ledger:
    """As much of the leases of one replica as a fill needs."""

    def __init__(self, town: Town, name: str) -> None:
        self._town, self._name = town, name

    @asynccontextmanager
    async def fill(self, digest: Digest) -> AsyncIterator["Right"]:
        """The right to download a blob."""
        try:
            yield Right(self._town, self._name, digest)
        finally:
            if self._town.leases.get(digest) == self._name:
                del self._town.leases[digest]


class Right:
    """One lease."""

    def __init__(self, town: Town, name: str, digest: Digest) -> None:
        self._town, self._name, self._digest = town, name, digest

    async def take(self) -> str | None:
        """Take it, unless another has it."""
        holder = self._town.leases.setdefault(self._digest, self._name)
        return None if holder == self._name else holder


async def test_all_replicas_cost_upstream_one_get(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        replicas = [await town.add(name) for name in "abc"]
        clients = [Client(one.start(DIGEST, len(CONTENT)).content) for one in replicas for _ in range(20)]
        assert all([await client.body() == CONTENT for client in clients])
        assert sum(len(one.source.gets) for one in replicas) == 1
        await eventually(lambda: all(one.held(DIGEST) == CONTENT for one in replicas))
        assert not town.leases


async def test_bytes_reach_the_clients_of_other_replicas_as_they_arrive_but_never_all_unverified(
    tmp_path: Path,
) -> None:
    async with Town(tmp_path) as town:
        a, b = await town.add("a"), await town.add("b")
        tap = Tap(MIB)
        a.source.script.append(Sending(tap=tap))
        a.start(DIGEST, len(CONTENT))
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        client = Client(b.start(DIGEST, len(CONTENT)).content)
        await client.gets(MIB - 64 * 1024)
        assert len(client.received) <= MIB
        tap.open()
        assert await client.body() == CONTENT
        assert not b.source.gets


async def test_a_replica_goes_on_from_its_own_bytes_when_the_one_that_fetches_dies(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        a, b, c = await town.add("a"), await town.add("b"), await town.add("c")
        a.source.script.append(Sending(tap=Tap(MIB)))
        a.start(DIGEST, len(CONTENT))
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        clients = [Client(one.start(DIGEST, len(CONTENT)).content) for one in (b, c)]
        for client in clients:
            await client.gets(MIB - 128 * 1024)
        town.kill("a")
        assert all([await client.body() == CONTENT for client in clients])
        (asked,) = [*b.source.gets, *c.source.gets]
        assert asked.offset >= MIB - 128 * 1024


async def test_a_replica_that_holds_it_is_asked_before_upstream(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        a = await town.add("a")
        fill = a.start(DIGEST, len(CONTENT))
        await a.ended(fill)
        b = await town.add("b")
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert not b.source.gets
        assert town.read_from == [("a", 0, True)]


async def test_a_replica_that_is_said_to_hold_it_and_does_not_costs_nothing_but_the_question(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        await town.add("a")
        town.known[DIGEST] = ["a"]
        b = await town.add("b")
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert b.source.offsets == [0]


@pytest.mark.shows("a replica sends wrong bytes to another")
async def test_wrong_bytes_of_a_replica_are_not_passed_on_and_upstream_is_asked(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        a = await town.add("a")
        await a.ended(a.start(DIGEST, len(CONTENT)))
        town.lies["a"] = CONTENT[:-1] + b"?"
        b = await town.add("b")
        fill = b.start(DIGEST, len(CONTENT))
        await fill.content.whole()
        await b.ended(fill)
        assert b.held(DIGEST) == CONTENT
        assert b.source.offsets == [0]
        assert not b.source.cooled, "upstream is not to blame"
        assert town.blamed == ["a"]


async def test_a_fill_that_fails_at_one_replica_is_tried_by_the_next(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        a, b = await town.add("a"), await town.add("b")
        gate = Tap(0)
        a.source.script.append(Sending(refuses=BlobUnknown("its repository lost it"), tap=gate))
        first = Client(a.start(DIGEST, len(CONTENT)).content)
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        second = Client(b.start(DIGEST, len(CONTENT)).content)
        gate.open()
        assert isinstance(await first.cut(), BlobUnknown)
        assert await second.body() == CONTENT


async def test_a_replica_that_fetches_and_cannot_be_reached_does_not_make_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_PATIENCE", 0.2)
    async with Town(tmp_path) as town:
        a, b = await town.add("a"), await town.add("b")
        a.source.script.append(Sending(tap=Tap(MIB)))
        a.start(DIGEST, len(CONTENT))
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        town.dead.add("a")  # for b, but its lease goes on
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert b.source.offsets == [0]
        assert town.leases[DIGEST] == "a"


@pytest.mark.parametrize("came", [0, MIB], ids=["from the beginning", "in the middle"])
async def test_a_replica_that_alone_cannot_reach_upstream_does_not_make_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, came: int
) -> None:
    monkeypatch.setattr(sharing, "_PATIENCE", 0.2)
    async with Town(tmp_path) as town:
        town.idle_for = 0.05
        a, b = await town.add("a"), await town.add("b")
        a.source.script.append(Sending(tap=Tap(came)))
        a.start(DIGEST, len(CONTENT))
        await eventually(lambda: town.leases.get(DIGEST) == "a")
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        (offset,) = b.source.offsets
        assert offset >= came - 64 * 1024 - PIECE
        assert town.leases[DIGEST] == "a"


async def test_a_replica_that_holds_it_is_asked_again_after_a_cut_when_upstream_is_away(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        a = await town.add("a")
        await a.ended(a.start(DIGEST, len(CONTENT)))
        town.cuts["a"] = MIB
        b = await town.add("b")
        b.source.away = True
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert town.read_from == [("a", 0, True), ("a", MIB, True)]


async def test_a_replica_that_gave_bytes_and_restarts_is_waited_for_when_upstream_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_BACK_EVERY", 0.01)
    async with Town(tmp_path) as town:
        a = await town.add("a")
        await a.ended(a.start(DIGEST, len(CONTENT)))
        town.cuts["a"] = MIB
        b = await town.add("b")
        b.source.away = True
        find, looks = town.find, 0

        async def restarting(digest: Digest, hinted: Sequence[str], without: Collection[str]) -> str | None:
            nonlocal looks
            looks += 1
            return await find(digest, hinted, without) if looks == 1 or looks > 5 else None

        monkeypatch.setattr(town, "find", restarting)
        assert await Client(b.start(DIGEST, len(CONTENT)).content).body() == CONTENT
        assert town.read_from == [("a", 0, True), ("a", MIB, True)]


async def test_a_replica_that_gets_hold_of_it_while_upstream_keeps_silent_is_read_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meanwhile, "_LOOK_EVERY", 0.01)
    async with Town(tmp_path) as town:
        a, b = await town.add("a"), await town.add("b")
        b.source.script.append(Sending(refuses=UpstreamUnavailable("too late"), tap=Tap(0)))
        client = Client(b.start(DIGEST, len(CONTENT)).content)
        await eventually(lambda: len(b.source.gets) == 1)
        a.store.put(DIGEST, CONTENT)
        town.known[DIGEST] = ["a"]
        assert await client.body() == CONTENT
        assert len(b.source.gets) == 1


async def test_a_replica_that_begins_to_answer_and_gives_nothing_keeps_nobody_from_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meanwhile, "_LOOK_EVERY", 0.01)
    async with Town(tmp_path) as town:
        a = await town.add("a")
        await a.ended(a.start(DIGEST, len(CONTENT)))
        town.lies["a"] = b""
        b = await town.add("b")
        slow = Tap(0)
        b.source.script.append(Sending(refuses=UpstreamUnavailable("not yet"), tap=slow))
        client = Client(b.start(DIGEST, len(CONTENT)).content)
        await eventually(lambda: len(b.source.gets) == 1)
        looks = town.looks
        await eventually(lambda: town.looks > looks + 3)
        slow.open()
        assert await client.body() == CONTENT
        assert town.read_from == [("a", 0, True)]


async def test_a_tail_begins_no_download(tmp_path: Path) -> None:
    async with Town(tmp_path) as town:
        a = await town.add("a")
        assert a.fills.tail(DIGEST) is None
        assert not a.source.gets


async def test_wrong_bytes_that_only_replicas_have_read_are_replaced_unseen_and_their_readers_cut(
    tmp_path: Path,
) -> None:
    async with Town(tmp_path) as town:
        a = await town.add("a")
        tap = Tap(MIB)
        a.source.script.append(Sending(content=CONTENT[:-1] + b"?", tap=tap))
        fill = a.start(DIGEST, len(CONTENT))
        assert a.fills.tail(DIGEST) is fill.content
        reader = Client(fill.content, tentative=True)
        await reader.gets(MIB // 2)
        tap.open()
        assert isinstance(await reader.cut(), UpstreamUnavailable)
        assert await Client(fill.content).body() == CONTENT
        assert a.source.offsets == [0, 0]


async def test_wrong_bytes_that_only_passed_through_memory_are_not_ended_as_if_they_were_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_from(0)(monkeypatch)
    source = MemorySource(CONTENT, hosts=("a", "b"))
    tap = Tap(2 * MIB - 10)
    source.script.append(Sending(content=CONTENT[:-1000] + bytes(1000), tap=tap, endpoint="a"))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        reader = Client(fill.content, MIB, len(CONTENT) - 20, tentative=True)
        await reader.gets(MIB // 2)
        tap.open()
        assert isinstance(await reader.cut(), UpstreamUnavailable)
        assert reader.received == CONTENT[MIB : MIB + len(reader.received)]
