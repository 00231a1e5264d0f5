"""One attempt after the other, or two side by side when the first takes long; the first good answer counts."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from mirror.errors import MirrorError

T = TypeVar("T")
Attempt = Callable[[], Awaitable[T]]


async def first_good(
    attempts: Iterable[Attempt[T]],
    *,
    after: float | None,
    has_room: Callable[[], bool],
    is_final: Callable[[MirrorError], bool],
    discard: Callable[[T], Awaitable[None]],
) -> T:
    """The first result; raises the last `MirrorError` when all attempts fail, and at once one that ``is_final``.

    The next attempt begins when the one before has failed; or, while ``has_room``, beside it when it has taken
    ``after`` seconds (None: never). Of two, the slower is cancelled, and what it brings all the same is given to
    ``discard``.
    """
    waiting = deque(attempts)
    tasks: list[asyncio.Task[T]] = []
    last: MirrorError | None = None
    try:
        while waiting or tasks:
            if not tasks:
                tasks.append(_begin(waiting))
            patience = after if waiting and len(tasks) == 1 else None
            done, _ = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done and has_room():
                tasks.append(_begin(waiting))
            for task in [task for task in tasks if task in done]:
                tasks.remove(task)
                try:
                    result = task.result()
                except MirrorError as failure:
                    if is_final(failure):
                        raise
                    last = failure
                else:
                    return await _keep(result, tasks, discard)
    finally:
        await _stop(tasks, discard)
    assert last is not None, "there was an attempt"
    raise last


def _begin(waiting: "deque[Attempt[T]]") -> "asyncio.Task[T]":
    attempt = waiting.popleft()

    async def run() -> T:
        return await attempt()

    return asyncio.create_task(run())


async def _keep(result: T, others: "list[asyncio.Task[T]]", discard: Callable[[T], Awaitable[None]]) -> T:
    try:
        await _stop(others, discard)
    except BaseException:
        await discard(result)
        raise
    return result


async def _stop(tasks: "list[asyncio.Task[T]]", discard: Callable[[T], Awaitable[None]]) -> None:
    stopped, tasks[:] = list(tasks), []
    for task in stopped:
        task.cancel()
    for result in await asyncio.gather(*stopped, return_exceptions=True):
        if not isinstance(result, BaseException):
            await discard(result)
