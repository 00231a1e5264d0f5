"""Settings to objects: the whole graph in one place. Nothing else makes these objects, and there are no globals."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp

from mirror.accesses import Accesses
from mirror.admission import Admission
from mirror.around import Around, alone, run_within
from mirror.auth.htpasswd import check_users
from mirror.auth.keyed import key_in, keyed
from mirror.auth.remembered import Remembered
from mirror.auth.verdicts import Verdicts
from mirror.checks import Checks
from mirror.cluster.secret import Secret
from mirror.config import Settings, UpstreamSettings
from mirror.confirmed import Confirmed
from mirror.copies import Copies, NothingBehind
from mirror.download import Source
from mirror.edge.admin import ROOT as ADMIN
from mirror.edge.admin import Admin, Guard, check_token
from mirror.edge.app import App
from mirror.edge.auth import Gate
from mirror.edge.metrics import ROOT as METRICS
from mirror.edge.metrics import MetricsApp
from mirror.edge.modules import ROOT as MODULES
from mirror.edge.modules import ModulesApp
from mirror.edge.passthrough import PassThrough
from mirror.edge.peers import PeerApp, Room
from mirror.edge.push import Pushes
from mirror.edge.registry import Registry
from mirror.exposition import Exposition
from mirror.fills import Fills
from mirror.hosted.backup import backups_of
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.gc import Gc
from mirror.hosted.orphans import Orphans
from mirror.hosted.together import ByItself, Together
from mirror.hosting import Hosting, Routed
from mirror.links import Links
from mirror.listing import Listing
from mirror.manifests import Manifests
from mirror.metadata.sqlite import SqliteMetadata
from mirror.metrics import Metrics
from mirror.modules import Modules
from mirror.names import Names
from mirror.oci import Reference
from mirror.places import Places
from mirror.publish import Publisher
from mirror.publishing import Hosted
from mirror.pull import Pull, Pulling
from mirror.repackaging import Repackaging
from mirror.resolve import Resolver
from mirror.store.blobs import BlobStore
from mirror.store.board import Board
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.store.tallies import Tally
from mirror.store.uploads import Uploads
from mirror.suspicion import Suspicion
from mirror.tags import Tags
from mirror.through import Here, Through
from mirror.unpack import Unpacker
from mirror.upstream.authors import Authors
from mirror.upstream.endpoints import origin_to_push_to
from mirror.upstream.failover import Upstream
from mirror.upstream.lenders import Logins

_COLLECT_EVERY = 600.0
"""Seconds between two looks for hosted content that nothing names; half the grace, where that is less."""


@contextlib.asynccontextmanager
async def wired(settings: Settings, directory: DataDirectory, draining: Callable[[], bool]) -> AsyncIterator[App]:
    """The application of one worker; on the way out, work under way is stopped so that it can be resumed."""
    async with contextlib.AsyncExitStack() as stack:
        ground = await _ground(stack, settings, directory)
        pulls = _pulls(stack, ground)
        names = Names(settings)
        gate = Gate(settings, passthrough=_passthrough(ground, pulls))
        stack.push_async_callback(gate.aclose)
        around = ground.around
        publishers = _publishers(stack, ground, pulls)
        pushes = Pushes(names, publishers, gate, ground.metrics, settings.hosted, around.forwarding)
        rooms: dict[str, ASGIApp] = {
            "/v2": Registry(names, pulls.everything, pulls.everything, gate, pushes),
            MODULES: ModulesApp(names, pulls.modules, gate),
            ADMIN: Admin(Guard(settings), names, pulls.modules),
            METRICS: MetricsApp(ground.exposition),
        }
        if (secret := around.secret) is not None:
            advertised = settings.cluster.advertise or ""
            of_peers = dict(pulls.peer_rooms)
            if around.upload_room is not None:
                of_peers.update([around.upload_room(pushes)])
            rooms["/peer/"] = PeerApp(secret, ground.store, pulls.fills.tail, ground.local, advertised, rooms=of_peers)
        log_access = settings.log.access == "all"
        yield App(rooms, draining, log_access=log_access, metrics=ground.metrics, begun=pulls.begun)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is known and held here, and who may be asked; ``catalogue``: that of hosted content, where there is any."""

    settings: Settings
    directory: DataDirectory
    metrics: Metrics
    exposition: Exposition
    store: BlobStore
    local: SqliteMetadata
    around: Around
    catalogue: Catalogue | None
    upstreams: Mapping[str, Upstream]
    accesses: Accesses
    tags: Tags
    links: Links
    logins: Logins

    @property
    def through(self) -> dict[str, Upstream]:
        """The upstreams that are pushed through to."""
        return {name: self.upstreams[name] for name, of in self.settings.upstreams.items() if of.push == "through"}


@dataclass(frozen=True, slots=True)
class _Pulls:
    """Who answers for manifests and blobs: ``pull`` for those of upstreams, ``everything`` for hosted ones too.

    ``together`` is what replicas agree on about the latter, ``peer_rooms`` where they do; ``begun`` says whether that
    is known here.
    """

    fills: Fills
    manifests: Manifests
    pull: Pull
    everything: Routed
    modules: Modules
    together: Together
    peer_rooms: Mapping[str, Room]
    begun: Callable[[], bool]
    suspicion: Suspicion
    original: Callable[[Reference], Awaitable[Reference | None]] | None


async def _ground(stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory) -> _Ground:
    metrics = Metrics(settings.upstreams)
    store = BlobStore(directory)
    local = SqliteMetadata.open(directory.database, holds=store.holds, holds_any=store.holds_any)
    generation = Generation(directory.generation)
    stack.callback(generation.close)
    around = await _around(stack, settings, directory, local)
    metadata = around.metadata
    tally = Tally(directory.tallies) if settings.workers > 1 else None
    catalogue = _catalogue(stack, settings, directory)
    hosted = {"hosted": catalogue.answers} if catalogue is not None else {}
    exposition = Exposition(metrics, store, {**around.stores, **hosted}, tally)
    stack.push_async_callback(exposition.aclose)
    board = Board(directory.board)
    stack.callback(board.close)
    clients_decide = settings.auth.mode == "upstream"
    upstreams = {
        name: Upstream.of(name, of, board=board, metrics=metrics, clients_decide=clients_decide)
        for name, of in settings.upstreams.items()
    }
    for upstream in upstreams.values():
        stack.push_async_callback(upstream.aclose)
    accesses = Accesses(metadata, time.time)
    stack.push_async_callback(accesses.flush)
    for work in (local.backups.run(), accesses.run(), *((exposition.run(),) if tally is not None else ())):
        run_within(stack, work)
    tags = Tags(metadata, generation, around.others, around.elsewhere)
    links = Links(metadata, generation, around.others, around.elsewhere, lenient=settings.auth.mode == "none")
    return _Ground(
        settings,
        directory,
        metrics,
        exposition,
        store,
        local,
        around,
        catalogue,
        upstreams,
        accesses,
        tags,
        links,
        Logins(),
    )


def _pulls(stack: contextlib.AsyncExitStack, ground: _Ground) -> _Pulls:
    settings, around, store, upstreams = ground.settings, ground.around, ground.store, ground.upstreams
    limit, metrics, accesses, links = settings.wasm.max_module_size, ground.metrics, ground.accesses, ground.links
    suspicion = Suspicion(asyncio.get_running_loop().time)
    sources: dict[str, Source] = {**upstreams, settings.hosted.prefix: NothingBehind()}
    fills = Fills(ground.directory, store, around.metadata, sources, around.sharing, metrics)
    stack.push_async_callback(fills.aclose)
    unpacker = Unpacker(ground.directory, store, ground.local, Leases(ground.directory.leases), limit)
    stack.push_async_callback(unpacker.aclose)
    checks = Checks(store, fills, metrics, limit)
    stack.push_async_callback(checks.aclose)
    manifests = Manifests(
        upstreams, store, links, fills, around.leases, around.elsewhere, limit, metrics, checks.fetched
    )
    resolver = Resolver(upstreams, ground.tags, manifests, around.leases, suspicion, time.time)
    stack.push_async_callback(resolver.aclose)
    pull = Pull(upstreams, store, ground.tags, links, manifests, resolver, fills, accesses, time.time, checks.given)
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
    hosting, together, peer_rooms, begun = _hosting(stack, ground, fills)
    everything = Routed(settings.hosted.prefix, hosting, served, listing)
    modules = modules_of(everything)
    return _Pulls(fills, manifests, pull, everything, modules, together, peer_rooms, begun, suspicion, original)


def _hosting(
    stack: contextlib.AsyncExitStack, ground: _Ground, fills: Fills
) -> tuple[Hosting | None, Together, Mapping[str, Room], Callable[[], bool]]:
    """Who answers for hosted content, where there is any; with whom, where they ask, and whether they are known."""
    catalogue, grace = ground.catalogue, ground.settings.hosted.grace
    if catalogue is None:
        return None, ByItself(), {}, _at_once
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
    return Hosting(catalogue, ground.store, grace, together, copies), together, rooms, begun


def _at_once() -> bool:
    """A mirror that is alone knows all there is."""
    return True


def _passthrough(ground: _Ground, pulls: _Pulls) -> PassThrough | None:
    """Where the upstreams say what each client may do: who asks them."""
    settings, secret = ground.settings, ground.around.secret
    auth = settings.auth
    if auth.mode != "upstream":
        return None
    own = key_in(ground.directory.verdicts_key) if secret is None else b""
    lent = {name: upstream.lent for name, upstream in ground.upstreams.items() if upstream.lent is not None}
    names = keyed((lambda: own) if secret is None else lambda: secret.derived("verdicts"))
    remembered = Remembered(
        ground.around.metadata,
        names,
        {name: of.endpoints[-1].url for name, of in settings.upstreams.items()},
        yes_for=auth.verdict_for,
        stands_for=auth.stale_verdict_for,
        now=time.time,
    )
    verdicts = Verdicts(
        ground.upstreams,
        lent,
        remembered,
        names,
        pulls.suspicion,
        original=pulls.original,
    )
    return PassThrough(verdicts, ground.logins, lent, ground.through)


def _publishers(stack: contextlib.AsyncExitStack, ground: _Ground, pulls: _Pulls) -> dict[str, Publisher]:
    """Who takes in what is pushed to hosted repositories, and to each upstream that is pushed through to."""
    settings, around = ground.settings, ground.around
    admission = Admission(settings.wasm.check, settings.wasm.max_module_size, ground.directory.spool)
    stack.callback(admission.close)
    uploads = _uploads(stack, settings, ground)
    limit = settings.hosted.max_blob_size
    here = Here(
        uploads,
        ground.store,
        around.metadata,
        ground.links,
        ground.tags,
        pulls.manifests,
        pulls.pull,
        around.sharing,
        around.leases,
        Leases(ground.directory.leases),
        admission,
        limit,
    )
    publishers: dict[str, Publisher] = {
        name: _through(stack, upstream, settings.upstreams[name], here, ground.logins)
        for name, upstream in ground.through.items()
    }
    if (catalogue := ground.catalogue) is not None:
        publishers[settings.hosted.prefix] = Hosted(
            uploads,
            ground.store,
            catalogue,
            around.metadata,
            admission,
            limit,
            pulls.together,
            around.sharing.announce,
        )
    return publishers


async def _around(
    stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory, local: SqliteMetadata
) -> Around:
    if settings.metadata.shared:
        from mirror.replicated import replicated  # with the client of Redis, which others need not load

        return await replicated(stack, settings, directory, local)
    stack.push_async_callback(local.aclose)
    return alone(directory, local)


def _catalogue(stack: contextlib.AsyncExitStack, settings: Settings, directory: DataDirectory) -> Catalogue | None:
    """The records of hosted content; None where there is none, or where replicas could not have it together."""
    if not settings.hosted.enabled or settings.cannot_host:
        return None
    catalogue = Catalogue.of(directory, most=settings.hosted.max_repository_size)
    stack.push_async_callback(catalogue.aclose)
    run_within(stack, backups_of(directory.hosted).run())
    return catalogue


def _uploads(stack: contextlib.AsyncExitStack, settings: Settings, ground: _Ground) -> Uploads:
    """The uploads that are under way on this disk, hosted or on their way to an upstream."""
    hosted = settings.hosted
    forwarding = ground.around.forwarding
    uploads = Uploads(
        ground.directory,
        time.time,
        expires=hosted.upload_expires,
        max_uploads=hosted.max_uploads,
        replica=forwarding.name if forwarding is not None else "",
    )
    stack.callback(uploads.close)
    run_within(stack, uploads.run())
    return uploads


def _through(
    stack: contextlib.AsyncExitStack, upstream: Upstream, settings: UpstreamSettings, here: Here, logins: Logins
) -> Publisher:
    """What is pushed to ``upstream``, whose effective settings are these; ``logins`` are those of its clients."""
    origin = origin_to_push_to(upstream.name, settings, clock=asyncio.get_running_loop().time, turn=upstream.push)
    theirs = upstream.lent is not None
    may_push = theirs or settings.endpoints[-1].credentials is not None
    through = Through(upstream, Authors(origin, logins if theirs else None), here, may_push=may_push)
    stack.push_async_callback(through.aclose)
    return through


def check_secrets(settings: Settings) -> None:
    """Read the secret of the replicas, the admin token and the users, before anything serves. Raises `StartError`."""
    if settings.cluster.secret_file is not None:
        Secret(settings.cluster.secret_file)
    check_token(settings)
    check_users(settings)


async def check_metadata(directory: DataDirectory) -> None:
    """Open the database and close it again: what is wrong with it is said or mended once, and before anything serves.

    Raises `StartError`.
    """
    store = BlobStore(directory)
    await SqliteMetadata.open(directory.database, holds=store.holds, holds_any=store.holds_any).aclose()
