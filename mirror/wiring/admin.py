"""The admin API: all its operations, in one list."""

from collections.abc import Callable, Sequence

from mirror.edge.api import modules, pins
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.edge.api.operation import Operation
from mirror.names import Names
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground
from mirror.wiring.pinning import Pinning


def admin_of(ground: Ground, pulls: Pulls, names: Names, draining: Callable[[], bool], pinning: Pinning) -> Admin:
    """Who answers operators."""
    operations: list[Operation] = []
    for area in _areas(pulls, pinning):
        operations += area
    return Admin(Guard(ground.settings), operations, names, draining)


def _areas(pulls: Pulls, pinning: Pinning) -> Sequence[Sequence[Operation]]:
    return (modules.operations(pulls.modules), pins.operations(pinning.pins, pinning.holdings))
