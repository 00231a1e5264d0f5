"""Single flight: one piece of work for all who ask while it goes on, and for nobody who asks later."""

import asyncio

import pytest

from mirror.flight import Flights, Rounds
from tests.support.waiting import eventually


async def test_who_asks_while_the_work_goes_on_shares_it() -> None:
    flights: Flights[int] = Flights()
    gate = asyncio.Event()
    begun = []

    async def work() -> int:
        begun.append(1)
        await gate.wait()
        return 7

    first, joined_first = flights.join("key", work)
    other, joined_other = flights.join("other", work)
    second, joined_second = flights.join("key", work)
    assert (joined_first, joined_second, joined_other) == (False, True, False)
    assert second is first
    assert other is not first
    gate.set()
    assert list(await asyncio.gather(first, second, other)) == [7, 7, 7]
    assert len(begun) == 2


async def test_who_leaves_does_not_stop_the_work() -> None:
    flights: Flights[int] = Flights()
    gate = asyncio.Event()

    async def work() -> int:
        await gate.wait()
        return 7

    task, _ = flights.join("key", work)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0.01)
    gate.set()
    assert await task == 7


async def test_who_asks_after_the_end_is_not_given_what_was() -> None:
    """Not even when the end is so fresh that nobody has been told of it."""
    flights: Flights[int] = Flights()
    results = iter([1, 2])
    second: list[asyncio.Task[int]] = []

    async def work() -> int:
        # What is called soonest after the work has ended, before the task's own callbacks.
        asyncio.get_running_loop().call_soon(lambda: second.append(flights.join("key", later)[0]))
        return next(results)

    async def later() -> int:
        return next(results)

    first, _ = flights.join("key", work)
    assert await first == 1
    assert await second[0] == 2
    await asyncio.sleep(0)
    assert not flights.under_way("key")


async def test_a_failure_that_nobody_waits_for_is_no_error_of_the_loop() -> None:
    flights: Flights[int] = Flights()

    async def work() -> int:
        raise ValueError("nobody hears")

    flights.join("key", work)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not flights.under_way("key")


async def test_closing_stops_the_work() -> None:
    flights: Flights[int] = Flights()
    task, _ = flights.join("key", asyncio.Event().wait)
    await flights.aclose()
    assert task.cancelled()


async def test_a_round_begins_after_all_who_wait_for_it_have_asked() -> None:
    began: list[asyncio.Event] = []

    async def work() -> int:
        gate = asyncio.Event()
        began.append(gate)
        await gate.wait()
        return len(began)

    rounds = Rounds(work)
    assert not rounds.busy
    first = rounds.join()
    assert rounds.join() is first, "it has not begun yet"
    await eventually(lambda: began)
    second = rounds.join()
    assert second is rounds.join() is not first, "what is under way may have missed what they want to know of"
    second_waiter = asyncio.shield(second)
    second_waiter.cancel()
    assert len(began) == 1
    began[0].set()
    assert await first == 1
    await eventually(lambda: len(began) == 2)
    began[1].set()
    assert await second == 2
    assert not rounds.busy


async def test_rounds_are_stopped_with_those_that_have_not_begun() -> None:
    rounds: Rounds[bool] = Rounds(asyncio.Event().wait)
    first = rounds.join()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = rounds.join()
    await rounds.aclose()
    assert first.cancelled()
    assert second.cancelled()
