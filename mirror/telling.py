"""Telling other replicas that something of hosted content has changed here: they read it before they say so."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from mirror.cluster.beat import Beat
from mirror.cluster.moments import Moments
from mirror.errors import MirrorError, NotFound, NotNow, StoreError
from mirror.following import Following
from mirror.hosted.catalogue import Catalogue
from mirror.peers import Peers
from mirror.spread import COPIED_WITHIN

log = logging.getLogger(__name__)

_TOLD_WITHIN = 1.0
"""Seconds in which another replica takes in what it is told of; else it is shown that it does not know it."""

_SHUNNED_FOR = 2.0
"""Seconds for which such a replica is only shown."""

_AGAIN_AFTER = 0.25
_RETRY_AFTER = 2


class Telling:
    """Tells those that are there. ``address`` is where they reach this replica; ``replicas``: how many are to know of
    a change, this one included, for it to count. ``clock`` gives seconds that never go back.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        peers: Peers,
        following: Following,
        beat: Beat,
        moments: Moments,
        address: str,
        replicas: int,
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._peers = peers
        self._following = following
        self._beat = beat
        self._moments = moments
        self._address = address
        self._replicas = replicas
        self._clock = clock
        self._shunned: dict[str, float] = {}

    async def tell(self) -> None:
        """All replicas that are there know what is known here, or see in Redis that they do not.

        Raises `NotNow` where neither can be, and where too few know; `StoreError`.
        """
        await self._beat.once()
        know = await self._tell_all(self._peers.alive)
        if know.issuperset(self._peers.alive):
            return
        try:
            await self._moments.bump(await self._catalogue.latest())
        except StoreError as error:
            raise NotNow(
                "other replicas could not be told of the change; try again", retry_after=_RETRY_AFTER
            ) from error
        await self._beat.seen_by_all()
        await self._known_to_enough(know)

    async def _tell_all(self, addresses: Sequence[str]) -> set[str]:
        """Tell these replicas; those that know by now."""
        told = await asyncio.gather(*map(self._tell, addresses))
        return {address for address, knows in zip(addresses, told, strict=True) if knows}

    async def _known_to_enough(self, know: set[str]) -> None:
        """Wait until enough replicas know of a change, which some ``know`` by now, or all that are there."""
        until = self._clock() + COPIED_WITHIN
        while True:
            there = [address for address in self._peers.alive if self._following.has_room(address)]
            missing = min(self._replicas - 1, len(there)) - len(know.intersection(there))
            if missing <= 0:
                return
            if self._clock() >= until:
                raise NotNow(
                    f"{missing} more replicas do not take in the change yet (hosted.ack: all)", retry_after=_RETRY_AFTER
                )
            await asyncio.sleep(_AGAIN_AFTER)
            know |= await self._tell_all([address for address in there if address not in know])

    async def _tell(self, address: str) -> bool:
        """Have a replica take in all that is known here; whether it has done so."""
        if self._shunned.get(address, float("-inf")) > self._clock():
            return False
        target = f"hosted/sync?{urlencode({'from': self._address})}"
        try:
            async with asyncio.timeout(_TOLD_WITHIN):
                await self._peers.document(address, target, 1024)
        except NotFound:  # it has no hosted content, and answers nobody about it
            return True
        except (MirrorError, TimeoutError) as error:
            log.info("the replica %s could not be told of a change: %s", address, error or type(error).__name__)
            self._shunned = {one: until for one, until in self._shunned.items() if until > self._clock()}
            self._shunned[address] = self._clock() + _SHUNNED_FOR
            return False
        return True
