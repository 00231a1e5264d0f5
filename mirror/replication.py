"""Hosted content among replicas: a `mirror.hosted.together.Together` by which all of them have the same records.

Redis says who changes a repository now, and numbers the changes; the records themselves go from replica to replica
(`mirror.following`), and so do the bytes (`mirror.spread`). Whoever changes something tells all others before it
answers its client; who cannot be told sees in Redis that something has changed, and asks before it answers its own.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal
from weakref import WeakValueDictionary

from mirror.cluster.beat import Beat
from mirror.cluster.leases import LASTS, Lease, SharedLeases
from mirror.cluster.moments import Moments
from mirror.digest import Digest
from mirror.errors import NotNow, StoreError
from mirror.following import Following
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.together import Turn
from mirror.peers import Peers
from mirror.shared import keys
from mirror.spread import Bring, Spread
from mirror.store.blobs import BlobStore
from mirror.store.leases import Leases
from mirror.telling import Telling
from mirror.upkeep import Upkeep

log = logging.getLogger(__name__)

_TURN_WITHIN = 10.0
"""Seconds for which a change waits until it is the only one in its repository, and knows of all others."""

_POLL = 0.03
_READ_WITHIN = 0.5
"""Seconds for which a pull waits for what others have changed."""

_ABSENT_WITHIN = 2.0
"""Seconds for which one waits that would be told that something is not there."""

_BEGUN_WITHIN = 10.0
_AWAY_EVERY = 0.25
"""Seconds between two questions to the others while there is no Redis that would say that something has changed."""

_VOUCHED_FOR = LASTS / 2
"""Seconds after a change got its number for which the lease is sure to be held."""

_RETRY_AFTER = 2


class Replication:
    """A `Together`. Call `begin` at first, have `run` run, and `aclose` it at the end.

    ``address`` is where the others reach this replica, ``replicas`` on how many disks a blob lies (`hosted.replicas`),
    ``ack`` is `hosted.ack`; ``bring`` gets the bytes of a blob here. ``clock`` gives seconds that never go back,
    ``now`` seconds since the epoch.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: BlobStore,
        peers: Peers,
        beat: Beat,
        moments: Moments,
        leases: SharedLeases,
        local: Leases,
        address: str,
        replicas: int,
        ack: Literal["one", "all"],
        bring: Bring,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.catalogue = catalogue
        self.address = address
        self.following = Following(catalogue, store, peers, now)
        self.spread = Spread(catalogue, store, peers, self.following, address, replicas, bring, clock)
        self._telling = Telling(
            catalogue, peers, self.following, beat, moments, address, replicas if ack == "all" else 1, clock
        )
        self._upkeep = Upkeep(catalogue, self.following, self.spread, beat, local, clock, now)
        self._peers = peers
        self._beat = beat
        self._moments = moments
        self._leases = leases
        self._local = local
        self._ack = ack
        self._clock = clock
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._begun = asyncio.Event()
        self._begun.set()
        self._seen = -1
        self._looked_at = float("-inf")

    def refuse_while_away(self) -> None:
        """As `Together.refuse_while_away`."""
        if not self._moments.up:
            raise _away()

    @contextlib.asynccontextmanager
    async def changing(self, repository: str) -> AsyncIterator[Turn]:
        """As `Together.changing`. A change that took longer than its lease is not vouched for: `NotNow`."""
        self.refuse_while_away()
        name = f"hosted {repository}"
        queue = self._queues.setdefault(repository, asyncio.Lock())
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_TURN_WITHIN):
                    await stack.enter_async_context(queue)
                    await stack.enter_async_context(self._local.hold(name))
                    lease = await stack.enter_async_context(self._leases.lease(keys.tag_lease(name)))
                    while (holder := await lease.take()) is not None:
                        log.debug("%s changes %s", holder, repository)
                        await asyncio.sleep(_POLL)
                    await self.following.everything()
                    began = self._clock()
                    turn = await self._turn(lease, keys.tag_lease(name))
            except TimeoutError as error:
                raise NotNow(
                    f"others have been changing {repository} for {_TURN_WITHIN:g} s; try again",
                    retry_after=_RETRY_AFTER,
                ) from error
            yield turn
            await self._vouch(lease, keys.tag_lease(name), began)

    async def numbered(self) -> Turn:
        """As `Together.numbered`."""
        self.refuse_while_away()
        latest = await self.catalogue.latest()
        try:
            return Turn(await self._moments.free(latest))
        except StoreError as error:
            raise _away() from error

    async def told(self) -> None:
        """As `Together.told`. Raises `NotNow` where a replica neither hears of it nor can be shown; with `hosted.ack:
        all` also where it is not known to `hosted.replicas` of them, or to all that are there.
        """
        await self._telling.tell()

    async def copied(self, digests: Sequence[Digest]) -> None:
        """As `Together.copied`."""
        copies = [self.spread.copy(digest) for digest in dict.fromkeys(digests)]
        if self._ack == "all" and copies:
            await asyncio.wait(copies)
            for copy in copies:
                copy.result()

    async def brought(self, digest: Digest, size: int) -> None:
        """As `Together.brought`."""
        await self.spread.brought(digest, size)

    async def current(self) -> None:
        """As `Together.current`. Waits for `begin`, if that is under way."""
        await self._begun.wait()
        moves, up = self._beat.moves, self._moments.up
        if up and self._beat.in_sight and moves == self._seen:
            return
        if not up and self._clock() - self._looked_at < _AWAY_EVERY:
            return
        self._looked_at = self._clock()
        await self.following.glance(_READ_WITHIN)
        self._seen = moves

    async def asked(self) -> None:
        """As `Together.asked`. Waits for `begin`, if that is under way."""
        await self._begun.wait()
        await self.following.glance(_ABSENT_WITHIN)

    async def begin(self) -> None:
        """Know what the others know, before anything is answered from here: for 10 s at most. Never raises.

        The others can ask this replica meanwhile: where all are started at once, each waits for all.
        """
        self._begun.clear()
        moves = self._beat.moves
        try:
            await self.following.glance(_BEGUN_WITHIN)
            self._seen = moves
        finally:
            self._begun.set()

    async def run(self) -> None:
        """Follow the others, and keep the number of copies, until cancelled: one worker of this machine does."""
        await self._upkeep.run()

    async def heard_of(self, address: str) -> None:
        """Another replica says that it has changed something. Raises `MirrorError` where that cannot be read."""
        await self.refuse_stranger(address)
        if (failure := await asyncio.shield(self.following.hear(address))) is not None:
            raise failure

    async def refuse_stranger(self, address: str) -> None:
        """Raise `NotNow` for an address at which no replica is that is there: who asks does not say whom to ask."""
        if address not in self._peers.alive:
            await self._beat.once()  # it may have come since the last one
            if address not in self._peers.alive:
                raise NotNow("no replica that is there is at this address", retry_after=_RETRY_AFTER)

    async def aclose(self) -> None:
        """Stop what is under way."""
        await self.spread.aclose()
        await self.following.aclose()

    async def _turn(self, lease: Lease, key: str) -> Turn:
        """The moment of a change, if the lease is held."""
        latest = await self.catalogue.latest()
        if not lease.held:
            raise _away()
        try:
            return Turn(await self._moments.under(key, lease.value, LASTS, latest))
        except StoreError as error:
            log.info("nothing is changed now: %s", error)
            raise _away() from error

    async def _vouch(self, lease: Lease, key: str, began: float) -> None:
        """Raise `NotNow` if somebody else may have changed the repository since the lease was sure to be held."""
        if lease.held and self._clock() - began < _VOUCHED_FOR:
            return
        with contextlib.suppress(StoreError):
            if lease.held and await self._leases.renew(key, lease.value):
                return
        raise NotNow("the change took too long, and may not stand; look, and try again", retry_after=_RETRY_AFTER)


def _away() -> NotNow:
    return NotNow("replicas cannot agree on changes while their Redis is away; try again", retry_after=_RETRY_AFTER)
