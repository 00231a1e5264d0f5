"""The beat: who is there, what has moved, and how long memory may be believed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from mirror.cluster import beat as module
from mirror.cluster.beat import ALIVE_FOR, BELIEVES_FOR, Beat
from mirror.config.models import MetadataSettings
from mirror.shared import keys
from mirror.shared.client import RedisClient
from tests.support.redis import RedisServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """A worker's beat, its clock, and how often it was told that Redis may have lost something."""

    def __init__(self, client: RedisClient, address: str) -> None:
        self.clock = Clock()
        self.client = client
        self.returns = 0
        self.beat = Beat(client, address, self.clock, self._returned)

    def _returned(self) -> None:
        self.returns += 1


@asynccontextmanager
async def worker(server: RedisServer, address: str = "") -> AsyncIterator[Worker]:
    """A worker of the replica at ``address``, which has not beaten yet."""
    client = RedisClient.of(MetadataSettings(url=server.url))
    try:
        yield Worker(client, address)
    finally:
        await client.aclose()


def moved(server: RedisServer) -> None:
    """A tag has moved, or is about to."""
    with server.client() as client:
        client.incr(keys.generation())


async def test_replicas_know_each_others_addresses_and_not_their_own(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server, "http://a") as a, worker(server, "http://b") as b, worker(server, "http://b") as c:
            for one in (a, b, c, a):
                await one.beat.once()
            assert a.beat.addresses() == ["http://b"]
            await b.beat.once()
            assert b.beat.addresses() == ["http://a"]


async def test_a_replica_that_leaves_is_asked_no_more(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server, "http://a") as a, worker(server, "http://b") as b:
            await b.beat.once()
            await b.beat.leave()
            await a.beat.once()
            assert a.beat.addresses() == []


async def test_the_number_changes_for_all_when_a_tag_moves(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a, worker(server) as b:
            await a.beat.once()
            await b.beat.once()
            before = a.beat.moves
            assert before == b.beat.moves
            moved(server)
            await a.beat.once()
            await b.beat.once()
            assert a.beat.moves == b.beat.moves != before


async def test_memory_is_believed_only_for_a_while_after_a_beat(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a:
            assert a.beat.in_sight, "without Redis there is nobody to be outdated by"
            await a.beat.once()
            a.clock.now += BELIEVES_FOR
            assert a.beat.in_sight
            a.clock.now += 0.01
            assert not a.beat.in_sight
            await a.beat.once()
            assert a.beat.in_sight


async def test_who_waits_for_the_others_has_waited_until_all_have_seen_the_move(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a, worker(server) as b:
            await b.beat.once()
            await a.beat.once()
            moved(server)
            waiting = asyncio.create_task(a.beat.seen_by_all())
            await a.beat.once()
            assert not waiting.done()
            await b.beat.once()  # learns of it
            await a.beat.once()
            assert not waiting.done(), "b has not said so yet"
            await b.beat.once()
            await asyncio.wait_for(waiting, 5)


async def test_a_replica_that_hangs_is_not_waited_for_longer_than_it_believes_itself(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a, worker(server) as b:
            await b.beat.once()
            moved(server)
            await asyncio.wait_for(a.beat.seen_by_all(), 5)


async def test_nobody_is_waited_for_without_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a, worker(server) as b:
            await b.beat.once()
            await a.beat.once()
            server.kill()
            await asyncio.wait_for(a.beat.seen_by_all(), 5)
            assert not a.client.up
            assert a.beat.in_sight


async def test_a_redis_that_has_forgotten_everything_is_noticed_by_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mirror.cluster")
    with RedisServer(tmp_path) as server:
        async with worker(server) as a, worker(server) as b:
            for _ in range(2):
                await a.beat.once()
                await b.beat.once()
            assert (a.returns, b.returns) == (1, 1)
            before = a.beat.moves
            server.flush()
            for _ in range(2):
                await b.beat.once()
                await a.beat.once()
            assert (a.returns, b.returns) == (2, 2)
            assert a.beat.moves == b.beat.moves > before
    assert [record.message.partition(":")[0] for record in caplog.records] == ["Redis has forgotten this replica"] * 2


async def test_a_redis_that_is_back_is_noticed(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a:
            running = asyncio.create_task(a.beat.run())
            await eventually(lambda: a.returns == 1)
            server.pause()
            await eventually(lambda: not a.client.up)
            server.resume()
            await eventually(lambda: a.returns == 2)
            assert a.client.up
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("rubbish", ["soon", "9" * 30, None], ids=["words", "too much", "a list"])
async def test_what_others_wrote_in_the_place_of_the_number_is_replaced(tmp_path: Path, rubbish: str | None) -> None:
    with RedisServer(tmp_path) as server, server.client() as probe:
        if rubbish is None:
            probe.rpush(keys.generation(), "x")
        else:
            probe.set(keys.generation(), rubbish)
        async with worker(server) as a, worker(server) as b:
            await a.beat.once()
            await b.beat.once()
            assert a.client.up
            assert a.beat.in_sight
            assert a.beat.moves == b.beat.moves > 10**15


async def test_what_others_wrote_among_the_members_goes_and_hides_none_of_them(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, server.client() as probe:
        async with worker(server, "http://a") as a, worker(server, "http://b") as b:
            await b.beat.once()
            for name, value in {
                "x": "",
                "y": b"\xff",
                "z": "99999999999999 0 http://z",
                "w": "soon 1 http://w",
            }.items():
                probe.hset(keys.members(), name, value)
            await a.beat.once()
            assert "http://b" in a.beat.addresses()
            await a.beat.once()
            assert a.beat.addresses() == ["http://b"]
            assert probe.hlen(keys.members()) == 2
            probe.delete(keys.members())
            probe.set(keys.members(), "nobody")
            await a.beat.once()
            assert a.client.up


async def test_a_beat_that_is_answered_late_does_not_take_back_what_a_later_one_has_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server) as a:
            await a.beat.once()
            ask, late = a.beat._script, asyncio.Event()

            async def delayed(*question: Any, **how: Any) -> Any:
                answer = await ask(*question, **how)
                await late.wait()
                return answer

            a.beat._script = delayed  # type: ignore[assignment]  # Redis answers, and its answer takes a while
            slow = asyncio.create_task(a.beat.once())
            await asyncio.sleep(0)
            a.beat._script = ask
            await eventually(lambda: a.client._running == 0)
            a.clock.now += 0.1
            moved(server)
            await a.beat.once()
            moves = a.beat.moves
            late.set()
            await slow
            assert a.beat.moves == moves


async def test_the_beat_goes_on_after_an_error_that_nobody_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BELIEVES_FOR", 0.01)
    with RedisServer(tmp_path) as server:
        async with worker(server) as a:
            ask, asked = a.beat._script, 0

            async def failing(*question: Any, **how: Any) -> Any:
                nonlocal asked
                asked += 1
                if asked == 1:
                    raise AssertionError("nobody expected this")
                return await ask(*question, **how)

            a.beat._script = failing  # type: ignore[assignment]  # the client fails in a new way
            running = asyncio.create_task(a.beat.run())
            await eventually(lambda: a.returns == 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class Told:
    """In a Redis's place: what each beat is told, and how long it takes by the worker's clock."""

    up = True

    def __init__(self) -> None:
        self.clock = Clock()
        self.generation = 100
        self.members: dict[str, str] = {}
        self.takes = 0.0
        self.beats = 0
        self.beat = Beat(cast(RedisClient, self), "http://a", self.clock, lambda: None)

    def script(self, source: str) -> "Told":
        return self

    async def __call__(self, keywords: Sequence[str], arguments: Sequence[str], **_: object) -> list[object]:
        self.beats += 1
        self.clock.now += self.takes
        name, seen, address = arguments[:3]
        self.members[name] = f"50000 {seen} {address}"
        fields = [text.encode() for member in self.members.items() for text in member]
        return [str(self.generation).encode(), 1, b"50000", fields]


async def test_a_beat_counts_from_the_moment_of_its_question() -> None:
    told = Told()
    told.takes = BELIEVES_FOR - 0.05
    await told.beat.once()
    assert told.beat.in_sight
    told.clock.now += 0.1
    assert not told.beat.in_sight


async def test_who_was_not_heard_of_lately_or_has_no_address_is_not_asked() -> None:
    told = Told()
    told.members = {
        "alive": f"{50_000 - round(ALIVE_FOR * 1000)} 0 http://b",
        "dead": f"{50_000 - round(ALIVE_FOR * 1000) - 1} 0 http://c",
        "nowhere": "50000 0 ",
    }
    await told.beat.once()
    assert told.beat.addresses() == ["http://b"]


async def test_who_has_seen_an_earlier_move_is_waited_for_and_nobody_waits_for_itself() -> None:
    told = Told()
    told.members["b"] = "50000 100 http://b"
    await told.beat.once()
    told.generation, told.beats = 101, 0
    waiting = asyncio.create_task(told.beat.seen_by_all())
    await eventually(lambda: told.beats >= 3)
    assert not waiting.done()
    told.members["b"] = "50000 101 http://b"
    await asyncio.wait_for(waiting, 5)
    told.generation, told.beats = 102, 0
    told.members["b"] = "50000 102 http://b"
    await told.beat.seen_by_all()
    assert told.beats == 1


async def test_who_never_sees_a_move_is_not_waited_for_for_ever() -> None:
    told = Told()
    told.members["b"] = "50000 0 http://b"
    told.takes = 0.1
    await asyncio.wait_for(told.beat.seen_by_all(), 5)
    assert told.clock.now - 1000 > BELIEVES_FOR


async def test_who_was_not_heard_of_for_long_is_struck_off_and_all_end_by_themselves(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, server.client() as client:
        async with worker(server, "http://a") as a:
            client.hset(keys.members(), "b", "1000 7 http://b")
            await a.beat.once()
            assert [str(beat).split(" ")[2] for beat in client.hvals(keys.members())] == ["http://a"]
            assert 0 < int(str(client.ttl(keys.members()))) <= 3600


async def test_that_a_move_was_seen_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 1000.0)
    with RedisServer(tmp_path) as server, server.client() as client:
        async with worker(server, "http://a") as a:
            running = asyncio.create_task(a.beat.run())

            def told() -> list[int]:
                return [int(str(beat).split(" ")[1]) for beat in client.hvals(keys.members())]

            await eventually(lambda: a.beat.moves > 0 and told() == [a.beat.moves])
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_who_leaves_while_redis_is_gone_just_leaves(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server, "http://a") as a:
            await a.beat.once()
            server.kill()
            await a.beat.leave()
            await a.beat.leave()
            assert not a.client.up


async def test_who_was_there_is_not_gone_because_redis_has_forgotten_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with worker(server, "http://one") as one, worker(server, "http://two") as two:
            await two.beat.once()
            await one.beat.once()
            server.flush()
            for _ in range(2):
                await one.beat.once()
                assert one.beat.addresses() == ["http://two"]
            one.clock.now += 1
            await one.beat.once()
            assert one.beat.addresses() == []
