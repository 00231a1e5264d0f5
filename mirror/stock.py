"""What is on this disk, for people who look: how much, how much of it stays, and what is wrong with it.

It is counted anew only while somebody asks, and not more often than it is worth.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mirror.contents import Contents
from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.store.census import Census, Usage
from mirror.store.directory import DataDirectory, write_whole
from mirror.survey import Hosts, Protected

log = logging.getLogger(__name__)

_COUNT_EVERY = 5.0
_LOOK_EVERY = 30.0
"""Seconds between two looks at what each pinned or hosted manifest leads to."""

_ANSWER_WITHIN = 2.0
"""Seconds that who asks waits; then there is the answer from before, if there is one."""

_PAGE = 2_000
_TRIED = bytes(4096)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes that no eviction takes: ``hosted``, and of what is ``pinned`` those that are not hosted."""

    pinned: int
    hosted: int


@dataclass(frozen=True, slots=True)
class Stock:
    """What is on the disk; None: not counted yet, or the disk fails. ``problem``: what is wrong, as a sentence."""

    usage: Usage | None
    kept: Kept | None
    problem: str | None


class Stocktaking:
    """Counts. Wired once in each worker; `aclose` ends it.

    ``protected`` gives the manifests that are pinned, ``damage`` says what is wrong with the records of hosted content.
    ``clock`` gives seconds that never go back.
    """

    def __init__(
        self,
        directory: DataDirectory,
        census: Census,
        contents: Contents,
        protected: Protected,
        hosted: Hosts | None,
        damage: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._census = census
        self._contents = contents
        self._protected = protected
        self._hosted = hosted
        self._damage = damage
        self._usage = _Now(self._count, _COUNT_EVERY, clock)
        self._kept = _Now(self._look, _LOOK_EVERY, clock)

    async def now(self, short: Mapping[str, float]) -> Stock:
        """What there is. ``short``: what stands against eviction, in bytes by its reasons; see `REASONS_TO_STAY`."""
        counted, kept = await asyncio.gather(self._usage.value(), self._kept.value())
        usage, failure = (None, None) if counted is None else counted
        return Stock(usage, kept, failure or self._damage() or _shortage(short))

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._usage.aclose()
        await self._kept.aclose()

    async def _count(self) -> tuple[Usage | None, str | None]:
        return await asyncio.to_thread(self._counted)

    def _counted(self) -> tuple[Usage | None, str | None]:
        """What is held, and what is wrong. Blocks."""
        failure = None
        try:
            _try_to_write(self._directory.leases / f"tried-{os.getpid()}")
        except OSError as error:
            failure = _failure(error)
        try:
            return self._census.take(), failure
        except OSError as error:
            return None, f"the disk fails ({error.strerror or error}), and what it holds cannot be seen"

    async def _look(self) -> Kept | None:
        try:
            hosted = await self._hosted_here()
            pinned = await self._protected()
        except MirrorError as error:
            log.debug("what is pinned and hosted cannot be seen: %s", error)
            return None
        return await asyncio.to_thread(self._sizes, hosted, pinned)

    async def _hosted_here(self) -> set[Digest]:
        found: set[Digest] = set()
        if self._hosted is not None:
            for listed in (self._hosted.linked, self._hosted.linked_manifests):
                after: Digest | None = None
                while page := await listed(after, _PAGE):
                    after = page[-1][0]
                    found.update(digest for digest, _ in page)
        return found

    def _sizes(self, hosted: AbstractSet[Digest], pinned: AbstractSet[str]) -> Kept:
        """Blocks on the disk."""
        led_to = {digest for text in pinned for digest in self._contents.led_to(Digest.parse(text))}
        size_of = self._contents.size_of
        return Kept(sum(size_of(one) or 0 for one in led_to - hosted), sum(size_of(one) or 0 for one in hosted))


class _Now(Generic[T]):
    """What ``work`` found, not older than so many seconds, but for the time that it takes."""

    def __init__(self, work: Callable[[], Coroutine[object, object, T]], every: float, clock: Callable[[], float]):
        self._work = work
        self._every = every
        self._clock = clock
        self._known: T | None = None
        self._due_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def value(self) -> T | None:
        """None while nothing was found yet."""
        if self._task is None and self._clock() >= self._due_at:
            self._task = asyncio.create_task(self._find())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_ANSWER_WITHIN)
        return self._known

    async def aclose(self) -> None:
        """Wait for the work that is under way."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _find(self) -> None:
        try:
            self._known = await self._work()
        finally:
            self._due_at, self._task = self._clock() + self._every, None


def _try_to_write(path: Path) -> None:
    """Raises `OSError` where the disk takes nothing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        write_whole(fd, _TRIED)
    finally:
        os.close(fd)
        path.unlink()


def _failure(error: OSError) -> str:
    passed = "what upstreams send is passed through to clients and not kept"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {passed}; give data_dir more room"
    return f"the disk takes nothing ({error.strerror or error}): {passed}; make data_dir writable again"


def _shortage(short: Mapping[str, float]) -> str | None:
    """What to do where eviction cannot free what it has to; what is merely young will go in a minute."""
    stays = {reason: int(size) for reason, size in short.items() if size and reason != "young"}
    if not stays:
        return None
    words = {"hosted": "are hosted", "pinned": "are pinned", "in_flight": "are on their way here"}
    told = ", ".join(f"{size:,} bytes {words.get(reason, reason)}" for reason, size in stays.items())
    return (
        f"eviction cannot free what it has to: {told}; give data_dir more room, unpin what is not needed any more, or "
        "delete what is hosted and not needed"
    )
