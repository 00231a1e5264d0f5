"""The queue in front of an upstream: its bound, its order, and that nobody who leaves it leaves a hole."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.upstream.queue import FairQueue, Place


class Crowd:
    """Requests in a queue. ``order`` are the names of those that got a place."""

    def __init__(self, queue: FairQueue) -> None:
        self.queue = queue
        self.order: list[str] = []
        self.places: dict[str, Place] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, repository: str, *, first: bool = True) -> None:
        """One more comes, and gets a place or waits."""

        async def run() -> None:
            self.places[name] = await self.queue.enter(repository, first=first)
            self.order.append(name)

        self.tasks[name] = asyncio.create_task(run())
        await settled()

    async def leave(self, name: str) -> None:
        self.places.pop(name).leave()
        await settled()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await settled()

    async def drain(self) -> None:
        """All go, each as soon as it may."""
        while self.places:
            await self.leave(next(iter(self.places)))


async def settled() -> None:
    """All tasks have done what they can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def crowd(limit: int, coming: Sequence[tuple[str, str, bool]]) -> Crowd:
    them = Crowd(FairQueue(limit))
    for name, repository, first in coming:
        await them.come(name, repository, first=first)
    return them


async def test_no_more_than_the_limit_are_under_way() -> None:
    them = await crowd(2, [("a", "x", True), ("b", "x", True), ("c", "x", True)])
    assert them.order == ["a", "b"]
    assert (them.queue.under_way, them.queue.waiting, them.queue.has_room) == (2, 1, False)
    await them.leave("a")
    assert them.order == ["a", "b", "c"]
    await them.drain()
    assert (them.queue.under_way, them.queue.waiting) == (0, 0)


async def test_repositories_take_turns_each_in_its_order() -> None:
    coming = [("0", "z", True)] + [(f"a{n}", "a", True) for n in range(4)]
    coming += [("b0", "b", True), ("b1", "b", True), ("c0", "c", True)]
    them = await crowd(1, coming)
    await them.drain()
    assert them.order == ["0", "a0", "b0", "c0", "a1", "b1", "a2", "a3"]


async def test_a_repository_that_comes_late_waits_for_one_of_each_other_and_not_for_all() -> None:
    them = await crowd(1, [("0", "z", True)] + [(f"a{n}", "a", True) for n in range(100)])
    await them.leave("0")
    await them.come("late", "b")
    await them.leave("a0")
    await them.leave("a1")
    assert them.order == ["0", "a0", "a1", "late"] or them.order == ["0", "a0", "late"]
    await them.drain()


async def test_what_is_asked_about_again_goes_behind_what_is_not_held() -> None:
    them = await crowd(1, [("0", "z", True), ("again", "a", False), ("new", "a", True), ("newer", "b", True)])
    await them.drain()
    assert them.order == ["0", "new", "newer", "again"]


async def test_who_gives_up_leaves_no_hole() -> None:
    them = await crowd(1, [("0", "z", True), ("a", "a", True), ("b", "b", True), ("c", "b", True)])
    await them.give_up("a")
    await them.give_up("b")
    assert them.queue.waiting == 1
    await them.leave("0")
    assert them.order == ["0", "c"]
    await them.drain()
    assert (them.queue.under_way, them.queue.waiting) == (0, 0)


async def test_who_gives_up_just_as_its_turn_comes_hands_it_on() -> None:
    them = await crowd(1, [("0", "z", True), ("a", "a", True), ("b", "b", True)])
    them.places.pop("0").leave()
    them.tasks["a"].cancel()
    await settled()
    assert them.order == ["0", "b"]
    await them.drain()
    assert them.queue.under_way == 0


async def test_leaving_twice_frees_one_place() -> None:
    them = await crowd(1, [("0", "z", True), ("a", "a", True), ("b", "b", True)])
    place = them.places.pop("0")
    place.leave()
    place.leave()
    await settled()
    assert them.order == ["0", "a"]
    await them.drain()


_events = st.lists(
    st.tuples(st.sampled_from(["come", "come", "leave", "give up"]), st.sampled_from("abc"), st.booleans()), max_size=40
)


@settings(max_examples=60)
@given(st.integers(1, 4), _events)
def test_in_any_order_of_events_every_place_is_used_and_none_twice(
    limit: int, events: list[tuple[str, str, bool]]
) -> None:
    async def run() -> None:
        them = Crowd(FairQueue(limit))
        for number, (event, repository, first) in enumerate(events):
            waiting = [name for name, task in them.tasks.items() if not task.done()]
            if event == "come":
                await them.come(str(number), repository, first=first)
            elif event == "leave" and them.places:
                await them.leave(next(iter(them.places)))
            elif event == "give up" and waiting:
                await them.give_up(waiting[len(waiting) // 2])
            waiting = [name for name, task in them.tasks.items() if not task.done()]
            assert len(them.places) == them.queue.under_way <= limit
            assert len(waiting) == them.queue.waiting
            assert not waiting or not them.queue.has_room
        await them.drain()
        assert (them.queue.under_way, them.queue.waiting) == (0, 0)
        assert all(task.done() for task in them.tasks.values())

    asyncio.run(run())
