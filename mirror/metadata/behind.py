"""What the pair of metadata stores does behind its callers: nobody waits for it, and a failure is only logged."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from mirror.errors import StoreError
from mirror.metadata.base import Metadata

log = logging.getLogger(__name__)

_PORTION = 100  # what is written at once: about a millisecond of the loop
_PAUSE = 0.005  # seconds between two portions of what is written back, which belong to the pulls

T = TypeVar("T")


class Behind(Generic[T]):
    """Small writes, made one after another: what comes while one is under way is written together, each key once."""

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: dict[Hashable, T] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, key: Hashable, item: T) -> None:
        """Have ``item`` written soon; when the store fails, it is not."""
        self._waiting[key] = item
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def aclose(self, within: float) -> None:
        """Stop when all is written, or after ``within`` seconds."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within)
        await _stop(self._task)

    async def _run(self) -> None:
        while self._waiting:
            items = [self._waiting.pop(key) for key in list(islice(self._waiting, _PORTION))]
            try:
                await self._write(items)
            except StoreError as error:
                log.debug("%d records were not taken over: %s", len(items), error)


class WriteBack:
    """Tells the shared store all that the local one knows of tags and links, in portions, so that pulls go in between.

    ``is_up`` says whether the shared store answers.
    """

    def __init__(self, local: Metadata, shared: Metadata, is_up: Callable[[], bool]) -> None:
        self._local = local
        self._shared = shared
        self._is_up = is_up
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self._closed = False

    def start(self) -> None:
        """Do it in the background; while it is being done, once more afterwards."""
        self._wanted = True
        if not self._closed and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run())

    async def once(self) -> None:
        """Do it now; ends early when one of the stores fails."""
        try:
            async for entries in self._local.all_tags():
                await self._in_portions(entries, self._shared.merge_tags)
            async for links in self._local.all_links():
                await self._in_portions(links, self._shared.merge_links)
            async for drops in self._local.all_drops():
                await self._in_portions(drops, self._shared.merge_links)
        except StoreError as error:
            log.debug("what this replica knows was not written back whole: %s", error)

    async def aclose(self) -> None:
        """Stop."""
        self._closed = True
        await _stop(self._task)

    async def _run(self) -> None:
        while self._wanted:
            self._wanted = False
            await self.once()

    async def _in_portions(self, items: Sequence[T], write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        for start in range(0, len(items), _PORTION):
            if not self._is_up():
                raise StoreError("the store that replicas share went away")
            await write(items[start : start + _PORTION])
            await asyncio.sleep(_PAUSE)


class Writes:
    """Writes that go on to their end, in both stores, when their callers leave."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def aclose(self, within: float) -> None:
        """Wait for those under way, for ``within`` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left; then nobody else hears of it


async def _stop(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
