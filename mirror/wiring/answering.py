"""Who answers for manifests and blobs."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from mirror.apart import Apart
from mirror.around import run_within
from mirror.checks import Checks
from mirror.collecting import Hosting as Unneeded
from mirror.confirmed import Confirmed
from mirror.copies import Copies, NothingBehind
from mirror.download import Source
from mirror.edge.peers import Room
from mirror.evictor import Evictor
from mirror.fills import Fills
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.gc import Gc
from mirror.hosted.orphans import Orphans
from mirror.hosted.together import ByItself, Together
from mirror.hosting import Hosting, Routed
from mirror.listing import Listing
from mirror.manifests import Manifests
from mirror.mending import Memory
from mirror.modules import Modules
from mirror.oci import Reference
from mirror.places import Places
from mirror.pull import Pull, Pulling
from mirror.removal import Removal
from mirror.repackaging import Repackaging
from mirror.resolve import Resolver
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.survey import Survey
from mirror.suspicion import Suspicion
from mirror.unpack import Unpacker
from mirror.wiring.ground import Ground

_COLLECT_EVERY = 600.0
"""Seconds between two looks for hosted content that nothing names; half the grace, where that is less."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What is found out of a disk before something goes from it, and who takes it away."""

    survey: Survey
    removal: Removal


@dataclass(frozen=True, slots=True)
class Pulls:
    """Who answers for manifests and blobs: ``pull`` for those of upstreams, ``everything`` for hosted ones too.

    ``together`` is what replicas agree on about the latter, ``peer_rooms`` where they do; ``begun`` says whether that
    is known here. ``memories`` are of manifests. ``disk`` is whence files go; ``unneeded`` lets go of what is hosted
    and not needed, where there is any.
    """

    fills: Fills
    manifests: Manifests
    resolver: Resolver
    pull: Pull
    everything: Routed
    modules: Modules
    together: Together
    peer_rooms: Mapping[str, Room]
    begun: Callable[[], bool]
    suspicion: Suspicion
    memories: Sequence[Memory]
    original: Callable[[Reference], Awaitable[Reference | None]] | None
    disk: Disk
    unneeded: Unneeded | None


def pulls_of(stack: contextlib.AsyncExitStack, ground: Ground) -> Pulls:
    settings, around, store, upstreams = ground.settings, ground.around, ground.store, ground.upstreams
    limit, metrics, accesses, links = settings.wasm.max_module_size, ground.metrics, ground.accesses, ground.links
    suspicion = Suspicion(asyncio.get_running_loop().time)
    sources: dict[str, Source] = {**upstreams, settings.hosted.prefix: NothingBehind()}
    fills = Fills(ground.directory, store, around.metadata, sources, around.sharing, metrics)
    stack.push_async_callback(fills.aclose)
    unpacker = Unpacker(ground.directory, store, ground.local, Leases(ground.directory.leases), limit)
    stack.push_async_callback(unpacker.aclose)
    checks = Checks(store, fills, metrics, limit, ground.findings.note)
    stack.push_async_callback(checks.aclose)
    manifests = Manifests(
        upstreams, store, links, fills, around.leases, around.elsewhere, limit, metrics, checks.fetched
    )
    covers = ground.book.covers
    resolver = Resolver(upstreams, ground.tags, manifests, around.leases, suspicion, time.time, covers)
    stack.push_async_callback(resolver.aclose)
    pull = Pull(
        upstreams,
        store,
        ground.tags,
        links,
        manifests,
        resolver,
        fills,
        accesses,
        time.time,
        checks.given,
        covers,
    )
    stack.push_async_callback(pull.aclose)
    listing = Listing(upstreams, around.metadata, suspicion, time.time)
    stack.push_async_callback(listing.aclose)
    places = Places(ground.local)
    hold_for = {name: upstream.policy.hold_for for name, upstream in upstreams.items()}

    def modules_of(pull: Pulling) -> Modules:
        spool = ground.directory.spool
        modules = Modules(hold_for, store, pull, manifests, unpacker, places, accesses, limit, spool)
        stack.push_async_callback(modules.aclose)
        return modules

    served: Pulling = pull
    original = None
    if settings.wasm.repackage == "agents":
        suffix, modules = settings.wasm.repackage_suffix, modules_of(pull)
        served = Repackaging(
            suffix,
            upstreams,
            store,
            ground.tags,
            resolver,
            manifests,
            around.sharing,
            pull,
            modules,
            accesses,
            time.time,
        )
        stack.push_async_callback(served.aclose)
        original = served.original
    if ground.through:
        served = Confirmed(served, ground.through, store)
    evictor, disk = _letting_go(stack, ground, manifests)
    run_within(stack, evictor.run())
    hosting, together, peer_rooms, begun, unneeded = _hosting(stack, ground, fills)
    everything = Routed(settings.hosted.prefix, hosting, served, listing)
    modules = modules_of(everything)
    memories = [manifests.remembered, *([hosting.remembered] if hosting is not None else [])]
    return Pulls(
        fills,
        manifests,
        resolver,
        pull,
        everything,
        modules,
        together,
        peer_rooms,
        begun,
        suspicion,
        memories,
        original,
        disk,
        unneeded,
    )


def _letting_go(stack: contextlib.AsyncExitStack, ground: Ground, manifests: Manifests) -> tuple[Evictor, Disk]:
    """Who keeps the disk from filling up, and who takes from it what people want gone."""
    directory, hosted = ground.directory, ground.catalogue
    if hosted is None and directory.hosted.exists():  # it stays, though nobody may have it now
        hosted = Catalogue.of(directory)
        stack.push_async_callback(hosted.aclose)
    generation = Generation(directory.evictions, "what was evicted")
    stack.callback(generation.close)

    async def let_go() -> None:
        ground.store.let_go()
        await manifests.let_go()

    withdraw, protected = ground.around.sharing.withdraw, ground.book.protected
    evictor = Evictor(
        ground.census,
        ground.local,
        ground.accesses,
        hosted,
        Leases(directory.leases),
        generation,
        ground.settings.cache,
        ground.metrics,
        withdraw,
        let_go,
        lambda: Apart(directory.path),
        protected,
    )
    survey = Survey(directory, ground.census, ground.local, hosted, accesses=ground.accesses, protected=protected)
    return evictor, Disk(survey, Removal(directory, ground.local, hosted, generation, withdraw, let_go))


def _hosting(
    stack: contextlib.AsyncExitStack, ground: Ground, fills: Fills
) -> tuple[Hosting | None, Together, Mapping[str, Room], Callable[[], bool], Unneeded | None]:
    """Who answers for hosted content, where there is any; with whom, where they ask, and whether they are known. And
    who lets go of what is not needed of it.
    """
    catalogue, grace = ground.catalogue, ground.settings.hosted.grace
    if catalogue is None:
        return None, ByItself(), {}, _at_once, None
    together: Together = ByItself()
    copies: Copies | None = None
    rooms: Mapping[str, Room] = {}
    begun: Callable[[], bool] = _at_once
    if ground.around.unite is not None:
        hosts = ground.around.unite(stack, catalogue, ground.store, fills)
        together, copies, rooms, begun = hosts.together, hosts.copies, hosts.rooms, hosts.begun
    gc = Gc(catalogue, ground.around.metadata, ground.directory, grace, together=together)
    run_within(stack, gc.run(min(grace / 2, _COLLECT_EVERY)))
    orphans = Orphans(catalogue, ground.around.metadata, ground.local, ground.directory, grace, together)
    run_within(stack, orphans.run())
    hosting = Hosting(catalogue, ground.store, grace, together, copies, asked=ground.accesses.asked)
    return hosting, together, rooms, begun, Unneeded(gc.once, orphans.once, together.asked, grace)


def _at_once() -> bool:
    """A mirror that is alone knows all there is."""
    return True
