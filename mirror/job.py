"""A job: references that are to be warmed, and what became of each, at this replica and at the others. Pure.

Its log has a line for what is to be done, one for each outcome, one for each reference that is done everywhere, and one
for the end. What is known of a job follows from these, for whoever reads them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.warming import AGENTS, Result, Warmed

State = Literal["running", "done", "cancelled"]
Line = Mapping[str, Any]

_VERSION = 1
_LONGEST_WHY = 1000


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done. ``began_at``: seconds since the epoch; ``by``: who wants it, in words."""

    job: str
    began_at: float
    by: str
    references: Sequence[str]
    pin: bool = False
    parallel: int = 8
    platforms: Sequence[str] = (AGENTS,)

    def line(self) -> Line:
        """The first line of a log."""
        return {
            "v": _VERSION,
            "job": self.job,
            "began_at": self.began_at,
            "by": self.by,
            "pin": self.pin,
            "parallel": self.parallel,
            "platforms": list(self.platforms),
            "references": list(self.references),
        }

    @classmethod
    def of(cls, line: Line) -> Self:
        """Raises `ValueError` for a line that is none, or one of a release to come."""
        try:
            if line["v"] != _VERSION:
                raise ValueError("it was written by another release")
            return cls(
                str(line["job"]),
                float(line["began_at"]),
                str(line["by"]),
                tuple(map(str, line["references"])),
                bool(line["pin"]),
                int(line["parallel"]),
                tuple(map(str, line["platforms"])),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("its first line is damaged") from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the ``number``-th reference (from 0), as it was given, at this replica or at another one."""

    number: int
    reference: str
    warmed: Warmed
    replica: str | None = None

    def line(self) -> Line:
        """A line of a log."""
        return {"n": self.number, "reference": self.reference, "replica": self.replica, **of_warmed(self.warmed)}

    @classmethod
    def of(cls, line: Line) -> Self:
        """Raises `ValueError` for a line that is none."""
        try:
            replica = line["replica"]
            replica = None if replica is None else str(replica)
            return cls(int(line["n"]), str(line["reference"]), to_warmed(line), replica)
        except (KeyError, TypeError) as error:
            raise ValueError("it is no outcome") from error


@dataclass(frozen=True, slots=True)
class Underway:
    """How far a reference is: ``bytes`` of ``total`` are there."""

    reference: str
    replica: str | None
    bytes: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A job without its outcomes. ``total`` and ``done`` are numbers of references, ``counts`` those of outcomes."""

    job: str
    state: State
    began_at: float
    ended_at: float | None
    by: str
    pin: bool
    total: int
    done: int
    counts: Mapping[str, int]


class Account:
    """How a job stands, by the lines of its log that were read so far."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.state: State = "running"
        self.ended_at: float | None = None
        self.finished: set[int] = set()
        """The references that are done, by their numbers."""
        self.heard: dict[int, set[str | None]] = {}
        """Of those that are not: which replicas have said what became of them there."""
        self._counts: Counter[str] = Counter()

    def read(self, line: Line) -> Outcome | None:
        """Take a line into account, but for the first; the outcome that it tells. A damaged one is passed over."""
        try:
            if "end" in line:
                self.state = "cancelled" if line["end"] == "cancelled" else "done"
                self.ended_at = float(line["at"])
            elif "done" in line:
                self.finished.add(int(line["done"]))
                self.heard.pop(int(line["done"]), None)
            else:
                outcome = Outcome.of(line)
                self._counts[outcome.warmed.result] += 1
                self.heard.setdefault(outcome.number, set()).add(outcome.replica)
                return outcome
        except (ValueError, KeyError, TypeError):
            pass
        return None

    def summary(self) -> Summary:
        """What is told of it."""
        order = self.order
        return Summary(
            order.job,
            self.state,
            order.began_at,
            self.ended_at,
            order.by,
            order.pin,
            len(order.references),
            len(self.finished),
            {result.value: self._counts[result] for result in Result},
        )


def done_line(number: int) -> Line:
    """The line for a reference that is done everywhere."""
    return {"done": number}


def end_line(state: State, at: float) -> Line:
    """The last line of a log; ``at``: seconds since the epoch."""
    return {"end": state, "at": at}


def has_ended(line: Line) -> bool:
    """Whether a line is the last one of a log."""
    return "end" in line


def of_warmed(warmed: Warmed) -> dict[str, object]:
    """As it stands in a log, and as replicas tell it."""
    return {
        "result": str(warmed.result),
        "digest": None if warmed.digest is None else str(warmed.digest),
        "bytes": warmed.bytes,
        "seconds": round(warmed.seconds, 3),
        "why": None if warmed.why is None else warmed.why[:_LONGEST_WHY],
    }


def to_warmed(fields: Line) -> Warmed:
    """Raises `ValueError` for what is none."""
    try:
        digest, why = fields["digest"], fields["why"]
        return Warmed(
            Result(fields["result"]),
            None if digest is None else Digest.parse(digest),
            int(fields["bytes"]),
            float(fields["seconds"]),
            None if why is None else str(why)[:_LONGEST_WHY],
        )
    except (KeyError, TypeError, AttributeError, DigestInvalid) as error:
        raise ValueError("it is no result of warming") from error
