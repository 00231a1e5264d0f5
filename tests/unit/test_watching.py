"""Who watches is told what there is and what changes, of everything the newest, and nothing is looked at for nobody."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from mirror.errors import StoreError, TooMany
from mirror.watching import Listener, Seen, Subject, Watching
from tests.support.waiting import eventually

SOON = 0.001


class Thing:
    """Something to look at; ``value`` is what there is."""

    def __init__(self, value: str | None = "1") -> None:
        self.value = value
        self.looks = 0
        self.fails: Exception | None = None

    async def look(self) -> Seen | None:
        self.looks += 1
        if self.fails is not None:
            raise self.fails
        return None if self.value is None else Seen(self.value.encode(), self.value)

    async def looked(self, times: int = 2) -> None:
        """Wait until it was looked at so many times from now on."""
        wanted = self.looks + times
        await eventually(lambda: self.looks >= wanted)


def watching(thing: Thing, *, at_once: bool = True, most: int = 8, beat_every: float = 60.0) -> Watching:
    return Watching({"thing": Subject(thing.look, every=SOON, at_once=at_once)}, most, beat_every)


async def told(listener: Listener) -> str:
    """What is said next, after the greeting."""
    said = await anext(listener)
    while said.startswith(b"retry: "):
        said = await anext(listener)
    return said.decode()


def event(value: str) -> str:
    return f"event: thing\ndata: {value}\n\n"


@contextlib.asynccontextmanager
async def ended(one: Watching) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await one.aclose()


async def test_who_begins_to_listen_is_told_what_there_is_and_then_what_changes() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        listener = one.listen()
        assert await told(listener) == event("1")
        thing.value = "2"
        assert await told(listener) == event("2")


async def test_what_stays_the_same_is_said_once() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        listener = one.listen()
        assert await told(listener) == event("1")
        saying = asyncio.ensure_future(told(listener))
        await thing.looked(5)
        assert not saying.done()
        thing.value = "2"
        assert await saying == event("2")


async def test_who_comes_later_is_told_what_there_is_too_by_the_same_looker() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        assert await told(one.listen()) == event("1")
        tasks = len(asyncio.all_tasks())
        assert await told(one.listen()) == event("1")
        assert len(asyncio.all_tasks()) == tasks


async def test_what_is_told_only_when_it_changes_is_not_told_at_once() -> None:
    thing = Thing()
    async with ended(one := watching(thing, at_once=False)):
        first = one.listen()
        await thing.looked()
        second = one.listen()
        thing.value = "2"
        assert [await told(listener) for listener in (first, second)] == [event("2")] * 2


async def test_who_reads_slowly_gets_the_newest_and_nothing_of_what_was_in_between() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        slow = one.listen()
        for value in ("2", "3", "4"):
            thing.value = value
            await thing.looked()
        assert await told(slow) == event("4")


async def test_nothing_is_looked_at_before_anybody_listens_nor_after_the_last_has_left() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        assert (thing.looks, one.looks) == (0, False)
        first, second = one.listen(), one.listen()
        await first.aclose()
        await thing.looked()
        assert one.looks
        await second.aclose()
        assert not one.looks
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_listens_after_a_pause_is_told_what_there_is_then() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        listener = one.listen()
        assert await told(listener) == event("1")
        await listener.aclose()
        thing.value = "2"
        assert await told(one.listen()) == event("2")


async def test_no_more_may_listen_than_are_allowed_and_who_leaves_makes_room() -> None:
    async with ended(one := watching(Thing(), most=2)):
        first, _ = one.listen(), one.listen()
        with pytest.raises(TooMany, match="2 pages follow"):
            one.listen()
        await first.aclose()
        one.listen()


async def test_where_nothing_changes_there_is_a_comment_now_and_then() -> None:
    async with ended(one := watching(Thing(value=None), beat_every=SOON)):
        assert (await told(one.listen())).startswith(": ")


async def test_the_first_word_says_when_to_come_back() -> None:
    async with ended(one := watching(Thing())):
        assert await anext(one.listen()) == b"retry: 1000\n\n"


async def test_what_cannot_be_looked_at_for_a_while_is_told_again_when_it_can() -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        listener = one.listen()
        assert await told(listener) == event("1")
        thing.fails = StoreError("the disk fails")
        await thing.looked()
        thing.value, thing.fails = "2", None
        assert await told(listener) == event("2")


async def test_a_fault_of_the_mirrors_own_is_logged_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    thing = Thing()
    async with ended(one := watching(thing)):
        listener = one.listen()
        thing.fails = RuntimeError("a fault")
        await thing.looked(5)
        thing.fails = None
        assert await told(listener) == event("1")
    assert [record.getMessage() for record in caplog.records] == ["thing cannot be looked at"]


async def test_one_thing_that_hangs_holds_up_no_other() -> None:
    thing = Thing()
    hangs = asyncio.get_running_loop().create_future()

    async def hang() -> Seen | None:
        await hangs
        return None

    one = Watching({"hangs": Subject(hang, every=SOON), "thing": Subject(thing.look, every=SOON)})
    async with ended(one):
        assert await told(one.listen()) == event("1")


async def test_at_the_end_nobody_is_left_looking() -> None:
    one = watching(Thing())
    one.listen()
    before = asyncio.all_tasks()
    await one.aclose()
    assert not one.looks
    assert len(asyncio.all_tasks()) == len(before) - 1
