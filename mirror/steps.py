"""What came in each step of the last hour, reckoned from what the workers have counted; pure.

A worker's counters only ever grow, and whoever is started in its place goes on from them. Where one goes back after
all, since what was counted was lost, it began anew: what it says then came since. Of a worker that cannot be seen for a
while the last word stands, so that nothing of it is told twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mirror.metrics import LOOKED_UP, LOOKUPS, REQUESTS, SENT_BYTES, UPSTREAM_BYTES, Snapshot

STEP: Final = 30.0
"""Seconds of a step."""

MOST: Final = 120
"""Steps that are kept: an hour."""

_HOUR = STEP * MOST


class Counts(NamedTuple):
    """Lookups by their results, requests for content and those of them that failed, bytes."""

    hit: int = 0
    stale: int = 0
    collapsed: int = 0
    miss: int = 0
    negative: int = 0
    requests: int = 0
    failures: int = 0
    sent_bytes: int = 0
    upstream_bytes: int = 0


class Step(NamedTuple):
    """What came in a step. ``ended`` is by the clock that never goes back, ``at`` in seconds since the epoch."""

    ended: float
    at: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the last hour. ``began_at``: when the mirror was started, in seconds since the epoch.

    ``looked`` is when the workers' counters were looked at last, by the clock that never goes back, and ``seen`` what
    each of them was then.
    """

    began_at: float
    looked: float
    seen: Mapping[str, Counts] = field(default_factory=dict)
    steps: Sequence[Step] = ()

    def after(self, seen: Mapping[str, Counts], now: float, at: float) -> "Past":
        """With a step that ends ``now``, by both clocks."""
        step = Step(now, at, grown(self.seen, seen))
        return Past(self.began_at, now, {**self.seen, **seen}, (*self._within(now), step)[-MOST:])

    def last_hour(self, seen: Mapping[str, Counts], now: float) -> Counts:
        """All that came in the steps of the last hour, and since."""
        return added([*(step.counts for step in self._within(now)), grown(self.seen, seen)])

    def as_json(self) -> dict[str, Any]:
        """For the other workers."""
        steps = [[step.ended, step.at, *step.counts] for step in self.steps]
        return {"began_at": self.began_at, "looked": self.looked, "seen": dict(self.seen), "steps": steps}

    @classmethod
    def of_json(cls, value: Any) -> "Past":
        """Raises `LookupError`, `TypeError`, `ValueError` for anything else."""
        seen = {str(name): Counts(*map(int, counts)) for name, counts in dict(value["seen"]).items()}
        steps = [Step(float(ended), float(at), Counts(*map(int, counts))) for ended, at, *counts in value["steps"]]
        return cls(float(value["began_at"]), float(value["looked"]), seen, steps)

    def _within(self, now: float) -> Sequence[Step]:
        """The steps that ended within the last hour."""
        return [step for step in self.steps if step.ended > now - _HOUR]


def grown(before: Mapping[str, Counts], now: Mapping[str, Counts]) -> Counts:
    """What the workers have counted since ``before``; never less than nothing."""
    nothing = Counts()
    return added([_since(before.get(name, nothing), counts) for name, counts in now.items()])


def added(several: Sequence[Counts]) -> Counts:
    """Their sum."""
    return Counts(*map(sum, zip(Counts(), *several, strict=True)))


def counts_of(numbers: Snapshot) -> Counts:
    """What one worker has counted, out of its metrics."""
    lookups = dict.fromkeys(("hit", "stale", "collapsed", "miss", "negative"), 0)
    for (_, result), (number,) in numbers.get(LOOKUPS.name, {}).items():
        if result in lookups:
            lookups[result] += int(number)
    requests = failures = 0
    for (operation, status), (number,) in numbers.get(REQUESTS.name, {}).items():
        if operation in LOOKED_UP:
            requests += int(number)
            failures += int(number) if _is_failure(status) else 0
    sent, came = (
        sum(int(number) for (number,) in numbers.get(one.name, {}).values()) for one in (SENT_BYTES, UPSTREAM_BYTES)
    )
    return Counts(**lookups, requests=requests, failures=failures, sent_bytes=sent, upstream_bytes=came)


def _since(before: Counts, now: Counts) -> Counts:
    return Counts(*(new - old if new >= old else new for old, new in zip(before, now, strict=True)))


def _is_failure(status: str) -> bool:
    return status.startswith("5") or not status.isdecimal()
