"""How an endpoint stands, as it lies on the board."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import (
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    UpstreamCutShort,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.store.board import NUMBERS, Board, Note
from mirror.upstream.breaker import State
from mirror.upstream.standing import COOL_FOR, Standing, Standings, as_metrics, is_outage
from tests.upstream.support import Clock

FAILURE = UpstreamUnavailable("a.example refuses connections")


def with_status(status: int, *, retry_after: float | None = None) -> UpstreamUnavailable:
    return UpstreamUnavailable("it answers", detail={"endpoint": "a", "status": status}, retry_after=retry_after)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (FAILURE, True),
        (UpstreamTimeout("slow"), True),
        (UpstreamCutShort("cut", received=3), True),
        (with_status(500), True),
        (with_status(503, retry_after=5), True),
        (with_status(429), True),
        (with_status(429, retry_after=5), False),
        (with_status(408), False),
        (with_status(403), False),
        (UpstreamDenied("no"), False),
        (UpstreamInvalid("what?"), False),
        (DigestMismatch("wrong"), False),
        (ManifestUnknown("none"), False),
    ],
)
def test_what_says_that_an_endpoint_is_out_of_order(failure: MirrorError, expected: bool) -> None:
    assert is_outage(failure) == expected


def test_upstreams_with_the_same_endpoint_stand_apart() -> None:
    board, clock = Board(), Clock()
    one, other = (Standings(name, board, clock) for name in ("one", "other"))
    one.cool_down("a.example")
    assert one.state("a.example").cools_for == COOL_FOR
    assert other.state("a.example").cools_for == 0


def test_what_is_told_passes_with_time() -> None:
    clock = Clock()
    standings = Standings("corp", Board(), clock)
    standings.observe("a", {"ratelimit": "limit=10, remaining=3, reset=40"})
    standings.cool_down("a")
    standings.rest("a", 20, FAILURE)
    for _ in range(5):
        standings.failed("a", FAILURE, clock.now)
    state = standings.state("a")
    assert (state.breaker, state.opens_for, state.rests_for, state.cools_for) == (State.OPEN, 10, 20, COOL_FOR)
    assert (state.rate_limit, state.last_error) == (0.3, FAILURE.message)
    clock.now += COOL_FOR
    state = standings.state("a")
    assert (state.breaker, state.opens_for, state.rests_for, state.cools_for) == (State.HALF_OPEN, 0, 0, 0)
    assert (state.rate_limit, state.last_error) == (None, FAILURE.message)


@pytest.mark.parametrize("fails", ["failed", "rest"])
def test_what_failed_last_is_told_with_its_time_to_all_workers(tmp_path: Path, fails: str) -> None:
    day = 1_700_000_000.0
    boards = [Board(tmp_path / "board") for _ in range(2)]
    one, other = (Standings("corp", board, Clock(), lambda: day) for board in boards)
    assert one.state("a").last_error_at is None
    if fails == "failed":
        one.failed("a", FAILURE, 0.0)
    else:
        one.rest("a", 20, FAILURE)
    assert (other.state("a").last_error, other.state("a").last_error_at) == (FAILURE.message, day)
    day += 100
    other.answered("a")
    assert one.state("a").last_error_at == day - 100
    one.failed("a", FAILURE, 0.0)
    assert other.state("a").last_error_at == day
    for board in boards:
        board.close()


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    clock = Clock()
    standings = Standings("corp", Board(), clock)
    standings.rest("a", 20, FAILURE)
    standings.rest("a", 1, FAILURE)
    assert standings.state("a").rests_for == 20


def test_a_success_writes_nothing_where_nothing_was_wrong() -> None:
    class Silent(Board):
        def change(self, *_: object) -> Note:
            raise AssertionError("it writes")

    standings = Standings("corp", Silent(), Clock())
    assert standings.claim("a", pressing=True, yielding=True) is None
    standings.answered("a")
    standings.abandoned("a", 999.0)
    standings.observe("a", {"content-type": "text/plain"})


def test_of_two_workers_that_would_send_a_probe_at_once_one_does() -> None:
    class Contended(Board):
        """Where, while one looks, the other acts."""

        def change(self, name: str, step: Callable[[Note], Note]) -> Note:
            if acts:
                assert acts.pop().claim("a", pressing=False, yielding=True) is None
            return super().change(name, step)

    board, clock, acts = Contended(), Clock(), list[Standings]()
    one, other = (Standings("corp", board, clock) for _ in range(2))
    for _ in range(5):
        one.failed("a", FAILURE, clock.now)
    clock.now += 10
    acts.append(other)
    refusal = one.claim("a", pressing=False, yielding=True)
    assert refusal is not None
    assert "a failed 5 times in a row" in refusal.message


_numbers = st.one_of(st.sampled_from([0.0, -1.0, 1.0, 5.0, 999.0, 1001.0, 1e6, math.nan, math.inf]), st.floats())


@given(st.lists(_numbers, min_size=NUMBERS, max_size=NUMBERS), st.text(max_size=20))
def test_numbers_of_another_clock_are_no_reason_to_leave_an_endpoint_alone_for_long(
    numbers: list[float], text: str
) -> None:
    board, clock = Board(), Clock()
    standings = Standings("corp", board, clock)
    board.change("corp a", lambda _: Note(tuple(numbers), text))
    standing = standings.of("a")
    assert isinstance(standing, Standing)
    clock.now += 86400 + 10
    assert standings.against("a", pressing=False, yielding=True) is None
    assert dataclasses.astuple(standings.state("a"))


def test_who_is_left_alone_is_not_healthy_and_of_rate_limits_the_least_counts() -> None:
    board, clock = Board(), Clock()
    one = Standings("up", board, clock)
    hosts = "broken.example", "resting.example", "well.example"

    def told() -> tuple[dict[str, float], list[float]]:
        found = as_metrics("up", map(one.state, hosts))
        healthy = {host: value for (_, host), (value,) in found["upstream_healthy"].items()}
        return healthy, [round(left, 3) for (left,) in found["upstream_ratelimit_remaining"].values()]

    assert told() == (dict.fromkeys(hosts, 1.0), [])
    for _ in range(5):
        one.failed("broken.example", FAILURE, clock())
    one.rest("resting.example", 20.0, FAILURE)
    one.observe("resting.example", {"ratelimit-limit": "100", "ratelimit-remaining": "3", "ratelimit-reset": "30"})
    one.observe("well.example", {"ratelimit-limit": "100", "ratelimit-remaining": "60", "ratelimit-reset": "30"})
    assert told() == ({"broken.example": 0.0, "resting.example": 0.0, "well.example": 1.0}, [0.03])
    clock.now += 31
    assert told() == ({"broken.example": 0.0, "resting.example": 1.0, "well.example": 1.0}, [])
    one.answered("broken.example")
    assert told()[0] == dict.fromkeys(hosts, 1.0)
