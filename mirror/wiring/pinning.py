"""Who keeps what is pinned, and where replicas tell one another of it."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mirror.around import run_within
from mirror.edge.peerpins import PinsRoom
from mirror.edge.peers import Room
from mirror.gossip import ROOM, Gossip
from mirror.holdings import Holdings
from mirror.keeping import Keeper, Warmer
from mirror.oci import Reference
from mirror.peers import Peers
from mirror.pinning import Pins
from mirror.store.leases import Leases
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Pinning:
    """``rooms`` are those in which other replicas ask this one."""

    pins: Pins
    holdings: Holdings
    rooms: Mapping[str, Room]


def pinning_of(stack: contextlib.AsyncExitStack, ground: Ground, pulls: Pulls, warmer: Warmer) -> Pinning:
    """Keep what is pinned until ``stack`` ends."""
    settings, book, clock = ground.settings, ground.book, asyncio.get_running_loop().time
    gossip, rooms = _gossip(stack, ground)
    hosted = settings.hosted.prefix
    upstreams = {*ground.upstreams, *((hosted,) if ground.catalogue is not None else ())}
    holdings = Holdings(ground.directory)

    async def leaves_no_record(reference: Reference) -> bool:
        if reference.upstream == hosted:
            return True
        return pulls.original is not None and await pulls.original(reference) is not None

    keeper = Keeper(
        book,
        ground.tags,
        pulls.everything,
        upstreams,
        leaves_no_record,
        holdings,
        warmer,
        gossip,
        Leases(ground.directory.leases),
        time.time,
        clock,
    )
    run_within(stack, keeper.run())
    changed = gossip.changed if gossip is not None else _nobody
    pins = Pins(book, pulls.everything, ground.tags, upstreams, ground.store.holds, changed, time.time)
    return Pinning(pins, holdings, rooms)


def _gossip(stack: contextlib.AsyncExitStack, ground: Ground) -> tuple[Gossip | None, Mapping[str, Room]]:
    """What replicas tell one another, where there are any that can be asked."""
    around, address = ground.around, ground.settings.cluster.advertise
    if around.secret is None or not address or not isinstance(around.elsewhere, Peers):
        return None, {}
    gossip = Gossip(ground.book, around.elsewhere, address, asyncio.get_running_loop().time)
    stack.push_async_callback(gossip.aclose)
    return gossip, {ROOM: PinsRoom(gossip, around.secret)}


def _nobody() -> None:
    """There are no others to be told."""
