"""Whether an endpoint that keeps failing is asked: closed, open, half-open. Pure; the clock is an argument.

::

              5 failures in a row               time is up
    CLOSED ─────────────────────────► OPEN ─────────────────► HALF_OPEN
       ▲                               ▲   10 s, doubled up      │   │
       │                               │   to 5 min              │   │
       │                               └── the probe fails ──────┘   │
       └────────────────── any request succeeds ─────────────────────┘

Half-open, one request at a time goes through as a probe. An open one lets nothing through, but for those who have
nothing to lose: while a client waits for content that is not held, one probe at a time, and two a second at most, look
whether the endpoint is back. Such a probe makes no rest longer.
"""

import enum
from dataclasses import dataclass, replace

OPENS_AFTER = 5
"""Failures in a row."""

FIRST_REST = 10.0
LONGEST_REST = 300.0

PROBE_WITHIN = 15.0
"""Seconds after which a probe that has not reported is given up, for whoever sent it may be dead."""

PRESSING_EVERY = 0.5
"""Seconds between two probes for those who wait while the breaker is open."""


class State(enum.Enum):
    """What a breaker does with requests."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker as it stands; events give the next one. Times are those of one monotonic clock, in seconds.

    ``rest`` is how long it opens, 0 while it is closed. ``next_probe`` is the time from which a probe may be sent.
    """

    failures: int = 0
    rest: float = 0.0
    open_until: float = 0.0
    next_probe: float = 0.0

    def state(self, now: float) -> State:
        """What it does now."""
        if not self.rest:
            return State.CLOSED
        return State.OPEN if now < self.open_until else State.HALF_OPEN

    def admits(self, now: float, *, pressing: bool = False) -> bool:
        """Whether a request may be sent; a ``pressing`` one is for a client who gets nothing without it."""
        match self.state(now):
            case State.CLOSED:
                return True
            case State.OPEN:
                return pressing and now >= self.next_probe
            case State.HALF_OPEN:
                return now >= self.next_probe

    def asked(self, now: float) -> "Breaker":
        """A request that it admits is sent."""
        return replace(self, next_probe=now + PROBE_WITHIN) if self.rest else self

    def failed(self, now: float, asked_at: float) -> "Breaker":
        """A request that was sent at ``asked_at`` has failed."""
        if not self.rest:
            failures = self.failures + 1
            if failures < OPENS_AFTER:
                return Breaker(failures)
            return Breaker(failures, FIRST_REST, now + FIRST_REST, now + PRESSING_EVERY)
        if not self._is_probe(asked_at):
            return self  # it says nothing new
        if asked_at < self.open_until:
            return replace(self, failures=self.failures + 1, next_probe=now + PRESSING_EVERY)
        rest = min(self.rest * 2, LONGEST_REST)
        return Breaker(self.failures + 1, rest, now + rest, now + PRESSING_EVERY)

    def abandoned(self, now: float, asked_at: float) -> "Breaker":
        """A request was stopped before it told anything: another may take its place."""
        return replace(self, next_probe=now) if self._is_probe(asked_at) else self

    def _is_probe(self, asked_at: float) -> bool:
        """Whether it was sent since the breaker opened."""
        return self.rest > 0 and asked_at > self.open_until - self.rest


CLOSED = Breaker()
"""After a success, and before anything has happened."""
