"""On which disks the bytes of pushed blobs lie: on so many as `hosted.replicas` says, or on all there are.

For each digest the replicas that are there have an order of their own, which all of them know without asking: the first
ones are to hold it (rendezvous hashing). So whoever takes a blob in knows whom to ask to keep it, and each replica sees
by itself what it is to hold, and gets it. One that comes or goes moves no other's share but its own.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlencode

from mirror.digest import Digest
from mirror.errors import BlobUnknown, MirrorError, NotNow, StoreError, UpstreamError, UpstreamInvalid
from mirror.flight import Flights
from mirror.following import VERSION, Following
from mirror.hosted.catalogue import Catalogue
from mirror.peers import Peers
from mirror.store.blobs import BlobStore

log = logging.getLogger(__name__)

Bring = Callable[[Digest, int], Awaitable[None]]
"""Has the bytes of a blob on this disk, from another replica. Raises `BlobUnknown`, `UpstreamError`, `StoreError`."""

_Listed = Callable[[Digest | None, int], Awaitable[Sequence[tuple[Digest, int]]]]
"""Digests with their sizes, so many after one, in their order."""

Kept = Literal["yes", "coming", "no"]
"""Whether a replica holds a blob: it does; it is getting it; it knows of no repository that has it."""

COPIED_WITHIN = 20.0
"""Seconds for which a push waits for the other copies with `hosted.ack: all`."""

_ANSWER_WITHIN = 1.0
"""Seconds after which a replica that is getting a blob says so; it is asked again then."""

_ASKED_WITHIN = 2.5
_AGAIN_AFTER = 0.25
_PAGE = 500
_MENDED_AT_ONCE = 4
_ASKED_AT_ONCE = 16
_GIVEN_UP_FOR = 60.0
"""Seconds for which a blob that no replica gives is not looked for again, unless other replicas come."""


def in_order(digest: Digest, addresses: Sequence[str]) -> list[str]:
    """The replicas in the order in which they are to hold the blob."""
    return sorted(addresses, key=lambda address: hashlib.blake2b(f"{digest} {address}".encode()).digest())


def document(kept: Kept) -> dict[str, object]:
    """The answer to who asks to keep a blob."""
    return {"v": VERSION, "kept": kept}


class Spread:
    """Sees to the copies of blobs. ``address`` is where the others reach this replica; ``replicas``: on how many disks
    a blob is to lie. ``clock`` gives seconds that never go back.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: BlobStore,
        peers: Peers,
        following: Following,
        address: str,
        replicas: int,
        bring: Bring,
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._peers = peers
        self._following = following
        self._address = address
        self._replicas = replicas
        self._bring = bring
        self._clock = clock
        self._coming: Flights[None] = Flights()
        self._copying: Flights[None] = Flights()
        self._given_up: dict[Digest, float] = {}
        self._places: Sequence[str] = ()
        self._mending = asyncio.Semaphore(_MENDED_AT_ONCE)
        self._asking = asyncio.Semaphore(_ASKED_AT_ONCE)

    def copy(self, digest: Digest) -> "asyncio.Task[None]":
        """Have the other copies made, whoever waits for it. Raises `NotNow` where that fails for 20 s."""
        task, _ = self._copying.join(digest, lambda: self._copied(digest))
        return task

    async def brought(self, digest: Digest, size: int) -> None:
        """Have the bytes on this disk. Raises `BlobUnknown`, `UpstreamError`, `StoreError`."""
        if not self._store.holds(digest):
            task, _ = self._coming.join(digest, lambda: self._bring(digest, size))
            await asyncio.shield(task)

    async def keep(self, digest: Digest, asker: str) -> Kept:
        """Another replica, which is there, asks this one to hold a blob. Raises `MirrorError`."""
        if (size := await self._catalogue.size_of(digest)) is None:
            if (failure := await asyncio.shield(self._following.hear(asker))) is not None:
                raise failure
            if (size := await self._catalogue.size_of(digest)) is None:
                return "no"
        getting = asyncio.create_task(self.brought(digest, size))
        done, _ = await asyncio.wait([getting], timeout=_ANSWER_WITHIN)
        if not done:
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)
            return "coming"
        getting.result()
        return "yes"

    async def mend(self) -> int:
        """Get what this replica is to hold, and does not: its share of the blobs, and all manifests; how much came.

        Raises `StoreError`.
        Who is there has to be the same as when it was asked for last: one that is started anew takes a moment.
        """
        before, others = self._places, filter(self._following.has_room, self._peers.alive)
        self._places = [self._address, *sorted(others)]
        if self._places != before:
            self._given_up.clear()
            return 0
        return await self._mended(self._catalogue.linked, self._replicas) + await self._mended(
            self._catalogue.linked_manifests, len(self._places)
        )

    async def aclose(self) -> None:
        """Stop what is under way."""
        await self._copying.aclose()
        await self._coming.aclose()

    async def _copied(self, digest: Digest) -> None:
        until = self._clock() + COPIED_WITHIN
        kept: set[str] = set()
        failed: dict[str, MirrorError] = {}
        while True:
            others = in_order(digest, [one for one in self._peers.alive if self._following.has_room(one)])
            wanted = min(self._replicas - 1, len(others)) - len(kept.intersection(others))
            if wanted <= 0:
                return
            if self._clock() >= until:
                why = "; ".join(error.message for error in failed.values()) or "they take too long to get it"
                raise NotNow(f"{digest} is not on {wanted} more disks yet (hosted.ack: all): {why}", retry_after=2)
            left = sorted((one for one in others if one not in kept), key=lambda one: one in failed)[:wanted]
            async with self._asking:
                answers = await asyncio.gather(*(self._asked_to_keep(one, digest) for one in left))
            for address, answer in zip(left, answers, strict=True):
                if isinstance(answer, MirrorError):
                    failed[address] = answer
                elif answer == "yes":
                    kept.add(address)
            if all(one in failed for one in others if one not in kept):
                await asyncio.sleep(_AGAIN_AFTER)

    async def _asked_to_keep(self, address: str, digest: Digest) -> Kept | MirrorError:
        target = f"hosted/keep?{urlencode({'digest': str(digest), 'from': self._address})}"
        try:
            async with asyncio.timeout(_ASKED_WITHIN):
                return _kept(await self._peers.document(address, target, 1024), address)
        except TimeoutError:
            return NotNow(f"{address} does not answer")
        except MirrorError as error:
            if isinstance(error, BlobUnknown):  # a 404: it has no such room, which is found out by listening to it
                await asyncio.shield(self._following.hear(address))
            return error

    async def _mended(self, listed: _Listed, disks: int) -> int:
        """Get what is to lie on so many disks, and so on this one; how much came."""
        came, after = 0, None
        while page := await listed(after, _PAGE):
            after = page[-1][0]
            missing = await asyncio.to_thread(self._missing, page, disks)
            got = await asyncio.gather(*(self._got(digest, size) for digest, size in missing))
            came += sum(got)
            if not all(got):
                lost = [digest for (digest, _), ok in zip(missing, got, strict=True) if not ok]
                log.error("%s and %d more are to lie on this disk, but no replica gives them", lost[0], len(lost) - 1)
        return came

    async def _got(self, digest: Digest, size: int) -> bool:
        async with self._mending:
            try:
                await self.brought(digest, size)
            except (BlobUnknown, UpstreamError, StoreError) as error:
                log.debug("%s is to lie on this disk, and cannot be had: %s", digest, error)
                self._given_up[digest] = self._clock() + _GIVEN_UP_FOR
                return False
        return True

    def _missing(self, page: Sequence[tuple[Digest, int]], disks: int) -> list[tuple[Digest, int]]:
        """What of a page this replica is to hold, and does not. For a thread."""
        now = self._clock()
        return [
            (digest, size)
            for digest, size in page
            if self._given_up.get(digest, now) <= now
            and self._address in in_order(digest, self._places)[:disks]
            and not self._store.holds(digest)
        ]


def _kept(fields: Mapping[str, Any], address: str) -> Kept | MirrorError:
    """What a replica answers, or why that is as good as none."""
    match fields.get("kept"):
        case "yes":
            return "yes"
        case "coming":
            return "coming"
        case "no":
            return UpstreamInvalid(f"{address} does not know that anybody has it")
    return UpstreamInvalid(f"{address} answers in a form that is not valid")
