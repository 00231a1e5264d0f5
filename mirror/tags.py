"""The tags that a worker knows, in memory in front of the metadata store.

A database that fails costs upstream requests, never a pull: what was learnt stays in memory, and the failure is logged.
"""

import logging
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from mirror.errors import LeaseLost, StoreError
from mirror.metadata.base import Fence, Metadata, TagEntry, TagRecord
from mirror.oci import Reference
from mirror.store.generation import Generation

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A bounded map that forgets what was not asked for the longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, now the most recently used one."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Set a value, letting go of the oldest when there are too many."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._limit:
            self._items.popitem(last=False)

    def keys(self) -> list[K]:
        """All that it knows."""
        return list(self._items)

    def values(self) -> list[V]:
        """All that are remembered, those asked for the longest ago first."""
        return list(self._items.values())

    def drop(self, key: K) -> None:
        """Forget one."""
        self._items.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()


class Others(Protocol):
    """The other replicas, as far as tags are concerned: `mirror.cluster.beat`."""

    @property
    def moves(self) -> int:
        """A number that changes whenever one of them moves a tag."""
        ...

    @property
    def in_sight(self) -> bool:
        """Whether that number is known as it is now, so that tags in memory may be believed."""
        ...

    async def seen_by_all(self) -> None:
        """Wait until all of them have seen the moves so far."""
        ...


class Moves:
    """Whether a worker of this disk or another replica has moved a tag, or dropped a link: ``now`` changes then."""

    def __init__(self, generation: Generation, others: Others) -> None:
        self._generation = generation
        self._others = others
        self._seen = self.now()

    def now(self) -> tuple[int, int]:
        """As it stands: what was read before it changed may not be kept in memory."""
        return self._generation.current(), self._others.moves

    def were(self) -> bool:
        """Whether there were any since this was asked last: then what is in memory may be outdated."""
        before, self._seen = self._seen, self.now()
        return self._seen != before


class Elsewhere(Protocol):
    """What the other replicas have in their own databases: `mirror.peers`."""

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None: ...


class Tags:
    """Which digest each tag named when upstream was last asked, and which references upstream does not have.

    Where a tag moves, no two clients anywhere are served the two versions in the wrong order: the record is first
    marked as moving, which nobody keeps in memory, and replaced when all workers and replicas have seen the mark.
    """

    def __init__(self, metadata: Metadata, generation: Generation, others: Others, elsewhere: Elsewhere) -> None:
        self._metadata = metadata
        self._generation = generation
        self._others = others
        self._elsewhere = elsewhere
        self._moves = Moves(generation, others)
        self._records: Lru[tuple[str, str, str], TagRecord] = Lru(10_000)
        self._absent: Lru[tuple[str, str, str], float] = Lru(10_000)

    @property
    def moves(self) -> tuple[int, int]:
        """What changes whenever any tag moves, here or at another replica."""
        return self._moves.now()

    async def get(self, reference: Reference) -> TagRecord | None:
        """The record of a tag: from memory, unless another worker or replica may have moved a tag since."""
        self._notice_others()
        record = self._records.get(_key(reference)) if self._others.in_sight else None
        return record if record is not None else await self.load(reference)

    async def load(self, reference: Reference) -> TagRecord | None:
        """The record of a tag as all workers and replicas share it."""
        seen = self._moves.now()
        try:
            entry = await self._metadata.tag(*_key(reference))
        except StoreError as error:
            log.error("the record of %s could not be read: %s", reference, error)
            return self._records.get(_key(reference))
        record = entry if isinstance(entry, TagRecord) else None
        if record is not None and not record.moving and seen == self._moves.now():
            self._notice_others()
            self._records.put(_key(reference), record)
        return record

    async def ask_elsewhere(self, reference: Reference) -> TagRecord | None:
        """The record of a tag that is known here to nobody, out of the database of another replica.

        None where it is known here that upstream has deleted the tag since.
        """
        entry: TagEntry | None = await self._elsewhere.tag(*_key(reference))
        if entry is None:
            return None
        try:
            await self._metadata.merge_tags([entry])
            entry = await self._metadata.tag(*_key(reference)) or entry
        except StoreError as error:
            log.error("the record of %s could not be taken over: %s", reference, error)
        return entry if isinstance(entry, TagRecord) else None

    async def learn(self, record: TagRecord, fence: Fence | None) -> TagRecord:
        """Take down what upstream said; the other workers see a tag that moved at once.

        Raises `LeaseLost` when somebody else has taken over asking, and so has the later word.
        """
        key = (record.upstream, record.repository, record.tag)
        before, seen = self._records.get(key), self._moves.now()
        try:
            record = await self._metadata.put_tag(record, fence)
        except LeaseLost:
            raise
        except StoreError as error:
            log.error("the tag %s/%s:%s could not be noted: %s", *key, error)
        outrun = seen != self._moves.now()  # this worker may have slept, and somebody else may have learnt more
        if before is None or before.digest != record.digest:
            self._generation.advance()
        self._notice_others()
        if not outrun:
            self._records.put(key, record)
        self._absent.drop(key)
        return record

    async def move(self, known: TagRecord, record: TagRecord, fence: Fence | None) -> TagRecord:
        """Let ``record`` take the place of ``known``, for all at one moment. Raises `LeaseLost`."""
        await self._announce(known, fence)
        return await self.learn(record, fence)

    async def forget(self, reference: Reference, now: float, fence: Fence | None) -> None:
        """Upstream has deleted the tag. Raises `LeaseLost`."""
        known = await self.load(reference)
        if known is not None:
            await self._announce(known, fence)
        try:
            await self._metadata.delete_tag(*_key(reference), now, fence)
        except LeaseLost:
            raise
        except StoreError as error:
            log.error("the tag %s could not be forgotten: %s", reference, error)
        self._records.drop(_key(reference))
        self._generation.advance()
        self._notice_others()

    async def absent(self, reference: Reference, now: float) -> bool:
        """Whether upstream has said lately that it does not have ``reference``."""
        self._notice_others()
        until = self._absent.get(_key(reference)) if self._others.in_sight else None
        if until is None:
            try:
                until = await self._metadata.negative(*_key(reference), now)
            except StoreError as error:
                log.error("what is known of %s could not be read: %s", reference, error)
        return until is not None and now < until

    async def note_absence(self, reference: Reference, until: float) -> None:
        """Upstream says that it does not have ``reference``; believe it until then."""
        self._absent.put(_key(reference), until)
        try:
            await self._metadata.put_negative(*_key(reference), until)
        except StoreError as error:
            log.error("the absence of %s could not be noted: %s", reference, error)

    async def _announce(self, known: TagRecord, fence: Fence | None) -> None:
        """Have everybody ask for this tag anew with each request, until it is put."""
        try:
            await self._metadata.announce_move(known, fence)
        except LeaseLost:
            raise
        except StoreError as error:
            log.error("that %s/%s:%s moves could not be noted: %s", known.upstream, known.repository, known.tag, error)
        self._generation.advance()
        await self._others.seen_by_all()

    def _notice_others(self) -> None:
        if self._moves.were():
            self._records.clear()
            self._absent.clear()


def _key(reference: Reference) -> tuple[str, str, str]:
    return reference.upstream, reference.repository, reference.target
