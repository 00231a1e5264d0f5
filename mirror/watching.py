"""What people watch who look at a running mirror: looked at by one looker for them all, while there are any.

Each who listens is told what there is, and then what has changed since. Who reads slowly gets the newest of each kind,
and never more than that at a time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from mirror.errors import MirrorError, TooMany

log = logging.getLogger(__name__)

MOST = 64
"""Listeners of one worker."""

_BEAT_EVERY = 15.0
"""Seconds after which who listens hears at least that the connection stands."""


class Seen(NamedTuple):
    """What there is to tell, as JSON; it is news where ``news`` is another one than before."""

    data: bytes
    news: object


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to look at, every so many seconds. ``look`` gives None for nothing; may raise `MirrorError`.

    ``at_once``: who begins to listen is told how it stands; else only changes are told.
    """

    look: Callable[[], Awaitable[Seen | None]]
    every: float = 1.0
    at_once: bool = True


class Listener:
    """Server-sent events for one who listens, until closed. Source: HTML standard, "Server-sent events"."""

    def __init__(self, leave: Callable[["Listener"], Awaitable[None]], beat_every: float) -> None:
        self._leave = leave
        self._beat_every = beat_every
        self._greeting = b"retry: 1000\n\n"
        self._newest: dict[str, bytes] = {}
        self._moved = asyncio.Event()

    def tell(self, kind: str, data: bytes) -> None:
        """Have this said next, in place of what was not said yet of the same kind."""
        self._newest[kind] = data
        self._moved.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._greeting:
            greeting, self._greeting = self._greeting, b""
            return greeting
        try:
            async with asyncio.timeout(self._beat_every):
                await self._moved.wait()
        except TimeoutError:
            return b": nothing new\n\n"
        newest, self._newest = self._newest, {}
        self._moved.clear()
        return b"".join(b"event: %s\ndata: %s\n\n" % (kind.encode(), data) for kind, data in newest.items())

    async def aclose(self) -> None:
        """Listen no more."""
        await self._leave(self)


class Watching:
    """Who looks at ``subjects``, which are by the names of their events. Wired once in each worker."""

    def __init__(self, subjects: Mapping[str, Subject], most: int = MOST, beat_every: float = _BEAT_EVERY) -> None:
        """``most`` may listen at a time."""
        self._subjects = subjects
        self._most = most
        self._beat_every = beat_every
        self._listeners: set[Listener] = set()
        self._known: dict[str, bytes] = {}
        self._looking: list[asyncio.Task[None]] = []

    @property
    def looks(self) -> bool:
        """Whether anything is looked at."""
        return bool(self._looking)

    def listen(self) -> Listener:
        """Begin to listen. Raises `TooMany`."""
        if len(self._listeners) >= self._most:
            raise TooMany(
                f"{self._most} pages follow this worker of the mirror already; close one, or ask again later",
                retry_after=10,
            )
        listener = Listener(self._left, self._beat_every)
        self._listeners.add(listener)
        for kind, data in self._known.items():
            listener.tell(kind, data)
        if not self._looking:
            self._looking = [
                asyncio.create_task(self._follow(kind, subject), name=f"watch {kind}")
                for kind, subject in self._subjects.items()
            ]
        return listener

    async def aclose(self) -> None:
        """Look no more."""
        self._listeners.clear()
        await self._stop()

    async def _left(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners:
            await self._stop()

    async def _stop(self) -> None:
        looking, self._looking = self._looking, []
        self._known.clear()
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    async def _follow(self, kind: str, subject: Subject) -> None:
        """Look at one thing after the other, each at its own pace: one that hangs holds up no other."""
        known = False
        news: object = None
        failed = False
        while True:
            try:
                seen = await subject.look()
                failed = False
            except MirrorError as error:
                log.debug("%s cannot be looked at: %s", kind, error)
                seen = None
            except Exception:
                if not failed:
                    log.exception("%s cannot be looked at", kind)
                seen, failed = None, True
            if seen is not None and not (known and seen.news == news):
                if subject.at_once:
                    self._known[kind] = seen.data
                if subject.at_once or known:
                    for listener in self._listeners:
                        listener.tell(kind, seen.data)
                known, news = True, seen.news
            await asyncio.sleep(subject.every)
