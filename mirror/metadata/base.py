"""What the mirror knows, as records, and the Protocol that every metadata store keeps.

Everything here is a cache of what upstreams said: losing it costs upstream requests, never a wrong answer. Times are
seconds since the epoch; sizes are bytes. Every method may raise `StoreError`, and none blocks the event loop.

A tag's entries are numbered by ``serial``, which counts the tag's moves and deletions: of two entries the one with the
greater serial is the later one, whatever the clocks of the replicas say. A link's entries are numbered too: there
``serial`` counts how often it was put anew after it had been dropped.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from mirror.digest import Digest


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag named when upstream was last asked.

    ``moving``: another version is about to take its place, so it may be served but not be kept in memory.
    """

    upstream: str
    repository: str
    tag: str
    digest: Digest
    media_type: str
    size: int
    fetched_at: float
    serial: int = 0
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That upstream has deleted a tag: it wins over older records at replicas that were away."""

    upstream: str
    repository: str
    tag: str
    deleted_at: float
    serial: int


TagEntry = TagRecord | Tombstone


MAX_SERIAL = 1 << 32
"""Where serials end. No tag moves so often: a greater one is damaged. Where somebody writes just this one into Redis,
the times of the tag's entries decide.
"""


def serial_after(serial: int) -> int:
    """The serial of the entry that takes the place of one with ``serial``."""
    return min(serial + 1, MAX_SERIAL)


def is_later(one: TagEntry, other: TagEntry) -> bool:
    """Whether ``one`` is to take the place of ``other``; of two with one serial, the one that was confirmed last."""
    return (one.serial, _at(one)) > (other.serial, _at(other))


def _at(entry: TagEntry) -> float:
    return entry.fetched_at if isinstance(entry, TagRecord) else entry.deleted_at


@dataclass(frozen=True, slots=True)
class Fence:
    """The proof that a lease is held: what is written under it is refused once somebody else holds the lease."""

    name: str
    token: str


@dataclass(frozen=True, slots=True)
class Link:
    """That a repository holds a digest: its manifest names it, or its upstream served it.

    ``media_type`` is that of the descriptor or, for a manifest, the exact ``Content-Type``; empty when unknown.
    ``size`` is -1 when unknown.
    """

    upstream: str
    repository: str
    digest: Digest
    media_type: str
    size: int
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Dropped:
    """That a digest was deleted from a repository: it wins over the link from before at replicas that were away."""

    upstream: str
    repository: str
    digest: Digest
    dropped_at: float
    serial: int


LinkEntry = Link | Dropped


def stands_over(one: LinkEntry, other: LinkEntry) -> bool:
    """Whether ``one`` is to take the place of ``other``, about the same digest of the same repository."""
    return (one.serial, isinstance(one, Dropped)) > (other.serial, isinstance(other, Dropped))


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """What was noted of a blob when it was committed: ``blake3`` (hex) is what the scrubber compares."""

    digest: Digest
    size: int
    blake3: str
    stored_at: float


@dataclass(frozen=True, slots=True)
class Unpacked:
    """That the module in entry ``entry`` of the archive ``layer`` was kept as a blob of its own."""

    layer: Digest
    entry: int
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The last good answer to a question that is passed through (a page of tags, referrers)."""

    body: bytes
    headers: Mapping[str, str]
    fetched_at: float


NO_HITS: Mapping[Digest, int] = MappingProxyType({})


class Metadata(Protocol):
    """Tags, links, negative answers, kept answers, and what was noted of blobs."""

    @property
    def links_incomplete(self) -> bool:
        """Whether links were lost (a damaged database was replaced), so that a missing link proves nothing."""
        ...

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """The entry of a tag, or None."""
        ...

    async def announce_move(self, record: TagRecord, fence: Fence | None = None) -> None:
        """Say that ``record``, which stands, is about to be replaced: it becomes ``moving``, if it still stands."""
        ...

    async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
        """Note what upstream said now; the record as it stands then. The negative answer for the tag, if any, goes.

        Its serial is that of the entry before it, or that of ``record`` where this is greater; one more, when the entry
        before it was a tombstone or had another digest. Raises `LeaseLost` when ``fence`` does not hold any more.
        """
        ...

    async def delete_tag(
        self, upstream: str, repository: str, tag: str, at: float, fence: Fence | None = None
    ) -> Tombstone:
        """Note that upstream has deleted a tag. Its serial is one more than that of the entry before it (or 1).

        Raises `LeaseLost` when ``fence`` does not hold any more.
        """
        ...

    async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
        """Take over entries that another store has, those that are later than what stands here (`is_later`)."""
        ...

    def all_tags(self) -> AsyncIterator[Sequence[TagEntry]]:
        """All entries of tags, in portions of some hundreds."""
        ...

    def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """All links, in portions of some hundreds."""
        ...

    def all_drops(self) -> AsyncIterator[Sequence[Dropped]]:
        """What stands of links that were dropped, in portions of some hundreds."""
        ...

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """What stands of a repository's link to a digest, or None."""
        ...

    async def put_links(self, links: Iterable[Link]) -> None:
        """Add links of which upstream has just said that they are so, in one transaction, whatever was dropped before.

        One that is there gets the new media type and size where these are known.
        """
        ...

    async def drop_link(self, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
        """Note that a repository does not hold a digest any more, whether it was known to or not; what stands then.

        Its serial is that of the link before it (or 0).
        """
        ...

    async def merge_links(self, entries: Sequence[LinkEntry]) -> None:
        """Take over what another store has, where it stands over what is here (`stands_over`).

        Of two links with one serial, this one gets the media type and size of that one where these are known.
        """
        ...

    async def negative(self, upstream: str, repository: str, reference: str, now: float) -> float | None:
        """Until when ``reference`` (a tag or digest) is known not to exist; None when that is not known at ``now``."""
        ...

    async def put_negative(self, upstream: str, repository: str, reference: str, until: float) -> None:
        """Note that upstream says that ``reference`` does not exist."""
        ...

    async def kept(self, key: str) -> KeptAnswer | None:
        """The last good answer kept under ``key``, or None."""
        ...

    async def keep(self, key: str, answer: KeptAnswer) -> None:
        """Keep a good answer, replacing the one before it."""
        ...

    async def blob(self, digest: Digest) -> BlobRecord | None:
        """What was noted of a blob, or None. Says nothing about whether the disk holds it."""
        ...

    async def put_blob(self, record: BlobRecord) -> None:
        """Note a blob that was committed."""
        ...

    async def touch(self, accesses: Mapping[Digest, float], hits: Mapping[Digest, int] = NO_HITS) -> None:
        """Note the last accesses of blobs, in one transaction; an older time never replaces a newer one.

        ``hits``: how often each of them was asked for as a manifest, beyond what was noted before. That is about one
        disk: the store that replicas share notes nothing of it.
        """
        ...

    async def last_access(self, digest: Digest) -> float | None:
        """When a blob was last asked for, or None."""
        ...

    async def aclose(self) -> None:
        """Finish what is under way and let go of everything."""
        ...
