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


class Rounds(Generic[T]):
    """One piece of work for all who ask for it before it begins. What was under way already may have missed what they
    want to know of.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    @property
    def busy(self) -> bool:
        """Whether a round is under way, or about to begin."""
        return self._next is not None or (self._running is not None and not self._running.done())

    def join(self) -> "asyncio.Task[T]":
        """The task of the round that begins next; it ends whoever leaves."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        return self._next

    async def aclose(self) -> None:
        """Stop it."""
        tasks = [task for task in (self._running, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _after(self, before: "asyncio.Task[T] | None") -> T:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        return await self._work()


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
