"""What upstream is asked for may be had elsewhere in the meantime."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mirror.errors import UpstreamTimeout, UpstreamUnavailable

_LOOK_EVERY = 1.0
"""Seconds between two looks elsewhere while upstream keeps us waiting."""

T = TypeVar("T")


async def first_of(upstream: Coroutine[Any, Any, T], elsewhere: Callable[[], Awaitable[T | None]]) -> T:
    """What ``upstream`` gives; or what ``elsewhere`` does first, while upstream takes long, or when it has failed.

    Raises what upstream raises: a refusal, or that something is not there, is its word.
    """
    asking = asyncio.ensure_future(upstream)
    try:
        while True:
            await asyncio.wait({asking}, timeout=_LOOK_EVERY)
            if asking.done() and not isinstance(asking.exception(), UpstreamUnavailable | UpstreamTimeout):
                return asking.result()
            if (found := await elsewhere()) is not None:
                return found
            if asking.done():
                return asking.result()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
