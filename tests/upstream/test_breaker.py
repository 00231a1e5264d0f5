"""The breaker, in any order of events."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.breaker import (
    CLOSED,
    FIRST_REST,
    LONGEST_REST,
    OPENS_AFTER,
    PRESSING_EVERY,
    PROBE_WITHIN,
    Breaker,
    State,
)

NOW = 1000.0


def failing(times: int, now: float = NOW) -> Breaker:
    """After so many failures at once."""
    breaker = CLOSED
    for _ in range(times):
        breaker = breaker.failed(now, now)
    return breaker


OPEN = failing(OPENS_AFTER)
HALF_OPEN_AT = NOW + FIRST_REST


def test_it_opens_after_five_failures_in_a_row_for_ten_seconds() -> None:
    assert OPENS_AFTER == 5
    assert [failing(times).state(NOW) for times in range(6)] == [State.CLOSED] * 5 + [State.OPEN]
    assert OPEN.state(NOW + 9.999) is State.OPEN
    assert OPEN.state(NOW + 10) is State.HALF_OPEN


@pytest.mark.parametrize(
    ("breaker", "at", "admits", "admits_pressing"),
    [
        (CLOSED, NOW, True, True),
        (failing(4), NOW, True, True),
        (OPEN, NOW, False, False),
        (OPEN, NOW + PRESSING_EVERY, False, True),
        (OPEN, HALF_OPEN_AT - 0.001, False, True),
        (OPEN, HALF_OPEN_AT, True, True),
        (OPEN.asked(NOW + 2), HALF_OPEN_AT, False, False),
        (OPEN.asked(NOW + 2).failed(NOW + 3, NOW + 2), NOW + 3, False, False),
        (OPEN.asked(NOW + 2).failed(NOW + 3, NOW + 2), NOW + 3 + PRESSING_EVERY, False, True),
        (OPEN.asked(NOW + 2).failed(NOW + 3, NOW + 2), HALF_OPEN_AT, True, True),
        (OPEN.asked(NOW + 2).abandoned(NOW + 3, NOW + 2), NOW + 3, False, True),
        (OPEN.asked(HALF_OPEN_AT), HALF_OPEN_AT, False, False),
        (OPEN.asked(HALF_OPEN_AT), HALF_OPEN_AT + PROBE_WITHIN, True, True),
        (OPEN.asked(HALF_OPEN_AT).abandoned(HALF_OPEN_AT + 1, HALF_OPEN_AT), HALF_OPEN_AT + 1, True, True),
        (OPEN.asked(HALF_OPEN_AT).failed(HALF_OPEN_AT + 1, HALF_OPEN_AT), HALF_OPEN_AT + 1, False, False),
        (OPEN.asked(HALF_OPEN_AT).failed(HALF_OPEN_AT + 1, HALF_OPEN_AT), HALF_OPEN_AT + 20.9, False, True),
        (OPEN.asked(HALF_OPEN_AT).failed(HALF_OPEN_AT + 1, HALF_OPEN_AT), HALF_OPEN_AT + 21, True, True),
    ],
)
def test_who_is_let_through(breaker: Breaker, at: float, admits: bool, admits_pressing: bool) -> None:
    assert (breaker.admits(at), breaker.admits(at, pressing=True)) == (admits, admits_pressing)


def test_each_probe_that_fails_doubles_the_time_up_to_five_minutes() -> None:
    breaker, now, rests = OPEN, NOW, []
    for _ in range(8):
        rests.append(breaker.open_until - now)
        now = breaker.open_until
        breaker = breaker.asked(now).failed(now, now)
    assert rests == [10, 20, 40, 80, 160, 300, 300, 300]
    assert LONGEST_REST == 300


def test_what_was_asked_before_it_opened_says_nothing_new() -> None:
    assert OPEN.failed(NOW + 5, NOW - 1) == OPEN
    assert OPEN.failed(HALF_OPEN_AT + 5, NOW - 1) == OPEN
    assert OPEN.abandoned(NOW + 5, NOW - 1) == OPEN


def test_an_early_probe_that_fails_makes_no_rest_longer() -> None:
    after = OPEN.asked(NOW + 2).failed(NOW + 3, NOW + 2)
    assert (after.rest, after.open_until) == (OPEN.rest, OPEN.open_until)


EVENTS: dict[str, Callable[[Breaker, float, float], Breaker]] = {
    "asked": lambda breaker, now, asked_at: breaker.asked(now) if breaker.admits(now) else breaker,
    "pressing": lambda breaker, now, asked_at: breaker.asked(now) if breaker.admits(now, pressing=True) else breaker,
    "failed": Breaker.failed,
    "abandoned": Breaker.abandoned,
    "answered": lambda breaker, now, asked_at: CLOSED,
}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0, 100), st.floats(0, 100))),
)
def test_whatever_happens_it_lets_a_request_through_again_in_time(events: list[tuple[str, float, float]]) -> None:
    breaker, now = CLOSED, NOW
    for event, passed, ago in events:
        now += passed
        before = breaker
        breaker = EVENTS[event](breaker, now, now - ago)
        assert breaker.rest == 0 or FIRST_REST <= breaker.rest <= LONGEST_REST
        if before.state(now) is not State.CLOSED and breaker.state(now) is State.CLOSED:
            assert event == "answered", "time alone does not close it"
        if breaker.state(now) is State.OPEN:
            assert breaker.failures >= OPENS_AFTER
            assert not breaker.admits(now)
        assert breaker.admits(now + LONGEST_REST + PROBE_WITHIN)
        assert breaker.admits(now + PROBE_WITHIN, pressing=True)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60))
def test_while_nothing_is_reported_one_probe_at_a_time_goes_through(asks: list[tuple[bool, float]]) -> None:
    breaker, now, sent = OPEN, NOW, []
    for pressing, passed in asks:
        now += passed
        if breaker.admits(now, pressing=pressing):
            breaker = breaker.asked(now)
            sent.append(now)
    assert all(later - earlier >= PROBE_WITHIN for earlier, later in itertools.pairwise(sent))
