"""Single flight: one piece of work for all who ask while it goes on, and for nobody who asks later."""

import asyncio

import pytest

from mirror.flight import Flights


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
