"""What is done for hosted content among replicas when nobody asks: following the others, and the number of copies."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mirror.cluster.beat import Beat
from mirror.following import Following
from mirror.hosted.catalogue import Catalogue
from mirror.spread import Spread
from mirror.store.leases import Leases

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two looks at what the others have changed, and at what this replica is to hold."""

TOMBSTONES_LAST = 90 * 86400.0
"""Seconds for which it is known that something was deleted: a replica that was away for longer may bring it back."""

_LOOK_EVERY = 1.0
_FOLLOWED_WITHIN = 5.0
_LEAD_EVERY = 1.0


class Upkeep:
    """Runs in every worker, and works in one of them.

    ``clock`` gives seconds that never go back, ``now`` seconds since the epoch.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        following: Following,
        spread: Spread,
        beat: Beat,
        local: Leases,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._following = following
        self._spread = spread
        self._beat = beat
        self._local = local
        self._clock = clock
        self._now = now

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                with self._local.attempt("upkeep of hosted content") as mine:
                    if mine:
                        await asyncio.gather(self._follow(), self._keep_up())
            except OSError as error:
                log.error("the disk fails (%s); hosted content is not kept up", error.strerror or error)
            await asyncio.sleep(_LEAD_EVERY)

    async def _follow(self) -> None:
        moves, at = self._beat.moves, float("-inf")
        while True:
            if self._beat.moves != moves or self._clock() - at >= EVERY:
                moves, at = self._beat.moves, self._clock()
                await self._following.glance(_FOLLOWED_WITHIN)
            await asyncio.sleep(_LOOK_EVERY)

    async def _keep_up(self) -> None:
        while True:
            await _undisturbed("getting what is to lie on this disk", self._spread.mend)
            await _undisturbed("dropping what is known of old deletions", self._forget)
            await asyncio.sleep(EVERY)

    async def _forget(self) -> int:
        before = int((self._now() - TOMBSTONES_LAST) * 1_000_000)
        forgotten = 0
        while count := await self._catalogue.forget_tombstones(before):
            forgotten += count
        return forgotten


async def _undisturbed(what: str, work: Callable[[], Awaitable[int]]) -> None:
    """Do work whose failure stops nothing else."""
    try:
        if done := await work():
            log.info("%s: %d", what, done)
    except Exception as error:
        log.error("%s failed: %s", what, error)
