"""200 agents at once for one tag that nobody has pulled."""

from tests.bench.client import herd, pull
from tests.bench.lab import REPOSITORY, Lab, base, wait_committed
from tests.bench.table import Comparison, Row, seconds
from tests.bench.upstream import Pace

_CLIENTS = 200
_SIZE = 2 * 1024 * 1024
_ROUNDS = 3


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """The cold herd, beside one cold pull and the same herd warm: it cannot end much sooner than both together."""
    lab.upstream.set_pace(Pace(0.05, 20e6))
    rows = [row for workers in (1, 2) for row in _with(lab, workers, rounds or _ROUNDS)]
    lab.upstream.set_pace(Pace())
    return rows


def _with(lab: Lab, workers: int, rounds: int) -> list[Row]:
    cold, least, manifests, blobs = [], [], [], []
    with lab.mirror({"workers": workers}) as mirror:
        for _ in range(rounds):
            alone = lab.artifact(_SIZE)
            one = pull(base(mirror), REPOSITORY, alone.tag).seconds
            wait_committed(mirror, alone.layer)
            artifact = lab.artifact(_SIZE)
            lab.upstream.forget()
            cold.append(herd(_CLIENTS, [base(mirror)], REPOSITORY, artifact.tag))
            manifests.append(sum(lab.upstream.count("GET", "/manifests/").values()))
            blobs.append(max(lab.upstream.count("GET", "/blobs/").values()))
            wait_committed(mirror, artifact.layer)
            least.append(one + herd(_CLIENTS, [base(mirror)], REPOSITORY, artifact.tag))
    compared = Comparison(cold, least)
    name = f"cold herd of {_CLIENTS}, 2 MiB, workers: {workers}"
    return [
        Row(
            f"{name}, until the last has it",
            seconds(compared.ours),
            f"{seconds(compared.theirs)} one cold, then all warm",
            compared.ratio,
        ),
        Row(
            f"{name}, GETs upstream (worst round)",
            f"{max(manifests)} manifest, {max(blobs)} layer",
            f"{_CLIENTS} and {_CLIENTS} without a mirror",
            max(manifests + blobs) / _CLIENTS,
            "1 and 1",
            max(manifests + blobs) == 1,
        ),
    ]
