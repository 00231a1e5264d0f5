"""Single flight: one piece of work for all who ask for it at the same time.

The work runs in a task of its own, so that it ends whoever leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Work under way, by key."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    def join(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> tuple["asyncio.Task[T]", bool]:
        """The task that does ``work``, and whether it was already under way."""
        task = self._tasks.get(key)
        if task is not None and not task.done():  # one that is done says what was, even if it has not landed yet
            return task, True
        task = self._tasks[key] = asyncio.ensure_future(_run(work))
        task.add_done_callback(lambda done: self._land(key, done))
        return task, False

    def under_way(self, key: Hashable) -> bool:
        """Whether work for ``key`` is under way."""
        return key in self._tasks

    async def aclose(self) -> None:
        """Stop all work."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _land(self, key: Hashable, task: "asyncio.Task[T]") -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()  # everyone may have left; a failure that nobody hears is no error of the loop


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
