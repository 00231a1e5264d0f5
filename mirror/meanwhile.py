"""What upstream is asked for may be had elsewhere in the meantime."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mirror.errors import UpstreamTimeout, UpstreamUnavailable

_LOOK_EVERY = 1.0
"""Seconds between two looks elsewhere while upstream keeps us waiting."""

T = TypeVar("T")


async def first_of(upstream: Coroutine[Any, Any, T], elsewhere: Callable[[], Coroutine[Any, Any, T | None]]) -> T:
    """What ``upstream`` gives; or what ``elsewhere`` does first, while upstream takes long, or when it has failed.

    Raises what upstream raises: a refusal, or that something is not there, is its word.
    """
    asking = asyncio.ensure_future(upstream)
    looking: asyncio.Future[T | None] | None = None
    try:
        while True:
            await asyncio.wait({asking}, timeout=_LOOK_EVERY)
            if not _has_spoken(asking):
                looking = asyncio.ensure_future(elsewhere())
                while not (looking.done() or _has_spoken(asking)):
                    waiting = {looking} if asking.done() else {looking, asking}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if _has_spoken(asking):  # also when somebody else knows something: what upstream says is the later word
                return asking.result()
            assert looking is not None
            if (found := looking.result()) is not None:
                return found
            if asking.done():
                return asking.result()
    finally:
        begun = [one for one in (asking, looking) if one is not None]
        for one in begun:
            one.cancel()
        await asyncio.gather(*begun, return_exceptions=True)


def _has_spoken(asking: "asyncio.Future[T]") -> bool:
    """Whether upstream has said anything but that it cannot answer now."""
    return asking.done() and not isinstance(asking.exception(), UpstreamUnavailable | UpstreamTimeout)
