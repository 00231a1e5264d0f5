"""The keeper of pins: follows the tags that are pinned, and has what they name on this disk.

Upstream is not asked whether a tag has moved: that is learnt when somebody pulls it, or warms it. Then the pin protects
the new digest and the one before. What is missing, because the pin came from another replica or a disk is new, is
warmed as if somebody had asked for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Protocol

from mirror.answer import Answer
from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.holdings import Holdings
from mirror.metadata.base import TagRecord
from mirror.oci import Reference
from mirror.pinned import LOOK_EVERY, Book
from mirror.store.leases import Leases
from mirror.store.pins import Named, Pin, Record, Records, reference_of

log = logging.getLogger(__name__)

_TURN_EVERY = 0.5
_LOOK_AT_ALL_EVERY = 60.0
"""Seconds between two looks at whether all that is pinned is here, and at the tags that leave no record."""

_AGAIN_AFTER = 30.0
_AGAIN_AT_MOST = 900.0
"""Seconds until what could not be had is tried again: twice as many each time, up to these."""

_AT_ONCE = 4

_REST = 20.0
"""So many times longer than a look at all pins is the pause after it: tags move all the time, and pins may be many."""

_FAILED = "failed"


class Warmed(Protocol):
    """What has become of a reference: `mirror.warming.Warmed`."""

    @property
    def result(self) -> str: ...

    @property
    def why(self) -> str | None: ...


class Warmer(Protocol):
    """Who brings all of a reference here: `mirror.warming.Warmer`. Raises no `MirrorError`."""

    async def warm(self, reference: Reference) -> Warmed: ...


class Tags(Protocol):
    """What is known of tags: `mirror.tags`."""

    @property
    def moves(self) -> tuple[int, int]: ...

    async def get(self, reference: Reference) -> TagRecord | None: ...


class Manifests(Protocol):
    """Who answers for manifests: `mirror.hosting.Routed`. Raises only `MirrorError`."""

    async def manifest(self, reference: Reference) -> Answer: ...


class Gossip(Protocol):
    """What replicas tell one another: `mirror.gossip`."""

    def changed(self) -> None: ...

    def turn(self) -> None: ...


_Missing = tuple[Reference, Digest]
"""What is pinned and not all here, and how to ask for it."""


class _Wanted:
    """Something pinned that is not all here. ``at`` (the clock's) is when it is tried next."""

    def __init__(self) -> None:
        self.at = float("-inf")
        self.pause = _AGAIN_AFTER
        self.why: str | None = None
        self.task: asyncio.Task[None] | None = None


class Keeper:
    """Keeps what is pinned. ``upstreams`` are the names that references may begin with. ``leaves_no_record`` says whose
    digest is asked for, since no record of a tag tells it: hosted tags, and those that are made here. ``clock`` gives
    seconds that never go back.
    """

    def __init__(
        self,
        book: Book,
        tags: Tags,
        manifests: Manifests,
        upstreams: Collection[str],
        leaves_no_record: Callable[[Reference], Awaitable[bool]],
        holdings: Holdings,
        warmer: Warmer,
        gossip: Gossip | None,
        leases: Leases,
        now: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._book = book
        self._tags = tags
        self._manifests = manifests
        self._upstreams = upstreams
        self._leaves_no_record = leaves_no_record
        self._holdings = holdings
        self._warmer = warmer
        self._gossip = gossip
        self._leases = leases
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._seen: tuple[object, object] | None = None
        self._all_at = self._rests_until = float("-inf")
        self._wanted: dict[_Missing, _Wanted] = {}
        self._said = ""

    async def run(self) -> None:
        """Until cancelled: hear what other workers change, and keep it all unless another worker of this disk does."""
        while True:
            try:
                with self._leases.attempt("keep pins") as mine:
                    while mine:
                        await self._book.look()
                        await self.turn()
                        await self._sleep(_TURN_EVERY)
            except Exception as error:
                self._say(error)
            finally:
                await self._stop()
            await self._book.look()
            await self._sleep(LOOK_EVERY)

    async def turn(self) -> None:
        """Do what is due. Raises `StoreError`, `OSError`."""
        if self._book.is_damaged:
            await self._book.change(lambda _: ())
        if self._gossip is not None:
            self._gossip.turn()
        seen = self._book.records, self._tags.moves
        is_time = self._clock() - self._all_at >= _LOOK_AT_ALL_EVERY
        has_changed = self._seen is None or seen[0] is not self._seen[0] or seen[1] != self._seen[1]
        began = self._clock()
        if is_time or (has_changed and began >= self._rests_until):
            self._seen = seen
            self._all_at = began if is_time else self._all_at
            await self._follow(is_time)
            await self._look_for_missing()
            self._rests_until = self._clock() + _REST * (self._clock() - began)
        self._bring()
        await self._book.tell_problems(
            {str(one): wanted.why for (one, _), wanted in self._wanted.items() if wanted.why}
        )
        self._said = ""

    async def _follow(self, every: bool) -> None:
        """Protect what tags name now; those that leave no record are asked about where ``every`` one is looked at."""
        moved: dict[str, Named] = {}
        for pin in self._book.standing():
            reference = reference_of(pin.reference)
            if reference.tag is not None:
                named = await self._named(reference, every)
                if named is not None and pin.following(named) != pin:
                    moved[pin.reference] = named
        if not moved:
            return

        def follow(records: Records) -> Sequence[Record]:
            pins = {text: records.pin(text) for text in moved}
            return [pin.following(moved[text]) for text, pin in pins.items() if pin is not None and pin.stands]

        if await self._book.change(follow):
            for text, named in moved.items():
                log.info(
                    "%s is pinned and names %s now, which is protected, and what it named before", text, named.digest
                )
            if self._gossip is not None:
                self._gossip.changed()

    async def _named(self, reference: Reference, every: bool) -> Named | None:
        record = await self._tags.get(reference)
        if record is not None:
            return Named(record.digest, record.fetched_at)
        if not every or reference.upstream not in self._upstreams or not await self._leaves_no_record(reference):
            return None
        try:
            answer = await self._manifests.manifest(reference)
        except MirrorError:
            return None
        return Named(answer.digest, self._now() if answer.fetched_at is None else answer.fetched_at)

    async def _look_for_missing(self) -> None:
        """Know what is pinned and not here."""
        pins = self._book.standing()
        missing = await asyncio.to_thread(lambda: [one for pin in pins for one in self._missing(pin)])
        for one in self._wanted.keys() - set(missing):
            wanted = self._wanted.pop(one)
            if wanted.task is not None:
                wanted.task.cancel()
            if wanted.why is not None and self._book.pin(one[0]) is not None:
                log.info("%s is pinned, and is here now", one[0])
        for one in missing:
            self._wanted.setdefault(one, _Wanted())

    def _missing(self, pin: Pin) -> Iterator[_Missing]:
        """Blocks. Raises `OSError`."""
        reference = reference_of(pin.reference)
        for number, named in enumerate(pin.names):
            if not self._holdings.of(named.digest).complete:
                yield reference if number == 0 else reference.at(named.digest), named.digest

    def _bring(self) -> None:
        """Send for what is missing, a few at a time."""
        running = sum(wanted.task is not None for wanted in self._wanted.values())
        for (reference, _), wanted in self._wanted.items():
            if running < _AT_ONCE and wanted.task is None and self._clock() >= wanted.at:
                wanted.task = asyncio.create_task(self._brought(reference, wanted), name=f"keep {reference}")
                running += 1

    async def _brought(self, reference: Reference, wanted: _Wanted) -> None:
        why: str | None = f"no upstream {reference.upstream!r} is configured"
        try:
            if reference.upstream in self._upstreams:
                warmed = await self._warmer.warm(reference)
                why = warmed.why or "not all of it could be had" if warmed.result == _FAILED else None
        except Exception as error:
            why = f"{type(error).__name__}"
            log.exception("bringing %s, which is pinned, failed", reference)
        wanted.task = None
        wanted.at, wanted.pause = self._clock() + wanted.pause, min(2 * wanted.pause, _AGAIN_AT_MOST)
        if why is not None and wanted.why is None:
            log.warning("%s is pinned, and not all of it is here: %s; it is tried again now and then", reference, why)
        wanted.why = why or wanted.why
        if why is None:
            self._seen = None  # whether it is here says the disk, in the next turn

    async def _stop(self) -> None:
        tasks = [wanted.task for wanted in self._wanted.values() if wanted.task is not None]
        self._wanted.clear()
        self._seen = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _say(self, error: Exception) -> None:
        """Once, until it is over or something else."""
        why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if why != self._said:
            self._said = why
            log.error("what is pinned cannot be kept now: %s", why)
