"""A store in memory that keeps what every store promises, and a door before a store that can be shut at any call."""

import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from mirror.digest import Digest
from mirror.errors import LeaseLost, StoreError
from mirror.metadata.base import (
    NO_HITS,
    BlobRecord,
    Dropped,
    Fence,
    KeptAnswer,
    Link,
    LinkEntry,
    Metadata,
    TagEntry,
    TagRecord,
    Tombstone,
    is_later,
    stands_over,
)

Key = tuple[str, str, str]


@dataclass
class Memory:
    """What a store in memory holds. ``leases``: who holds each, by name; a fence that is not there is lost."""

    tags: dict[Key, TagEntry] = field(default_factory=dict)
    links: dict[tuple[str, str, Digest], LinkEntry] = field(default_factory=dict)
    negatives: dict[Key, float] = field(default_factory=dict)
    answers: dict[str, KeptAnswer] = field(default_factory=dict)
    blobs: dict[Digest, BlobRecord] = field(default_factory=dict)
    accesses: dict[Digest, float] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)

    def snapshot(self) -> "Memory":
        """A copy of all of it as it is."""
        return copy.deepcopy(self)

    def restore(self, before: "Memory") -> None:
        """Lose every write since `snapshot`."""
        vars(self).update(vars(before.snapshot()))

    def flush(self) -> None:
        """Lose everything."""
        self.restore(Memory())


class MemoryMetadata:
    """Metadata in memory; several on one `Memory` are one store."""

    links_incomplete = False

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """The entry of a tag."""
        return self.memory.tags.get((upstream, repository, tag))

    async def announce_move(self, record: TagRecord, fence: Fence | None = None) -> None:
        """Mark it as moving."""
        self._check(fence)
        before = self.memory.tags.get(_key(record))
        if isinstance(before, TagRecord) and before.digest == record.digest:
            self.memory.tags[_key(record)] = replace(before, moving=True)

    async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
        """Put and number it."""
        self._check(fence)
        before, serial = self.memory.tags.get(_key(record)), record.serial
        if before is not None:
            moved = isinstance(before, Tombstone) or before.digest != record.digest
            serial = max(serial, before.serial) + moved
        stands = replace(record, serial=serial, moving=False)
        self._set(stands)
        return stands

    async def delete_tag(
        self, upstream: str, repository: str, tag: str, at: float, fence: Fence | None = None
    ) -> Tombstone:
        """Put a tombstone and number it."""
        self._check(fence)
        before = self.memory.tags.get((upstream, repository, tag))
        tombstone = Tombstone(upstream, repository, tag, at, 1 if before is None else before.serial + 1)
        self._set(tombstone)
        return tombstone

    async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
        """Take over the later ones."""
        for entry in entries:
            before = self.memory.tags.get(_key(entry))
            if before is None or is_later(entry, before):
                self._set(entry)

    async def all_tags(self) -> AsyncIterator[Sequence[TagEntry]]:
        """All of them, in small portions."""
        for portion in _portions(self.memory.tags.values()):
            yield portion

    async def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """All of them, in small portions."""
        for portion in _portions(link for link in self.memory.links.values() if isinstance(link, Link)):
            yield portion

    async def all_drops(self) -> AsyncIterator[Sequence[Dropped]]:
        """All of them, in small portions."""
        for portion in _portions(link for link in self.memory.links.values() if isinstance(link, Dropped)):
            yield portion

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """The link."""
        return self.memory.links.get((upstream, repository, digest))

    async def put_links(self, links: Iterable[Link]) -> None:
        """Add them, or what is newly known of them."""
        for link in links:
            before = self.memory.links.get(_place(link))
            if isinstance(before, Dropped):
                link = replace(link, serial=max(link.serial, before.serial + 1))
            self.memory.links[_place(link)] = _learning(before, link)

    async def drop_link(self, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
        """Drop it and number that."""
        before = self.memory.links.get((upstream, repository, digest))
        dropped = Dropped(upstream, repository, digest, at, 0 if before is None else before.serial)
        self.memory.links[upstream, repository, digest] = dropped
        return dropped

    async def merge_links(self, entries: Sequence[LinkEntry]) -> None:
        """Take over those that stand over what is here."""
        for entry in entries:
            before = self.memory.links.get(_place(entry))
            if before is None or stands_over(entry, before):
                self.memory.links[_place(entry)] = entry
            elif isinstance(entry, Link) and entry.serial == before.serial and isinstance(before, Link):
                self.memory.links[_place(entry)] = _learning(before, entry)

    async def negative(self, upstream: str, repository: str, reference: str, now: float) -> float | None:
        """Until when it is known not to exist."""
        until = self.memory.negatives.get((upstream, repository, reference), now)
        return until if until > now else None

    async def put_negative(self, upstream: str, repository: str, reference: str, until: float) -> None:
        """Note that it does not exist."""
        self.memory.negatives[upstream, repository, reference] = until

    async def kept(self, key: str) -> KeptAnswer | None:
        """The answer."""
        return self.memory.answers.get(key)

    async def keep(self, key: str, answer: KeptAnswer) -> None:
        """Keep it."""
        self.memory.answers[key] = answer

    async def blob(self, digest: Digest) -> BlobRecord | None:
        """What was noted."""
        return self.memory.blobs.get(digest)

    async def put_blob(self, record: BlobRecord) -> None:
        """Note it."""
        self.memory.blobs[record.digest] = record

    async def touch(self, accesses: Mapping[Digest, float], hits: Mapping[Digest, int] = NO_HITS) -> None:
        """Note the newer ones."""
        for digest, at in accesses.items():
            self.memory.accesses[digest] = max(at, self.memory.accesses.get(digest, at))

    async def last_access(self, digest: Digest) -> float | None:
        """When it was."""
        return self.memory.accesses.get(digest)

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _check(self, fence: Fence | None) -> None:
        if fence is not None and self.memory.leases.get(fence.name) != fence.token:
            raise LeaseLost("somebody else holds the lease")

    def _set(self, entry: TagEntry) -> None:
        self.memory.tags[_key(entry)] = entry
        if isinstance(entry, TagRecord):
            self.memory.negatives.pop(_key(entry), None)


class Door:
    """Stands before each call of a store, open until ``calls`` have gone through.

    ``is_up`` turns False with the first call that is refused. ``passed``: the names of the calls so far. With
    ``late`` calls are made even when they are refused: it is the answer that is lost.
    """

    def __init__(self, calls: int | None = None, *, late: bool = False) -> None:
        self.calls = calls
        self.late = late
        self.up = True
        self.passed: list[str] = []

    def is_up(self) -> bool:
        """Whether the store is taken to be there."""
        return self.up

    def shut(self, *, unnoticed: bool = False) -> None:
        """Refuse all calls; ``unnoticed``: the first one finds out."""
        self.calls, self.up = 0, unnoticed

    def open(self) -> None:
        """Let all calls through."""
        self.calls, self.up = None, True

    def enter(self, name: str) -> None:
        """Raise `StoreError`, or count the call."""
        if self.calls is not None and len(self.passed) >= self.calls:
            self.up = False
            raise StoreError(f"{name}: the store is away")
        self.passed.append(name)


def behind(door: Door, store: Metadata) -> Metadata:
    """``store``, each call of which goes through ``door`` first, each portion of what it tells too."""
    found: Any = _Behind(door, store)  # it has each method that the store has
    return cast(Metadata, found)


class _Behind:
    def __init__(self, door: Door, store: Metadata) -> None:
        self._door = door
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "aclose" or not callable(found):
            return found
        return self._told(name, found) if name.startswith("all_") else self._called(name, found)

    def _called(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            if not self._door.late:
                self._door.enter(name)
                return await method(*args)
            answer = await method(*args)
            self._door.enter(name)
            return answer

        return call

    def _told(self, name: str, method: Callable[[], AsyncIterator[Any]]) -> Callable[[], AsyncIterator[Any]]:
        async def tell() -> AsyncIterator[Any]:
            self._door.enter(name)
            async for portion in method():
                yield portion
                self._door.enter(name)

        return tell


def _key(entry: TagEntry) -> Key:
    return entry.upstream, entry.repository, entry.tag


def _place(entry: LinkEntry) -> tuple[str, str, Digest]:
    return entry.upstream, entry.repository, entry.digest


def _learning(before: LinkEntry | None, link: Link) -> Link:
    if not isinstance(before, Link):
        return link
    return replace(
        link,
        media_type=link.media_type or before.media_type,
        size=link.size if link.size >= 0 else before.size,
        serial=max(link.serial, before.serial),
    )


def _portions(values: Iterable[Any]) -> Iterable[list[Any]]:
    every = list(values)
    for start in range(0, len(every), 7):
        yield every[start : start + 7]
