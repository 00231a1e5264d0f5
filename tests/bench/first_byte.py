"""How long the first byte of a layer takes from upstream's socket to the client's."""

from tests.bench.client import pull
from tests.bench.lab import REPOSITORY, Lab, base, wait_committed
from tests.bench.table import Comparison, Row, seconds
from tests.bench.upstream import Pace

_SIZE = 1024 * 1024
_GOAL = 0.020
_ROUNDS = 40


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """Each round pulls as an agent does; the client waits for the layer while upstream takes its 50 ms."""
    ours: list[float] = []
    theirs: list[float] = []
    lab.upstream.set_pace(Pace(0.05, 20e6))
    with lab.mirror() as mirror:
        for _ in range(rounds or _ROUNDS):
            artifact = lab.artifact(_SIZE)
            for where, found in ((lab.upstream.url, theirs), (base(mirror), ours)):
                layer = pull(where, REPOSITORY, artifact.tag).layer
                found.append(layer.first_byte_at - lab.upstream.first_byte_left(artifact.layer))
            wait_committed(mirror, artifact.layer)
    lab.upstream.set_pace(Pace())
    compared, worst = Comparison(ours, theirs), Comparison([max(ours)], [max(theirs)])
    return [
        Row(
            f"first byte of a 1 MiB layer after it left upstream, {name}",
            seconds(one.ours),
            f"{seconds(one.theirs)} straight",
            one.ratio,
            f"≤ {_GOAL * 1000:.0f} ms",
            one.ours <= _GOAL,
        )
        for name, one in (("median", compared), ("worst", worst))
    ]
