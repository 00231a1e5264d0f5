"""Two endpoints side by side, when the first takes long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest

from mirror.digest import Digest
from mirror.errors import ManifestUnknown, UpstreamDenied, UpstreamUnavailable
from mirror.upstream.breaker import State
from mirror.upstream.failover import Upstream
from mirror.upstream.hedge import first_good
from mirror.upstream.queue import FairQueue
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.upstream.support import BLOB, MANIFEST_DIGEST, REPOSITORY, content, holding, pulling_from, within

AT_ONCE = 0.01


@asynccontextmanager
async def hedging(number: int = 2, **settings: Any) -> AsyncIterator[tuple[list[FaultyUpstream], Upstream]]:
    """So many endpoints with the same content."""
    with ExitStack() as stack:
        endpoints = [holding(stack.enter_context(FaultyUpstream())) for _ in range(number)]
        async with pulling_from(*endpoints, **{"hedge_after": AT_ONCE, **settings}) as upstream:
            yield endpoints, upstream


QUESTIONS: dict[str, Callable[[Upstream], Awaitable[object]]] = {
    "head": lambda upstream: upstream.head_manifest(REPOSITORY, "v1", deadline=within(10)),
    "get": lambda upstream: upstream.get_manifest(REPOSITORY, "v1", deadline=within(10)),
    "blob": lambda upstream: _whole(upstream),
}
each_question = pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())


async def _whole(upstream: Upstream) -> bytes:
    stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within(10))
    got = await content(stream)
    assert got == BLOB
    return got


@each_question
async def test_the_next_answers_when_the_first_takes_long_and_the_first_is_given_up(
    question: Callable[[Upstream], Awaitable[object]],
) -> None:
    async with hedging() as ((slow, quick), upstream):
        slow.inject(Fault(hang=True))
        began = asyncio.get_running_loop().time()
        assert await question(upstream)
        assert asyncio.get_running_loop().time() - began < 3, "half of the time would be the share of the first"
        assert (slow.count(), quick.count()) == (1, 1)
        await eventually(lambda: slow.open_connections == 0, what="the end of the slow request")
        assert [state.breaker for state in upstream.endpoints_state()] == [State.CLOSED] * 2
        assert [state.last_error for state in upstream.endpoints_state()] == ["", ""]


@each_question
async def test_without_the_setting_nobody_is_asked_beside_another(
    question: Callable[[Upstream], Awaitable[object]],
) -> None:
    async with hedging(hedge_after=None) as ((slow, quick), upstream):
        slow.inject(Fault(delay=0.2))
        assert await question(upstream)
        assert (slow.count(), quick.count()) == (1, 0)


async def test_who_answers_in_time_is_not_hedged() -> None:
    async with hedging(hedge_after=5) as ((first, second), upstream):
        assert await _whole(upstream)
        assert (first.count(), second.count()) == (1, 0)


async def test_a_first_one_that_fails_is_not_waited_for() -> None:
    async with hedging(hedge_after=5) as ((first, second), upstream):
        first.inject(Fault(status=500))
        began = asyncio.get_running_loop().time()
        assert await _whole(upstream)
        assert asyncio.get_running_loop().time() - began < 3
        assert (first.count(), second.count()) == (1, 1)


async def test_the_first_may_still_win_when_the_second_has_nothing() -> None:
    gate = Gate()
    async with hedging() as ((first, second), upstream):
        first.inject(Fault(hold=gate))
        second.inject(Fault(status=404))
        asked = asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
        await eventually(lambda: second.count(status=404), what="the answer of the second")
        gate.release()
        assert (await asked).digest == MANIFEST_DIGEST


@pytest.mark.parametrize("which", [0, 1])
async def test_a_refusal_is_final_though_the_other_might_answer(which: int) -> None:
    async with hedging() as (endpoints, upstream):
        endpoints[which].inject(Fault(delay=0.1, status=403))
        endpoints[1 - which].inject(Fault(hang=True))
        with pytest.raises(UpstreamDenied):
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        await eventually(lambda: endpoints[1 - which].open_connections == 0, what="the end of the other request")


async def test_when_both_fail_the_origins_word_counts() -> None:
    async with hedging() as ((first, second), upstream):
        first.inject(Fault(delay=0.1, status=500))
        second.inject(Fault(status=404))
        with pytest.raises(ManifestUnknown):
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())


async def test_a_full_upstream_is_not_burdened_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, gate = [], Gate()

    def has_room(queue: FairQueue) -> bool:
        looks.append(queue.waiting)
        return queue.under_way < queue.limit

    monkeypatch.setattr(FairQueue, "has_room", property(has_room))
    async with hedging(max_requests=1) as ((first, second), upstream):
        first.inject(Fault(hold=gate))
        asked = asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
        await eventually(lambda: len(looks) > 5, what="that a second one is thought of")
        gate.release()
        await asked
        assert (first.count(), second.count(), max(looks)) == (1, 0, 0)


async def test_neither_leaves_a_place_taken() -> None:
    async with hedging(max_requests=2) as ((first, second), upstream):
        first.inject(Fault(hang=True))
        for _ in range(5):
            assert await _whole(upstream)
        second.inject(Fault(hang=True))
        stopped = asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
        await eventually(lambda: second.count(path="/manifests/"), what="the second request")
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        first.clear()
        assert await _whole(upstream)


# The race itself.


class Racing:
    """Attempts that end when they are told to. ``discarded`` are the results that nobody wanted."""

    def __init__(self, number: int) -> None:
        self.begun: list[int] = []
        self.ends: list[asyncio.Future[str]] = [asyncio.get_running_loop().create_future() for _ in range(number)]
        self.discarded: list[str] = []
        self.room = True
        self.looks = 0
        self.task = asyncio.create_task(
            first_good(
                [self._attempt(index) for index in range(number)],
                after=AT_ONCE,
                has_room=self._has_room,
                is_final=lambda failure: isinstance(failure, UpstreamDenied),
                discard=self._discard,
            )
        )

    def _attempt(self, index: int) -> Callable[[], Awaitable[str]]:
        async def run() -> str:
            self.begun.append(index)
            return await asyncio.shield(self.ends[index])

        return run

    def _has_room(self) -> bool:
        self.looks += 1
        return self.room

    async def _discard(self, result: str) -> None:
        self.discarded.append(result)


async def test_of_two_that_answer_at_once_one_is_discarded() -> None:
    racing = Racing(2)
    await eventually(lambda: racing.begun == [0, 1])
    racing.ends[0].set_result("one")
    racing.ends[1].set_result("two")
    won = await racing.task
    assert {won, *racing.discarded} == {"one", "two"}
    assert len(racing.discarded) == 1


async def test_the_last_failure_is_told_and_a_third_follows_on_a_failure() -> None:
    racing = Racing(3)
    await eventually(lambda: racing.begun == [0, 1])
    racing.ends[0].set_exception(UpstreamUnavailable("one"))
    await eventually(lambda: racing.begun == [0, 1, 2])
    racing.ends[1].set_exception(UpstreamUnavailable("two"))
    racing.ends[2].set_exception(UpstreamUnavailable("three"))
    with pytest.raises(UpstreamUnavailable):
        await racing.task


async def test_no_more_than_two_are_under_way_at_a_time() -> None:
    racing = Racing(3)
    await eventually(lambda: racing.begun == [0, 1])
    until = asyncio.get_running_loop().time() + 5 * AT_ONCE
    await eventually(lambda: asyncio.get_running_loop().time() > until)
    assert racing.begun == [0, 1]
    racing.ends[1].set_result("two")
    assert await racing.task == "two"


async def test_while_there_is_no_room_the_second_waits_for_it() -> None:
    racing = Racing(2)
    racing.room = False
    await eventually(lambda: racing.looks > 3)
    assert racing.begun == [0]
    racing.room = True
    await eventually(lambda: racing.begun == [0, 1])
    racing.ends[1].set_result("two")
    assert await racing.task == "two"
