"""How an endpoint stands: its breaker, its rests and its rate limit; one for all workers, on the board."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mirror.errors import MirrorError, UpstreamTimeout, UpstreamUnavailable
from mirror.metrics import UPSTREAM_HEALTHY, UPSTREAM_RATE_LIMIT, Snapshot
from mirror.store.board import NUMBERS, Board, Note
from mirror.upstream import breaker, ratelimit
from mirror.upstream.breaker import CLOSED, Breaker, State

log = logging.getLogger(__name__)

COOL_FOR = 300.0
"""Seconds for which an endpoint that sent wrong bytes is asked only when no other can answer."""

_LONGEST_REST = 86400.0


class NotAsked(UpstreamUnavailable):
    """The endpoint is left alone for now; what it said when it was asked says more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one endpoint. Times are of the loop's clock, which is the same for all processes of a machine.

    ``cool_until``: it sent wrong bytes. ``rests_until``: it asked to be left alone (``Retry-After``). ``remaining`` is
    the part of its rate limit that is left, to be believed until ``resets_at``. ``last_error`` is what failed last,
    however long ago; ``last_error_at``: when that was, in seconds since the epoch, 0 where nobody noted it.
    """

    breaker: Breaker = CLOSED
    cool_until: float = 0.0
    rests_until: float = 0.0
    remaining: float = 1.0
    resets_at: float = 0.0
    last_error: str = ""
    last_error_at: float = 0.0

    def is_scarce(self, now: float) -> bool:
        """Whether what can wait should not use up its rate limit."""
        return now < self.resets_at and self.remaining < ratelimit.SCARCE_BELOW

    def against(self, now: float, host: str, *, pressing: bool, yielding: bool) -> NotAsked | None:
        """Why the endpoint, named ``host``, is not asked now; None when it may be.

        A ``pressing`` question is for a client who gets nothing without an answer; a ``yielding`` one leaves what is
        left of the rate limit to others.
        """
        last = f"; it said last: {self.last_error}" if self.last_error else ""
        if now < self.rests_until:
            left = self.rests_until - now
            return _not_asked(host, f"is left alone for another {math.ceil(left)} s, as it asked for{last}", left)
        if not self.breaker.admits(now, pressing=pressing):
            left = max(self.breaker.open_until, self.breaker.next_probe if now >= self.breaker.open_until else 0) - now
            why = f"failed {self.breaker.failures} times in a row and is asked again in {math.ceil(left)} s{last}"
            return _not_asked(host, why, left)
        if yielding and self.is_scarce(now):
            left = self.resets_at - now
            return _not_asked(
                host, f"has {self.remaining:.0%} of its rate limit left, which is kept for what is not held", left
            )
        return None


@dataclass(frozen=True, slots=True)
class EndpointState:
    """The same for people and metrics. ``…_for`` are seconds from now, 0 when over; ``rate_limit`` is a part of 1;
    ``last_error_at`` is in seconds since the epoch, None where it is not known.
    """

    host: str
    breaker: State
    opens_for: float
    rests_for: float
    cools_for: float
    rate_limit: float | None
    last_error: str
    last_error_at: float | None


def as_metrics(upstream: str, states: Iterable[EndpointState]) -> Snapshot:
    """The same as metrics."""
    healthy: dict[tuple[str, ...], tuple[float, ...]] = {}
    left: dict[tuple[str, ...], tuple[float, ...]] = {}
    for one in states:
        healthy[upstream, one.host] = (float(one.breaker is State.CLOSED and not one.rests_for),)
        if one.rate_limit is not None:
            (least,) = left.get((upstream,), (1.0,))
            left[(upstream,)] = (min(least, one.rate_limit),)
    return {UPSTREAM_HEALTHY.name: healthy, UPSTREAM_RATE_LIMIT.name: left}


class Standings:
    """How the endpoints of one upstream stand. Reading costs no system call, nor does a success after a success."""

    def __init__(
        self, upstream: str, board: Board, clock: Callable[[], float], now: Callable[[], float] = time.time
    ) -> None:
        """``clock`` is the loop's, ``now`` gives seconds since the epoch."""
        self._upstream = upstream
        self._board = board
        self._clock = clock
        self._now = now

    def of(self, host: str) -> Standing:
        """How this endpoint stands."""
        return _read(self._board.get(self._name(host)), self._clock())

    def state(self, host: str) -> EndpointState:
        """The same, as it is told."""
        now, one = self._clock(), self.of(host)
        return EndpointState(
            host,
            one.breaker.state(now),
            max(0.0, one.breaker.open_until - now) if one.breaker.rest else 0.0,
            max(0.0, one.rests_until - now),
            max(0.0, one.cool_until - now),
            one.remaining if now < one.resets_at else None,
            one.last_error,
            one.last_error_at or None,
        )

    def against(self, host: str, *, pressing: bool, yielding: bool) -> NotAsked | None:
        """Why the endpoint is not asked now; None when it may be. See `Standing.against`."""
        return self.of(host).against(self._clock(), host, pressing=pressing, yielding=yielding)

    def claim(self, host: str, *, pressing: bool, yielding: bool) -> NotAsked | None:
        """The same, as a request is sent: where it is a probe, nobody else may send one until it has reported."""
        against = self.against(host, pressing=pressing, yielding=yielding)
        if against is not None or not self.of(host).breaker.rest:
            return against

        def step(one: Standing, now: float) -> Standing:
            nonlocal against
            against = one.against(now, host, pressing=pressing, yielding=yielding)
            return one if against else replace(one, breaker=one.breaker.asked(now))

        self._change(host, step)
        return against

    def answered(self, host: str) -> None:
        """A request got an answer, if only that something is not there."""
        if self.of(host).breaker != CLOSED:
            self._change(host, lambda one, _: replace(one, breaker=CLOSED))

    def failed(self, host: str, failure: MirrorError, asked_at: float) -> None:
        """A request that was sent at ``asked_at`` found the endpoint out of order."""
        failed: dict[str, Any] = {"last_error": failure.message, "last_error_at": self._now()}
        self._change(host, lambda one, now: replace(one, breaker=one.breaker.failed(now, asked_at), **failed))

    def abandoned(self, host: str, asked_at: float) -> None:
        """A request was stopped before its answer."""
        if self.of(host).breaker.rest:
            self._change(host, lambda one, now: replace(one, breaker=one.breaker.abandoned(now, asked_at)))

    def rest(self, host: str, seconds: float, failure: MirrorError) -> None:
        """Leave it alone, as it asked for."""
        failed: dict[str, Any] = {"last_error": failure.message, "last_error_at": self._now()}
        self._change(host, lambda one, now: replace(one, rests_until=max(one.rests_until, now + seconds), **failed))

    def cool_down(self, host: str) -> None:
        """It sent wrong bytes: it is asked after all others for a while."""
        log.warning("%s: %s sent wrong bytes; for %g s it is asked after the others", self._upstream, host, COOL_FOR)
        self._change(host, lambda one, now: replace(one, cool_until=now + COOL_FOR))

    def observe(self, host: str, headers: Mapping[str, str]) -> None:
        """Note the rate limit that an answer tells, if it does."""
        limit = ratelimit.read(headers, self._now())
        if limit is not None:
            known = limit
            self._change(
                host,
                lambda one, now: replace(one, remaining=known.remaining, resets_at=now + known.holds_for),
            )

    def _change(self, host: str, step: Callable[[Standing, float], Standing]) -> None:
        now = self._clock()
        was = is_now = _FRESH

        def changed(note: Note) -> Note:
            nonlocal was, is_now
            was = _read(note, now)
            is_now = step(was, now)
            return _written(is_now)

        self._board.change(self._name(host), changed)
        if is_now.breaker.rest > was.breaker.rest:
            why = f"it failed {is_now.breaker.failures} times in a row, the last time so: {is_now.last_error}"
            words = "%s: %s is left alone for %g s; %s (wasm-mirror doctor says how to mend it)"
            log.warning(words, self._upstream, host, is_now.breaker.rest, why)
        elif was.breaker.rest and not is_now.breaker.rest:
            log.info("%s: %s answers again", self._upstream, host)

    def _name(self, host: str) -> str:
        return f"{self._upstream} {host}"


def is_outage(failure: MirrorError) -> bool:
    """Whether a failure says that the endpoint is out of order: no connection, a time-out, 5xx.

    A 429 that says for how long is no such thing; one that does not is treated as one, for nothing else would keep us
    from asking again and again.
    """
    if isinstance(failure, UpstreamTimeout):
        return True
    status = failure.detail.get("status") if isinstance(failure.detail, dict) else None
    if status == 429:
        return failure.retry_after is None
    return isinstance(failure, UpstreamUnavailable) and (status is None or status >= 500)


def _not_asked(host: str, why: str, left: float) -> NotAsked:
    return NotAsked(f"{host} {why}", detail={"endpoint": host}, retry_after=max(1.0, left))


def _written(one: Standing) -> Note:
    state = one.breaker
    numbers = (
        float(state.failures),
        state.rest,
        state.open_until,
        state.next_probe,
        one.cool_until,
        one.rests_until,
        one.remaining,
        one.resets_at,
        one.last_error_at,
    )
    return Note(numbers + (0.0,) * (NUMBERS - len(numbers)), one.last_error)


def _read(note: Note, now: float) -> Standing:
    """What was noted; nothing where a time lies so far ahead that it is of another clock."""
    failures, rest, open_until, next_probe, cool_until, rests_until, remaining, resets_at, failed_at, *_ = note.numbers
    ahead = (
        (open_until, breaker.LONGEST_REST),
        (next_probe, breaker.PROBE_WITHIN),
        (cool_until, COOL_FOR),
        (rests_until, _LONGEST_REST),
        (resets_at, ratelimit.LONGEST_BELIEF),
    )
    if (
        note == _NOTHING
        or not all(map(math.isfinite, note.numbers))
        or any(until > now + limit + 1 for until, limit in ahead)
    ):
        return _FRESH
    state = Breaker(int(failures), rest, open_until, next_probe)
    return Standing(state, cool_until, rests_until, remaining, resets_at, note.text, failed_at)


_NOTHING = Note()
_FRESH = Standing()
