"""What these records tell other replicas, and what they take in from them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from sqlite3 import Connection

from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.hosted import ledger, merge, reads
from mirror.hosted.access import Access
from mirror.hosted.entries import Cursor, Entry, OfManifest, Portion, described_by
from mirror.hosted.ledger import Told, Unread
from mirror.hosted.writes import There

log = logging.getLogger(__name__)

Body = Callable[[Digest], bytes]
"""The bytes of a manifest on the disk; called from a thread. Raises `OSError`."""

_MOST = 2_000
"""Entries in one portion: tens of milliseconds, for which a pull or a push waits."""

_FORGOTTEN_AFTER = 90 * 86_400
"""Seconds after which that something went is forgotten. A replica that was away for longer would bring it back."""


class Exchange:
    """The records as other replicas see them. Every method may raise `StoreError`."""

    def __init__(self, access: Access, there: There, body: Body, now: Callable[[], float]) -> None:
        """``there`` says whether the disk has the bytes of a digest, in that size; it is called from a thread.

        ``now`` gives seconds since the epoch.
        """
        self._access = access
        self._there = there
        self._body = body
        self._now = now

    async def identity(self) -> str:
        """What tells these records from all others; it stays when the mirror is started again."""
        return await self._access.read(ledger.identity)

    async def latest(self) -> int:
        """The highest moment of all that is known; 0 where nothing is."""
        return await self._access.read(ledger.latest)

    async def head(self) -> int:
        """The last number of an entry in the order in which they came to be known here."""
        return await self._access.read(ledger.head)

    async def entries(self, after: int, most: int) -> Portion:
        """Entries that came to be known here after the number ``after``: as many as about ``most`` bytes hold as JSON,
        and one at least. From the first on, where ``after`` is more than the last.
        """
        told, following, more = await self._access.read(lambda connection: ledger.told(connection, after, most, _MOST))
        return Portion(await asyncio.to_thread(self._with_bodies, told), following, more)

    async def merge(self, entries: Sequence[Entry], read: Cursor | None = None) -> int:
        """Take in what another replica knows, all of it or nothing; and note how far it was ``read``.

        Gives how many entries said something new. The bytes of manifests lie on the disk before; raises `StoreError`
        where they do not.
        """
        forgotten = self._forgotten()

        def change(connection: Connection) -> int:
            changed = merge.entries(connection, entries, self._there, forgotten)
            if read is not None:
                ledger.set_cursor(connection, read)
            return changed

        return await self._access.write(change)

    async def cursor(self, identity: str) -> Cursor | None:
        """How far other records are known here; None where they have to be read from the first entry on."""
        return await self._access.read(lambda connection: ledger.cursor(connection, identity))

    async def set_cursor(self, identity: str, seq: int, started_at: float) -> None:
        """Note how far other records are known here, and when (seconds since the epoch) they were begun to be read."""
        cursor = Cursor(identity, seq, started_at)
        await self._access.write(lambda connection: ledger.set_cursor(connection, cursor))

    async def size_of(self, digest: Digest) -> int | None:
        """Bytes of a blob or manifest of any repository; None where none has it."""
        return await self._access.read(lambda connection: reads.size_of(connection, digest))

    async def linked(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]:
        """Up to ``limit`` blobs of any repository with their sizes, in the order of digests, after the given one."""
        return await self._access.read(lambda connection: reads.linked(connection, "blob", after, limit))

    async def linked_manifests(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]:
        """The same of manifests."""
        return await self._access.read(lambda connection: reads.linked(connection, "manifest", after, limit))

    async def forget_tombstones(self, before: int | None = None) -> int:
        """Drop entries of what went before a moment (microseconds since the epoch), 90 days ago if none is given; up to
        some thousands, so that nobody waits. How many were dropped.
        """
        latest = self._forgotten() if before is None else before
        return await self._access.write(lambda connection: ledger.forget(connection, latest, _MOST))

    def _forgotten(self) -> int:
        return int((self._now() - _FORGOTTEN_AFTER) * 1_000_000)

    def _with_bodies(self, told: Sequence[Told]) -> list[Entry]:
        """The entries, with the bytes of manifests; without those that the disk has lost. Blocks."""
        return [entry for one in told if (entry := self._whole(one)) is not None]

    def _whole(self, told: Told) -> Entry | None:
        if not isinstance(told, Unread):
            return told
        try:
            described = described_by(told.digest, told.media_type, self._body(told.digest))
        except FileNotFoundError:  # deleted meanwhile, which the next portion says; or lost, which a pull says loudly
            return None
        except (OSError, UpstreamInvalid) as error:
            log.error("the hosted manifest %s cannot be given to other replicas: %s", told.digest, error)
            return None
        return OfManifest(told.repository, told.digest, told.moment, described, told.pushed_at)
