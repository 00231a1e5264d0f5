"""A body that is fed from outside while somebody else consumes it: one piece at a time, so the slower one decides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Pipe(Generic[T]):
    """Feeds ``consume``, a task of its own, with an iterator of the pieces. `close` or `abandon` must follow."""

    def __init__(self, consume: Callable[[AsyncIterator[bytes]], Awaitable[T]]) -> None:
        self._piece: bytes | None = None
        self._ended = False
        self.drained = False
        """Whether the consumer has taken all that there was, up to the end."""
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.ensure_future(consume(self._pieces()))
        self._task.add_done_callback(lambda _: self._room.set())

    async def feed(self, piece: bytes) -> None:
        """Hand over a piece, once the one before it is taken. Raises what the consumer has raised.

        A consumer that has ended well without it takes no more: `close` tells what it says.
        """
        await self._room.wait()
        if self._task.done():
            self._task.result()
            return
        self._piece = piece
        self._room.clear()
        self._filled.set()

    async def close(self) -> T:
        """That was all: what the consumer makes of it."""
        self._ended = True
        self._filled.set()
        return await self._task

    async def abandon(self) -> None:
        """Stop the consumer where it is."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # heard, though nobody asks for it any more

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            await self._filled.wait()
            piece, self._piece = self._piece, None
            if piece is None:
                self.drained = True
                return
            if not self._ended:
                self._filled.clear()
            self._room.set()
            yield piece
