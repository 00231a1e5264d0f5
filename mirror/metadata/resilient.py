"""Metadata that replicas share, with the embedded store of this replica behind it.

The shared store says what all replicas serve. It may be away, be flushed, lose its last writes or evict keys at any
moment: the local store always has what this replica learnt, answers in its place, and puts back what it lacks. Of a
tag's entries the later one wins, wherever it stands (`is_later`), and so it is with those of a link (`stands_over`). A
failure of one store never reaches a caller while the other one works; only `LeaseLost`, which is no failure but an
answer, does.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

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
from mirror.metadata.behind import Behind, WriteBack, Writes

log = logging.getLogger(__name__)

# Seconds by which the shared store's confirmation of a tag must be the newer one to be noted here: the default of
# `fresh_for`. So a replica that is left alone asks upstream once earlier than it would have to, and no write is made
# for a confirmation that another replica got a moment ago.
_WORTH_NOTING = 10.0
_CLOSE_WITHIN = 5.0

T = TypeVar("T")
Key = tuple[str, str, str]


class ResilientMetadata:
    """The pair of stores as one; see `mirror.metadata.base.Metadata` for what its methods promise.

    ``is_up`` says whether the shared store answers: while it does not, nothing is asked of it. What was noted of blobs
    and accesses is about this disk, and stays here.
    """

    def __init__(self, local: Metadata, shared: Metadata, is_up: Callable[[], bool]) -> None:
        self._local = local
        self._shared = shared
        self._is_up = is_up
        self._writes = Writes()
        self._adopted_tags = Behind(local.merge_tags)
        self._adopted_links = Behind(local.merge_links)
        self._put_back = Behind(shared.merge_tags)
        self._links_put_back = Behind(shared.merge_links)
        self._write_back = WriteBack(local, shared, is_up)

    @property
    def links_incomplete(self) -> bool:
        """Whether links were lost on this disk."""
        return self._local.links_incomplete

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """The later one of the two entries of a tag. The store that has another one learns it behind the caller."""
        ours, theirs = await self._both(lambda store: store.tag(upstream, repository, tag))
        if isinstance(theirs, StoreError):
            return _given(ours)
        if isinstance(ours, StoreError):
            return theirs
        if ours is not None and (theirs is None or is_later(ours, theirs)):
            self._put_back.add(_key(ours), ours)
            return ours
        if theirs is not None and _worth_noting(theirs, ours):
            self._adopted_tags.add(_key(theirs), _still(theirs))
        return theirs

    async def announce_move(self, record: TagRecord, fence: Fence | None = None) -> None:
        """Say in both stores that ``record`` is about to be replaced."""

        async def announce(store: Metadata) -> None:
            await store.announce_move(record, fence)

        async def note(_: TagEntry | None, __: None) -> None:
            await self._local.announce_move(record)

        await self._writes.to_its_end(self._shared_first(_key(record), announce, note))

    async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
        """Note what upstream said now; the shared store numbers it."""

        async def put(store: Metadata) -> TagRecord:
            return await store.put_tag(record, fence)

        async def note(ours: TagEntry | None, stands: TagRecord) -> None:
            if isinstance(ours, TagRecord) and ours.digest == stands.digest:
                await self._local.put_tag(stands)  # also where the clock was set back, unlike what merging does
            else:
                await self._local.merge_tags([stands])

        return await self._writes.to_its_end(self._shared_first(_key(record), put, note))

    async def delete_tag(
        self, upstream: str, repository: str, tag: str, at: float, fence: Fence | None = None
    ) -> Tombstone:
        """Note that upstream has deleted a tag; the shared store numbers the tombstone."""

        async def delete(store: Metadata) -> Tombstone:
            return await store.delete_tag(upstream, repository, tag, at, fence)

        async def note(_: TagEntry | None, tombstone: Tombstone) -> None:
            await self._local.merge_tags([tombstone])

        return await self._writes.to_its_end(self._shared_first((upstream, repository, tag), delete, note))

    async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
        """Take over in both stores what is later than what stands there."""
        await self._tell(lambda store: store.merge_tags(entries))

    async def all_tags(self) -> AsyncIterator[Sequence[TagEntry]]:
        """All entries of both stores. The local one learns what the other has, then tells it all.

        An entry may come twice when a store fails on the way.
        """

        async def adopt() -> None:
            async for entries in self._shared.all_tags():
                await self._local.merge_tags([_still(entry) for entry in entries])

        async for entries in self._all(adopt, lambda store: store.all_tags()):
            yield entries

    async def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """All links of both stores, as `all_tags`."""
        async for links in self._all(self._adopt_links, lambda store: store.all_links()):
            yield links

    async def all_drops(self) -> AsyncIterator[Sequence[Dropped]]:
        """What stands in both stores of links that were dropped, as `all_tags`."""
        async for drops in self._all(self._adopt_links, lambda store: store.all_drops()):
            yield drops

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """What stands over the other, of the two entries of a link. The store that has another one learns it behind
        the caller.
        """
        ours, theirs = await self._both(lambda store: store.link(upstream, repository, digest))
        if isinstance(theirs, StoreError):
            return _given(ours)
        if isinstance(ours, StoreError):
            return theirs
        key = (upstream, repository, digest)
        if theirs is not None and (ours is None or stands_over(theirs, ours)):
            self._adopted_links.add(key, theirs)
            return theirs
        if ours is not None and (theirs is None or stands_over(ours, theirs)):
            self._links_put_back.add(key, ours)
        return ours

    async def put_links(self, links: Iterable[Link]) -> None:
        """Add links to both stores."""
        wanted = tuple(links)
        await self._tell(lambda store: store.put_links(wanted))

    async def drop_link(self, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
        """Note in both stores that a repository does not hold a digest any more; the shared store numbers it."""
        return await self._writes.to_its_end(self._drop_link(upstream, repository, digest, at))

    async def merge_links(self, entries: Sequence[LinkEntry]) -> None:
        """Take over in both stores what stands over what is there."""
        await self._tell(lambda store: store.merge_links(entries))

    async def negative(self, upstream: str, repository: str, reference: str, now: float) -> float | None:
        """Until when one of the stores knows that a reference does not exist."""
        ours, theirs = await self._both(lambda store: store.negative(upstream, repository, reference, now))
        return max(_answers(ours, theirs), default=None)

    async def put_negative(self, upstream: str, repository: str, reference: str, until: float) -> None:
        """Note in both stores that a reference does not exist."""
        await self._tell(lambda store: store.put_negative(upstream, repository, reference, until))

    async def kept(self, key: str) -> KeptAnswer | None:
        """The newer one of the answers kept under ``key``."""
        ours, theirs = await self._both(lambda store: store.kept(key))
        return max(_answers(ours, theirs), key=lambda answer: answer.fetched_at, default=None)

    async def keep(self, key: str, answer: KeptAnswer) -> None:
        """Keep a good answer in both stores."""
        await self._tell(lambda store: store.keep(key, answer))

    async def blob(self, digest: Digest) -> BlobRecord | None:
        """What was noted of a blob on this disk."""
        return await self._local.blob(digest)

    async def put_blob(self, record: BlobRecord) -> None:
        """Note a blob on this disk."""
        await self._local.put_blob(record)

    async def touch(self, accesses: Mapping[Digest, float], hits: Mapping[Digest, int] = NO_HITS) -> None:
        """Note the last accesses of blobs on this disk."""
        await self._local.touch(accesses, hits)

    async def last_access(self, digest: Digest) -> float | None:
        """When a blob was last asked for at this replica."""
        return await self._local.last_access(digest)

    def returned(self) -> None:
        """The shared store answers again, or was found to have forgotten: write back to it, behind all else."""
        self._write_back.start()

    async def write_back(self) -> None:
        """Tell the shared store all tags and links that this replica knows; ends early when it goes away."""
        await self._write_back.once()

    async def aclose(self) -> None:
        """Finish the writes under way, stop what is done behind callers, and close both stores."""
        await self._write_back.aclose()
        await self._writes.aclose(_CLOSE_WITHIN)
        await self._put_back.aclose(0.0)
        await self._links_put_back.aclose(0.0)
        await self._adopted_tags.aclose(_CLOSE_WITHIN)
        await self._adopted_links.aclose(_CLOSE_WITHIN)
        try:
            await self._shared.aclose()
        finally:
            await self._local.aclose()

    async def _both(self, ask: Callable[[Metadata], Awaitable[T]]) -> tuple[T | StoreError, T | StoreError]:
        """What the local and the shared store say, asked at the same time: an answer, or why there is none."""
        if not self._is_up():
            return await _said(ask(self._local)), StoreError("the store that replicas share is away")
        ours, theirs = await asyncio.gather(_said(ask(self._local)), _said(ask(self._shared)))
        return ours, theirs

    async def _tell(self, write: Callable[[Metadata], Awaitable[None]]) -> None:
        """Make a write in both stores at the same time; it is made when one of them has made it."""
        ours, theirs = await self._writes.to_its_end(self._both(write))
        if isinstance(theirs, StoreError):
            _given(ours)
        elif isinstance(ours, StoreError):
            log.warning("what the replicas share could not be noted on this disk: %s", ours)

    async def _shared_first(
        self,
        key: Key,
        write: Callable[[Metadata], Awaitable[T]],
        note: Callable[[TagEntry | None, T], Awaitable[None]],
    ) -> T:
        """Make a write to a tag in the shared store, and have ``note`` take over here what came of it.

        ``note`` is given the entry that stood here. It was merged into the shared store first, so that what comes
        after it is numbered after it, whatever that store had lost.
        """
        if not self._is_up():
            return await write(self._local)
        ours = await _said(self._local.tag(*key))
        before = None if isinstance(ours, StoreError) else ours
        try:
            if before is not None:
                await self._shared.merge_tags([before])
            result = await write(self._shared)
        except LeaseLost:
            await self._take_theirs(key)
            raise
        except StoreError as error:
            log.debug("the shared store did not take a write to %s/%s:%s: %s", *key, error)
            return await write(self._local)
        if isinstance(failure := await _said(note(before, result)), StoreError):
            log.warning("the tag %s/%s:%s could not be noted on this disk: %s", *key, failure)
        return result

    async def _drop_link(self, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
        """In the shared store first, once it knows the link that stands here: so it is this one that is dropped too."""
        before = await _said(self._local.link(upstream, repository, digest))
        dropped: Dropped | StoreError = StoreError("the store that replicas share is away")
        if self._is_up():
            if before is not None and not isinstance(before, StoreError):
                await _said(self._shared.merge_links([before]))
            dropped = await _said(self._shared.drop_link(upstream, repository, digest, at))
        if isinstance(dropped, StoreError):
            return await self._local.drop_link(upstream, repository, digest, at)
        if isinstance(failure := await _said(self._local.merge_links([dropped])), StoreError):
            log.warning("the end of a link of %s/%s could not be noted on this disk: %s", upstream, repository, failure)
        return dropped

    async def _adopt_links(self) -> None:
        async for links in self._shared.all_links():
            await self._local.merge_links(links)
        async for drops in self._shared.all_drops():
            await self._local.merge_links(drops)

    async def _take_theirs(self, key: Key) -> None:
        theirs = await _said(self._shared.tag(*key))
        if theirs is not None and not isinstance(theirs, StoreError):
            await _said(self._local.merge_tags([_still(theirs)]))

    async def _all(
        self, adopt: Callable[[], Awaitable[None]], ask: Callable[[Metadata], AsyncIterator[T]]
    ) -> AsyncIterator[T]:
        if self._is_up():
            await _said(adopt())
        try:
            async for portion in ask(self._local):
                yield portion
        except StoreError:
            if not self._is_up():
                raise
            async for portion in ask(self._shared):
                yield portion


def _key(entry: TagEntry) -> Key:
    return entry.upstream, entry.repository, entry.tag


def _still(entry: TagEntry) -> TagEntry:
    """An entry as it is taken over: whether it is moving is between those who share the store."""
    return replace(entry, moving=False) if isinstance(entry, TagRecord) else entry


def _worth_noting(theirs: TagEntry, ours: TagEntry | None) -> bool:
    """Whether the local store must learn an entry that is not earlier than its own."""
    if isinstance(ours, TagRecord) and isinstance(theirs, TagRecord):
        known = (ours.serial, ours.digest) == (theirs.serial, theirs.digest)
        return not known or theirs.fetched_at > ours.fetched_at + _WORTH_NOTING
    return ours is None or theirs.serial != ours.serial or type(theirs) is not type(ours)


async def _said(answer: Awaitable[T]) -> T | StoreError:
    try:
        return await answer
    except StoreError as error:
        return error


def _given(answer: T | StoreError) -> T:
    if isinstance(answer, StoreError):
        raise answer
    return answer


def _answers(ours: T | StoreError | None, theirs: T | StoreError | None) -> Sequence[T]:
    """The answers of two stores that are some. Raises `StoreError` when neither store gave one."""
    if isinstance(theirs, StoreError):
        _given(ours)
    return [answer for answer in (ours, theirs) if answer is not None and not isinstance(answer, StoreError)]
