"""The admin API: all its operations, in one list."""

import contextlib
import time
from collections.abc import Callable

from mirror.edge.api import (
    archive,
    askers,
    events,
    fills,
    housekeeping,
    modules,
    overview,
    pins,
    prewarm,
    replicas,
    upstreams,
)
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.names import Names
from mirror.peers import Peers
from mirror.scrubbing import Scrubber
from mirror.wiring.answering import Pulls
from mirror.wiring.dashboard import Looks, watching_of
from mirror.wiring.ground import Ground
from mirror.wiring.housekeeping import Housekeeping
from mirror.wiring.layouts import Archives
from mirror.wiring.pinning import Pinning
from mirror.wiring.warming import Warming


def admin_of(
    stack: contextlib.AsyncExitStack,
    ground: Ground,
    pulls: Pulls,
    names: Names,
    draining: Callable[[], bool],
    pinning: Pinning,
    warming: Warming,
    archives: Archives,
    keeping: Housekeeping,
    scrubber: Scrubber,
    looks: Looks,
) -> Admin:
    """Who answers operators; those whom it tells of changes are let go of with ``stack``."""
    around = ground.around
    heard = around.elsewhere.heard if isinstance(around.elsewhere, Peers) else dict
    areas = (
        modules.operations(pulls.modules, keeping.inventory),
        askers.operations(ground.askers, keeping.named),
        pins.operations(pinning.pins, pinning.holdings),
        prewarm.operations(warming.desk, time.monotonic),
        housekeeping.operations(keeping.refreshing, keeping.purging, keeping.collecting, scrubber),
        archive.operations(archives.exporter, archives.importer),
        upstreams.operations(ground.upstreams, ground.settings.upstreams, ground.exposition),
        fills.operations(pulls.fills),
        replicas.operations(ground.settings.cluster.advertise, heard),
        overview.operations(ground.settings, ground.exposition, looks.stock, looks.history, draining),
    )
    operations = [one for area in areas for one in area]
    watching = watching_of(stack, looks, operations, names)
    return Admin(Guard(ground.settings), [*operations, *events.operations(watching.listen)], names, draining)
