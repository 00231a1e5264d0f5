"""The admin API: all its operations, in one list."""

import time
from collections.abc import Callable, Sequence

from mirror.edge.api import archive, fills, housekeeping, modules, pins, prewarm, replicas, upstreams
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.edge.api.operation import Operation
from mirror.names import Names
from mirror.peers import Peers
from mirror.scrubbing import Scrubber
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground
from mirror.wiring.housekeeping import Housekeeping
from mirror.wiring.layouts import Archives
from mirror.wiring.pinning import Pinning
from mirror.wiring.warming import Warming


def admin_of(
    ground: Ground,
    pulls: Pulls,
    names: Names,
    draining: Callable[[], bool],
    pinning: Pinning,
    warming: Warming,
    archives: Archives,
    keeping: Housekeeping,
    scrubber: Scrubber,
) -> Admin:
    """Who answers operators."""
    around = ground.around
    heard = around.elsewhere.heard if isinstance(around.elsewhere, Peers) else dict
    areas: Sequence[Sequence[Operation]] = (
        modules.operations(pulls.modules, keeping.inventory),
        pins.operations(pinning.pins, pinning.holdings),
        prewarm.operations(warming.desk, time.monotonic),
        housekeeping.operations(keeping.refreshing, keeping.purging, keeping.collecting, scrubber),
        archive.operations(archives.exporter, archives.importer),
        upstreams.operations(ground.upstreams, ground.settings.upstreams, ground.exposition),
        fills.operations(pulls.fills),
        replicas.operations(ground.settings.cluster.advertise, heard),
    )
    return Admin(Guard(ground.settings), [one for area in areas for one in area], names, draining)
