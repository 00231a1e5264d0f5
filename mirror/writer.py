"""Taking in a stream in a thread, behind the loop: the slower the disk, the larger the goes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


class Writer:
    """Takes in what has come in one go, while the next bytes come.

    ``take_in`` is called with the bytes, never twice at a time. At most ``max_pending`` bytes and the last chunk wait,
    beside those that are being taken in.
    """

    def __init__(self, take_in: Callable[[list[bytes]], Awaitable[None]], max_pending: int) -> None:
        self._take_in = take_in
        self._max_pending = max_pending
        self._pending: list[bytes] = []
        self._size = 0
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def put(self, chunk: bytes) -> None:
        """Hand over the next bytes; waits while too many are pending. Raises what ``take_in`` raised."""
        self._pending.append(chunk)
        self._size += len(chunk)
        if self._task is None or self._task.done():
            if self._task is not None:
                self._task.result()
            self._task = asyncio.create_task(self._drain())
            self._task.add_done_callback(lambda _: self._taken.set())
        elif self._size > self._max_pending:
            self._taken.clear()
            await self._taken.wait()
            if self._task.done():
                self._task.result()

    async def finish(self) -> None:
        """Wait until all that was handed over is taken in, even when the task that waits is being stopped."""
        if self._task is not None:
            await to_the_end(self._task)

    async def _drain(self) -> None:
        while self._pending:
            chunks, self._pending, self._size = self._pending, [], 0
            self._taken.set()
            await self._take_in(chunks)


async def to_the_end(work: asyncio.Future[_T]) -> _T:
    """Wait for work even when the waiting task is stopped; it stops after that."""
    stopped = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            stopped = True
    if stopped:
        work.exception()  # heard, though nobody asks for it any more
        raise asyncio.CancelledError
    return work.result()
