"""Settings to objects: the whole graph. Nothing else makes these objects, and there are no globals."""

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable

from starlette.types import ASGIApp, Scope

from mirror.auth.htpasswd import check_users
from mirror.cluster.secret import Secret
from mirror.config import Settings
from mirror.edge.account import given_to
from mirror.edge.api.guard import check_token
from mirror.edge.api.operation import ROOT as ADMIN
from mirror.edge.app import App, Beside
from mirror.edge.auth import Gate
from mirror.edge.dashboard.app import PAGE, DashboardApp
from mirror.edge.dashboard.app import ROOT as DASHBOARD
from mirror.edge.metrics import ROOT as METRICS
from mirror.edge.metrics import MetricsApp
from mirror.edge.modules import ROOT as MODULES
from mirror.edge.modules import ModulesApp
from mirror.edge.peers import PeerApp
from mirror.edge.push import Pushes
from mirror.edge.registry import Registry
from mirror.edge.traced import TracedApp, Traces
from mirror.errors import StartError
from mirror.metadata.sqlite import SqliteMetadata
from mirror.names import Names
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.wiring.admin import admin_of
from mirror.wiring.answering import pulls_of
from mirror.wiring.dashboard import looks_of
from mirror.wiring.ground import ground_of
from mirror.wiring.housekeeping import housekeeping_of
from mirror.wiring.layouts import archives_of
from mirror.wiring.passthrough import passthrough_of
from mirror.wiring.pinning import pinning_of
from mirror.wiring.publishers import publishers_of
from mirror.wiring.scrubbing import scrub_within
from mirror.wiring.warming import warmer_of, warming_of

_OF_TRACING = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


@contextlib.asynccontextmanager
async def wired(
    settings: Settings,
    directory: DataDirectory,
    draining: Callable[[], bool],
    at_admin: Callable[[Scope], bool] | None = None,
) -> AsyncIterator[ASGIApp]:
    """The application of one worker; on the way out, work under way is stopped so that it can be resumed.

    ``at_admin`` tells whether a request came in at the admin API's own port; None where it has none.
    """
    async with contextlib.AsyncExitStack() as stack:
        telemetry = _telemetry(stack, settings)
        ground = await ground_of(stack, settings, directory)
        pulls = pulls_of(stack, ground)
        scrubber = scrub_within(stack, ground, pulls)
        keeping = housekeeping_of(stack, ground, pulls)
        warmer = warmer_of(ground, pulls)
        pinning = pinning_of(stack, ground, pulls, warmer)
        names = Names(settings)
        warming = warming_of(stack, ground, names, warmer, pinning.pins)
        gate = Gate(settings, passthrough=passthrough_of(ground, pulls))
        stack.push_async_callback(gate.aclose)
        around = ground.around
        publishers = publishers_of(stack, ground, pulls)
        archives = archives_of(ground, pulls, publishers.get(settings.hosted.prefix), names, pinning.pins)
        pushes = Pushes(names, publishers, gate, ground.metrics, settings.hosted, around.forwarding)
        given = given_to(ground.askers)
        rooms: dict[str, ASGIApp] = {
            "/v2": Registry(names, pulls.everything, pulls.everything, gate, pushes, given),
            MODULES: ModulesApp(names, pulls.modules, gate, given),
        }
        looks, dashboard = await looks_of(stack, ground), DashboardApp()
        of_admin: dict[str, ASGIApp] = {
            ADMIN: admin_of(
                stack, ground, pulls, names, draining, pinning, warming, archives, keeping, scrubber, looks
            ),
            METRICS: MetricsApp(ground.exposition),
            PAGE: dashboard,
            DASHBOARD: dashboard,
        }
        beside = None if at_admin is None else Beside(of_admin, at_admin)
        if beside is None:
            rooms.update(of_admin)
        if (secret := around.secret) is not None:
            advertised = settings.cluster.advertise or ""
            of_peers = {**pulls.peer_rooms, **pinning.rooms, **warming.rooms, **keeping.rooms}
            if around.upload_room is not None:
                of_peers.update([around.upload_room(pushes)])
            rooms["/peer/"] = PeerApp(secret, ground.store, pulls.fills.tail, ground.local, advertised, rooms=of_peers)
        log_access = settings.log.access == "all"
        app = App(rooms, draining, log_access=log_access, metrics=ground.metrics, begun=pulls.begun, beside=beside)
        yield app if telemetry is None else TracedApp(app, telemetry)


def _telemetry(stack: contextlib.AsyncExitStack, settings: Settings) -> Traces | None:
    """Who begins traces, where they are sent anywhere."""
    if settings.tracing.endpoint is None:
        return None
    from mirror.telemetry import Telemetry  # an extra, and slow to load

    telemetry = Telemetry(settings.tracing.endpoint, settings.tracing.sample)
    stack.push_async_callback(telemetry.aclose)
    return telemetry


def check_extras(settings: Settings) -> None:
    """Whether what the settings want is installed. Raises `StartError`."""
    if settings.tracing.endpoint is not None and not all(map(_is_installed, _OF_TRACING)):
        raise StartError(
            "tracing.endpoint needs the extra `tracing`, which is not installed: pip install 'wasm-mirror[tracing]'"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it lies in
        return False


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
