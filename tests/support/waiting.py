"""Waiting for a thing to happen, with a deadline, instead of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_PAUSE = 0.01  # seconds between two looks

T = TypeVar("T")


async def eventually(
    condition: Callable[[], Awaitable[T] | T],
    *,
    timeout: float = 10.0,  # noqa: ASYNC109 - a deadline for the condition, not for one await
    what: str = "the condition",
) -> T:
    """The first true value that ``condition`` gives, called again and again while the loop goes on.

    ``condition`` may return an awaitable. Raises `AssertionError` that names ``what`` after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout:g} s: last seen {value!r}")
        await asyncio.sleep(_PAUSE)


def wait_until(condition: Callable[[], T], *, timeout: float = 10.0, what: str = "the condition") -> T:
    """As `eventually`, for a test without a loop."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout:g} s: last seen {value!r}")
        time.sleep(_PAUSE)
    return value
