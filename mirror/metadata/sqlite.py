"""The embedded metadata store: SQLite in WAL mode, shared by the worker processes of one data directory.

Two threads keep it off the event loop, one that reads and one that writes: a reader never waits for a writer, in this
process or another. Writes that queue up are committed together.
"""

import functools
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Generic, Self, TypeVar, cast

from mirror.digest import Digest
from mirror.errors import StartError, StoreError
from mirror.metadata import linked, recovery, seen, statements, uses
from mirror.metadata.backups import Backups
from mirror.metadata.base import (
    NO_HITS,
    BlobRecord,
    Dropped,
    Fence,
    KeptAnswer,
    Link,
    LinkEntry,
    TagEntry,
    TagRecord,
    Tombstone,
    Unpacked,
)
from mirror.metadata.salvage import Disk, Holds
from mirror.metadata.session import Session
from mirror.metadata.thread import Ticket, WorkThread
from mirror.wasm.facts import Facts

_READ_LIMIT = 2.0  # seconds after which a caller goes on without the database
_WRITE_LIMIT = 10.0
_CHECKED_AT_START = 8 * 1024 * 1024  # bytes up to which the whole database is checked: 0.2 s; the backup checks any
_PRUNE_EVERY = 256
_ASKED_AT_ONCE = 500

T = TypeVar("T", covariant=True)
Read = Callable[[sqlite3.Connection], object]
Portion = Callable[[sqlite3.Connection, statements.Key], tuple[list[T], statements.Key | None]]


class Lasting(IntEnum):
    """What a write must survive.

    A killed process loses nothing that was committed. A power cut may lose the last commits, unless the log is synced
    to the disk with each. That costs a fraction of a millisecond to several, so it is done where a record says
    something new: without its tag or link a pulled module could not be served while upstream is away. A tag that was
    confirmed (each `fresh_for`, for each tag in use), an access, a negative answer are not worth it.
    """

    NOTHING_TO_DO = 0
    KILL = 1
    POWER_CUT = 2


@dataclass(frozen=True, slots=True)
class Write(Generic[T]):
    """A change to the database, and how lasting it must be as things stand there; it can be made twice."""

    apply: Callable[[sqlite3.Connection], T]
    lasting: Callable[[sqlite3.Connection], Lasting] = lambda _: Lasting.KILL


class SqliteMetadata:
    """Metadata in one SQLite file; see `mirror.metadata.base.Metadata` for what its methods promise."""

    def __init__(self, path: Path, disk: Disk, clock: Callable[[], float]) -> None:
        self._path = path
        self._disk = disk
        self._clock = clock
        self._reader = Session(path, disk)
        self._writer = Session(path, disk)
        self._start()
        self._reads = WorkThread[Read]("metadata-read", self._read_each, self._reader.close, limit=_READ_LIMIT)
        self._writes = WorkThread[Write[object]](
            "metadata-write", self._write_all, self._writer.close, limit=_WRITE_LIMIT
        )
        self._puts = 0
        self.backups = Backups(path, "the metadata database", self._back_up)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        holds: Holds = lambda _: True,
        holds_any: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the database, creating or recovering it as needed; blocks.

        ``holds`` says whether the disk holds a blob, ``holds_any`` whether it holds any at all: both are asked only
        where a database is made.

        Raises `StartError` when its directory cannot be used or a newer release wrote it. One that fails otherwise is
        opened all the same: each call tries again, and raises `StoreError` until it can be used.
        """
        return cls(path, Disk(holds, holds_any), clock)

    def _start(self) -> None:
        try:
            with recovery.locked(recovery.beside(self._path, ".lock")):
                pass
        except OSError as error:
            raise StartError(f"{self._path.parent} cannot hold the metadata database: {error.strerror}") from error
        try:
            self._writer.run(functools.partial(recovery.check, most=_CHECKED_AT_START))
            self._reader.run(lambda _: None)
        except StoreError as error:
            if isinstance(error.__cause__, StartError):
                raise error.__cause__ from error
            if not self._path.exists():
                raise StartError(f"{self._path} cannot be created: {error}") from error

    @property
    def links_incomplete(self) -> bool:
        """Whether links were lost, so that a missing link proves nothing."""
        return self._reader.links_incomplete or self._writer.links_incomplete

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """The entry of a tag, or None."""
        return await self._read(lambda connection: statements.tag(connection, upstream, repository, tag))

    async def announce_move(self, record: TagRecord, fence: Fence | None = None) -> None:
        """Say that ``record`` is about to be replaced."""
        await self._write(Write(lambda connection: statements.announce_move(connection, record)))

    async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
        """Note what upstream said now. ``fence`` is not looked at: nobody sleeps past a lock of this disk."""

        def lasting(connection: sqlite3.Connection) -> Lasting:
            return _of_change(record, statements.tag(connection, record.upstream, record.repository, record.tag))

        return await self._write(Write(lambda connection: statements.put_tag(connection, record), lasting))

    async def delete_tag(
        self, upstream: str, repository: str, tag: str, at: float, fence: Fence | None = None
    ) -> Tombstone:
        """Note that upstream has deleted a tag; ``fence`` as in `put_tag`."""
        return await self._write(
            Write(
                lambda connection: statements.delete_tag(connection, upstream, repository, tag, at),
                lambda _: Lasting.POWER_CUT,
            )
        )

    async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
        """Take over the entries that are later than what stands, in one transaction."""

        def lasting(connection: sqlite3.Connection) -> Lasting:
            news = statements.news(connection, entries)
            return max((_of_change(entry, before) for entry, before in news), default=Lasting.NOTHING_TO_DO)

        await self._write(Write(lambda connection: statements.merge_tags(connection, entries), lasting))

    async def all_tags(self) -> AsyncIterator[Sequence[TagEntry]]:
        """All entries of tags, in portions."""
        async for tags in self._portions(statements.tags_after):
            yield tags
        async for tombstones in self._portions(statements.tombstones_after):
            yield tombstones

    async def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """All links, in portions."""
        async for links in self._portions(linked.links_after):
            yield links

    async def all_drops(self) -> AsyncIterator[Sequence[Dropped]]:
        """What stands of links that were dropped, in portions."""
        async for drops in self._portions(linked.drops_after):
            yield drops

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """What stands of a repository's link to a digest, or None."""
        return await self._read(lambda connection: linked.link(connection, upstream, repository, digest))

    async def links_to(self, digest: Digest, limit: int) -> Sequence[Link]:
        """Links of repositories that hold a digest, as far as this replica knows."""
        return await self._read(lambda connection: linked.links_to(connection, digest, limit))

    async def put_links(self, links: Iterable[Link]) -> None:
        """Add links in one transaction."""
        wanted = tuple(links)

        def lasting(connection: sqlite3.Connection) -> Lasting:
            known = all(linked.knows(connection, link) for link in wanted)
            return Lasting.NOTHING_TO_DO if known else Lasting.POWER_CUT

        await self._write(Write(lambda connection: linked.put_links(connection, wanted), lasting))

    async def drop_link(self, upstream: str, repository: str, digest: Digest, at: float) -> Dropped:
        """Note that a repository does not hold a digest any more."""
        return await self._write(
            Write(
                lambda connection: linked.drop_link(connection, upstream, repository, digest, at),
                lambda _: Lasting.POWER_CUT,
            )
        )

    async def merge_links(self, entries: Sequence[LinkEntry]) -> None:
        """Take over the entries that stand over what is here, in one transaction."""

        def lasting(connection: sqlite3.Connection) -> Lasting:
            known = all(linked.knows_of(connection, entry) for entry in entries)
            return Lasting.NOTHING_TO_DO if known else Lasting.POWER_CUT

        await self._write(Write(lambda connection: linked.merge_links(connection, entries), lasting))

    async def negative(self, upstream: str, repository: str, reference: str, now: float) -> float | None:
        """Until when a reference is known not to exist."""
        return await self._read(
            lambda connection: statements.negative(connection, upstream, repository, reference, now)
        )

    async def put_negative(self, upstream: str, repository: str, reference: str, until: float) -> None:
        """Note that a reference does not exist."""
        now = self._clock()
        await self._put_bounded(
            lambda connection: statements.put_negative(connection, upstream, repository, reference, until, now)
        )

    async def kept(self, key: str) -> KeptAnswer | None:
        """The last good answer kept under ``key``, or None."""
        return await self._read(lambda connection: statements.kept(connection, key))

    async def keep(self, key: str, answer: KeptAnswer) -> None:
        """Keep a good answer."""
        await self._put_bounded(lambda connection: statements.keep(connection, key, answer))

    async def blob(self, digest: Digest) -> BlobRecord | None:
        """What was noted of a blob, or None."""
        return await self._read(lambda connection: statements.blob(connection, digest))

    async def put_blob(self, record: BlobRecord) -> None:
        """Note a blob that was committed."""
        await self._write(Write(lambda connection: statements.put_blob(connection, record)))

    async def unpacked(self, layer: Digest, entry: int) -> Unpacked | None:
        """What the module in an entry of the archive ``layer`` was kept as on this disk, or None."""
        return await self._read(lambda connection: statements.unpacked(connection, layer, entry))

    async def all_unpacked(self) -> set[Digest]:
        """All modules that were unpacked on this disk; they may be gone again."""
        return await self._read(statements.all_unpacked)

    async def put_unpacked(self, record: Unpacked) -> None:
        """Note a module that was unpacked. It is about this disk, like what is noted of blobs, and of no replica."""
        await self._write(Write(lambda connection: statements.put_unpacked(connection, record)))

    async def touch(self, accesses: Mapping[Digest, float], hits: Mapping[Digest, int] = NO_HITS) -> None:
        """Note the last accesses of blobs, in one transaction."""
        noted, counted = dict(accesses), dict(hits)
        await self._write(Write(lambda connection: statements.touch(connection, noted, counted)))

    async def last_access(self, digest: Digest) -> float | None:
        """When a blob was last asked for, or None."""
        return await self._read(lambda connection: statements.last_access(connection, digest))

    async def all_accesses(self) -> AsyncIterator[Sequence[tuple[str, float]]]:
        """All last accesses, by the digests' text, in portions."""
        async for accesses in self._portions(uses.accesses_after):
            yield accesses

    async def all_tagged(self) -> AsyncIterator[Sequence[uses.Tagged]]:
        """All tags, with what is noted of the manifests that they name, in portions and in their order."""
        async for tagged in self._portions(uses.tagged_after):
            yield tagged

    async def used(self, digests: Sequence[str]) -> Mapping[str, uses.Used]:
        """How these digests, by their text, were used; without those that nobody has asked for."""
        found: dict[str, uses.Used] = {}
        for first in range(0, len(digests), _ASKED_AT_ONCE):
            portion = digests[first : first + _ASKED_AT_ONCE]
            found |= await self._read(functools.partial(uses.used, digests=portion))
        return found

    async def forget_accesses(self, digests: Collection[Digest]) -> None:
        """Drop the last accesses of what is gone from this disk, and what was seen of it."""

        def apply(connection: sqlite3.Connection) -> None:
            uses.forget_accesses(connection, digests)
            seen.forget_seen(connection, digests)

        await self._write(Write(apply))

    async def facts(self, digests: Sequence[str]) -> Mapping[str, Facts]:
        """What was found of these digests, by their text; without those that nobody has looked at."""
        found: dict[str, Facts] = {}
        for first in range(0, len(digests), _ASKED_AT_ONCE):
            portion = digests[first : first + _ASKED_AT_ONCE]
            found |= await self._read(functools.partial(seen.facts, digests=portion))
        return found

    async def put_facts(self, found: Mapping[Digest, Facts], rules: str) -> None:
        """Note what was found of digests on this disk, by these ``rules``."""
        await self._write(Write(lambda connection: seen.put_facts(connection, found, rules)))

    async def all_looked(self) -> AsyncIterator[Sequence[seen.Looked]]:
        """All that was looked at, in portions."""
        async for looked in self._portions(seen.looked_after):
            yield looked

    async def forget_seen(self, digests: Collection[Digest]) -> None:
        """Drop what was seen of what is gone from this disk."""
        await self._write(Write(lambda connection: seen.forget_seen(connection, digests)))

    async def put_askers(self, asked: Mapping[Digest, Sequence[seen.Asker]], before: float) -> None:
        """Note who has asked for manifests, in one transaction; who has not ``before`` is forgotten, and so are those
        that are too many.
        """

        def apply(connection: sqlite3.Connection) -> None:
            seen.put_askers(connection, asked)
            seen.prune_askers(connection, before)

        await self._write(Write(apply))

    async def askers(self, digest: Digest) -> Sequence[seen.Asker]:
        """Who has asked for a manifest at this replica, the latest first."""
        return await self._read(lambda connection: seen.askers(connection, digest))

    async def all_unpacked_from(self) -> AsyncIterator[Sequence[tuple[str, str]]]:
        """The layer and the digest of all modules that were unpacked here, as text, in portions."""
        async for unpacked in self._portions(uses.unpacked_after):
            yield unpacked

    async def all_noted(self) -> AsyncIterator[Sequence[str]]:
        """The digests, as text, of all blobs of which something was noted about this disk, in portions."""
        async for noted in self._portions(uses.noted_after):
            yield noted

    async def forget(self, gone: Collection[str], before: float) -> int:
        """Drop what was noted ``before`` of blobs that are gone from this disk, by their digests' text; how much."""
        return await self._write(Write(lambda connection: uses.forget(connection, gone, before)))

    async def all_manifests(self, types: Collection[str]) -> AsyncIterator[Sequence[str]]:
        """The digests' text of all manifests of these media ``types`` that repositories hold, as far as this replica
        knows, in portions. One may come several times.
        """
        async for manifests in self._portions(functools.partial(uses.manifests_after, types=types)):
            yield manifests

    async def aclose(self) -> None:
        """Finish what is under way and let go of everything."""
        await self._writes.aclose()
        await self._reads.aclose()

    async def backup(self) -> None:
        """Renew the backup from which a damaged database is restored, unless another worker is at it.

        Finds damage that nobody met so far, and has it repaired. Raises `StoreError`.
        """
        await self.backups.renew()

    def _back_up(self, backup: Path) -> None:
        session = Session(self._path, self._disk)
        try:
            session.run(functools.partial(recovery.back_up, path=backup))
        finally:
            session.close()

    async def _put_bounded(self, apply: Callable[[sqlite3.Connection], None]) -> None:
        await self._write(Write(apply))
        self._puts += 1
        if self._puts % _PRUNE_EVERY == 0:
            await self._write(Write(statements.prune))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return cast(T, await self._reads.do(work))

    async def _portions(self, portion: Portion[T]) -> AsyncIterator[list[T]]:
        """Portion after portion, each a read of its own, so that no other waits for long; none is empty."""
        after: statements.Key | None = ("", "", "")
        while after is not None:
            found, after = await self._portion(portion, after)
            if found:
                yield found

    async def _portion(self, portion: Portion[T], after: statements.Key) -> tuple[list[T], statements.Key | None]:
        return await self._read(lambda connection: portion(connection, after))

    async def _write(self, write: Write[T]) -> T:
        return cast(T, await self._writes.do(write))

    def _read_each(self, tickets: Sequence[Ticket[Read]]) -> None:
        for ticket in tickets:
            try:
                ticket.finish(self._reader.run(ticket.job))
            except Exception as error:
                ticket.fail(error)

    def _write_all(self, tickets: Sequence[Ticket[Write[object]]]) -> None:
        writes = [ticket.job for ticket in tickets]
        try:
            results = self._writer.run(functools.partial(_commit, writes=writes))
        except StoreError:
            raise
        except Exception:  # the fault of one of them, such as a number that does not fit: the others need not suffer
            if len(tickets) == 1:
                raise
            for ticket in tickets:
                try:
                    self._write_all([ticket])
                except Exception as error:
                    ticket.fail(error)
            return
        for ticket, result in zip(tickets, results, strict=True):
            ticket.finish(result)


def _of_change(entry: TagEntry, before: TagEntry | None) -> Lasting:
    """What it takes that ``entry`` stands where ``before`` stood."""
    if isinstance(entry, TagRecord) and isinstance(before, TagRecord) and entry.digest == before.digest:
        return Lasting.KILL
    return Lasting.POWER_CUT


def _commit(connection: sqlite3.Connection, writes: Sequence[Write[object]]) -> list[object]:
    """Make the changes in one transaction, as lasting as the one that asks for most; what each of them gives."""
    wanted = [(write.lasting(connection), write) for write in writes]
    most = max(lasting for lasting, _ in wanted)
    if most == Lasting.NOTHING_TO_DO:
        return [None] * len(wanted)
    connection.execute(f"PRAGMA synchronous = {'FULL' if most == Lasting.POWER_CUT else 'NORMAL'}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [write.apply(connection) if lasting != Lasting.NOTHING_TO_DO else None for lasting, write in wanted]
        connection.execute("COMMIT")
        return results
    finally:
        if connection.in_transaction:
            connection.rollback()
