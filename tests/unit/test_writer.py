"""The writer: everything in order and once, little of it waiting, failures told to who hands over."""

import asyncio

import pytest

from mirror.writer import Writer
from tests.fill.workers import settled


class Slow:
    """Takes in one go each time it is told to."""

    def __init__(self) -> None:
        self.goes: list[list[bytes]] = []
        self.failure: OSError | None = None
        self._may = asyncio.Semaphore(0)

    async def take_in(self, chunks: list[bytes]) -> None:
        """Wait, then take them in."""
        self.goes.append(chunks)
        await self._may.acquire()
        if self.failure is not None:
            raise self.failure

    def go_on(self, times: int = 1) -> None:
        """End so many goes."""
        for _ in range(times):
            self._may.release()


async def test_what_comes_while_one_go_lasts_is_the_next_go() -> None:
    slow = Slow()
    writer = Writer(slow.take_in, 100)
    for chunk in (b"a", b"b", b"c"):
        await writer.put(chunk)
        await settled()
    slow.go_on(2)
    await writer.finish()
    assert slow.goes == [[b"a"], [b"b", b"c"]]


async def test_who_hands_over_waits_while_too_much_waits_and_no_longer() -> None:
    slow = Slow()
    writer = Writer(slow.take_in, 2)
    await writer.put(b"aa")
    await settled()
    await writer.put(b"bb")
    last = asyncio.create_task(writer.put(b"c"))
    await settled()
    assert not last.done()
    slow.go_on()
    await last
    assert slow.goes == [[b"aa"], [b"bb", b"c"]]
    slow.go_on()
    await writer.finish()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_failure_is_told_to_who_hands_over_and_at_the_end(waiting: bool) -> None:
    slow = Slow()
    slow.failure = OSError("full")
    writer = Writer(slow.take_in, 1)
    await writer.put(b"a")
    await settled()
    if not waiting:
        slow.go_on()
        await settled()
    handing = asyncio.create_task(writer.put(b"more than may wait"))
    await settled()
    slow.go_on()
    with pytest.raises(OSError, match="full"):
        await handing
    with pytest.raises(OSError, match="full"):
        await writer.finish()


async def test_who_is_stopped_waits_for_what_is_being_taken_in() -> None:
    slow = Slow()
    writer = Writer(slow.take_in, 1)
    await writer.put(b"a")
    ending = asyncio.create_task(writer.finish())
    await settled()
    ending.cancel()
    await settled()
    assert not ending.done()
    slow.go_on()
    with pytest.raises(asyncio.CancelledError):
        await ending


async def test_nothing_handed_over_is_nothing_to_wait_for() -> None:
    await Writer(Slow().take_in, 1).finish()
