"""The admin API: all its operations, in one list."""

import time
from collections.abc import Callable, Sequence

from mirror.edge.api import archive, modules, pins, prewarm
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.edge.api.operation import Operation
from mirror.names import Names
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground
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
) -> Admin:
    """Who answers operators."""
    operations: list[Operation] = []
    for area in (*_areas(pulls, pinning, warming), archive.operations(archives.exporter, archives.importer)):
        operations += area
    return Admin(Guard(ground.settings), operations, names, draining)


def _areas(pulls: Pulls, pinning: Pinning, warming: Warming) -> Sequence[Sequence[Operation]]:
    return (
        modules.operations(pulls.modules),
        pins.operations(pinning.pins, pinning.holdings),
        prewarm.operations(warming.desk, time.monotonic),
    )
