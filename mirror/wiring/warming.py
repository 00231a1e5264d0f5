"""Who warms references: for jobs, for other replicas, and because the settings name them."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mirror.around import run_within
from mirror.desk import Desk
from mirror.edge.peers import Room
from mirror.edge.peerwarm import WarmRoom
from mirror.fellows import ROOM, Fellows
from mirror.jobs import Jobs
from mirror.names import Names
from mirror.peers import Peers
from mirror.prewarming import Named, Pins, Prewarming
from mirror.store.jobs import JobFolder
from mirror.store.leases import Leases
from mirror.warming import Warmer
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Warming:
    """``rooms`` are those in which other replicas ask this one."""

    desk: Desk
    rooms: Mapping[str, Room]


def warmer_of(ground: Ground, pulls: Pulls) -> Warmer:
    """Who brings what references name to this disk."""
    return Warmer(pulls.everything, pulls.manifests, pulls.modules, ground.store, ground.accesses)


def warming_of(stack: contextlib.AsyncExitStack, ground: Ground, names: Names, warmer: Warmer, pins: Pins) -> Warming:
    """Warm until ``stack`` ends; jobs go on after that with the next who serves."""
    settings, around, clock = ground.settings, ground.around, asyncio.get_running_loop().time
    fellows = Fellows(around.elsewhere, clock, _token) if isinstance(around.elsewhere, Peers) else None
    prewarming = Prewarming(warmer, pins, names.of_text, fellows, ground.metrics)
    leases = Leases(ground.directory.leases)
    tells = settings.workers > 1
    jobs = Jobs(JobFolder(ground.directory.jobs), leases, prewarming.work, _token, time.time, tells=tells)
    stack.push_async_callback(jobs.aclose)
    run_within(stack, jobs.run())
    if settings.prewarm.references:
        references = tuple(dict.fromkeys(map(names.of_text, settings.prewarm.references)))
        run_within(stack, Named(references, settings.prewarm.interval, prewarming.here, leases).run())
    rooms: Mapping[str, Room] = {}
    if around.secret is not None:
        room = WarmRoom(prewarming, jobs, names, around.secret)
        stack.push_async_callback(room.aclose)
        rooms = {ROOM: room}
    return Warming(Desk(jobs, fellows, settings.cluster.advertise or "", clock), rooms)


def _token() -> str:
    return secrets.token_hex(4)
