"""A cold pull through the mirror, beside the same pull straight from upstream."""

from tests.bench.client import check, pull
from tests.bench.lab import REPOSITORY, Lab, base, wait_committed
from tests.bench.table import Comparison, Row, seconds
from tests.bench.upstream import Pace

_SIZE = 64 * 1024 * 1024
_GOAL = 1.15

# Name, pace, usual rounds, goal. From loopback at full speed a pull takes less time than its sha256 alone, so there is
# no goal for that: it shows what the mirror itself costs.
_PACES = (
    ("50 ms, 20 MB/s", Pace(0.05, 20e6), 3, _GOAL),
    ("200 MB/s", Pace(0.0, 200e6), 9, _GOAL),
    ("unthrottled", Pace(), 9, None),
)


def measure(lab: Lab, rounds: int | None) -> list[Row]:
    """Each round pulls an artifact that the mirror has never seen, both ways; who is first alternates."""
    rows = []
    with lab.mirror() as mirror:
        warm_up = lab.artifact(_SIZE)
        check(base(mirror), REPOSITORY, warm_up.tag)
        wait_committed(mirror, warm_up.layer)
        for name, pace, usual, goal in _PACES:
            ours, theirs = [], []
            for number in range(rounds or usual):
                lab.upstream.set_pace(Pace())
                artifact = lab.artifact(_SIZE)
                lab.upstream.set_pace(pace)
                for straight in (True, False) if number % 2 else (False, True):
                    if straight:
                        theirs.append(pull(lab.upstream.url, REPOSITORY, artifact.tag).seconds)
                    else:
                        ours.append(pull(base(mirror), REPOSITORY, artifact.tag).seconds)
                        wait_committed(mirror, artifact.layer)
            compared = Comparison(ours, theirs)
            rows.append(
                Row(
                    f"cold pull of 64 MiB, upstream {name}",
                    seconds(compared.ours),
                    f"{seconds(compared.theirs)} straight",
                    compared.ratio,
                    "" if goal is None else f"≤ {goal} ×",
                    None if goal is None else compared.ratio <= goal,
                )
            )
    lab.upstream.set_pace(Pace())
    return rows
