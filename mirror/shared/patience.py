"""How long an answer is waited for, by a loop that may have stood still."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

_STEP = 0.05
_FREELY = 0.02


@contextlib.asynccontextmanager
async def limit(seconds: float) -> AsyncIterator[None]:
    """Raise `TimeoutError` after ``seconds`` in which this loop ran freely.

    A time in which it did not counts a quarter: what a busy machine takes from this loop is hardly the server's fault,
    whose answer may lie there unread.
    """
    loop = asyncio.get_running_loop()
    left, step = seconds, min(_STEP, seconds)
    timer: asyncio.TimerHandle

    def look(due: float) -> None:
        nonlocal left, timer
        now = loop.time()
        left -= step if now - due <= _FREELY else step / 4
        if left < step / 8:
            expiry.reschedule(now)
        else:
            timer = loop.call_at(now + step, look, now + step)

    timer = loop.call_at(loop.time() + step, look, loop.time() + step)
    async with asyncio.timeout(None) as expiry:
        try:
            yield
        finally:
            timer.cancel()
