"""The table of `mirror.freshness`: which record may be served, when upstream is asked, and what if asking fails."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror import freshness
from mirror.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    NameInvalid,
    NameUnknown,
    StoreError,
    UpstreamDenied,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.freshness import Freshness, Policy

NOW = 1_700_000_000.0
DAY = 86400.0
FRESH, USABLE, STALE = Freshness.FRESH, Freshness.USABLE, Freshness.STALE


@dataclass(frozen=True)
class Record:
    """All that freshness looks at."""

    fetched_at: float


def aged(seconds: float) -> Record:
    """A record that was fetched so long ago; in the future, when negative: the clock was set back."""
    return Record(NOW - seconds)


DEFAULTS = Policy()
WITH_GRACE = Policy(fresh_for=10, stale_while_revalidate=20)
ALWAYS_ASK = Policy(fresh_for=0)
OFFLINE = Policy(offline=True)


@pytest.mark.parametrize(
    ("policy", "age", "expected"),
    [
        (DEFAULTS, 0, FRESH),
        (DEFAULTS, 9.99, FRESH),
        (DEFAULTS, 10, STALE),
        (DEFAULTS, 365 * DAY, STALE),
        (WITH_GRACE, 9.99, FRESH),
        (WITH_GRACE, 10, USABLE),
        (WITH_GRACE, 29.99, USABLE),
        (WITH_GRACE, 30, STALE),
        (ALWAYS_ASK, 0, STALE),
        (Policy(fresh_for=0, stale_while_revalidate=5), 0, USABLE),
        (Policy(fresh_for=0, stale_while_revalidate=5), 5, STALE),
        (OFFLINE, 0, FRESH),
        (OFFLINE, 365 * DAY, FRESH),
        # The clock was set back: a record from the future is believed no longer than one from now would be.
        (DEFAULTS, -0.01, FRESH),
        (DEFAULTS, -10, FRESH),
        (DEFAULTS, -10.01, STALE),
        (DEFAULTS, -365 * DAY, STALE),
        (WITH_GRACE, -10.01, STALE),
        (ALWAYS_ASK, -0.01, STALE),
        (OFFLINE, -365 * DAY, FRESH),
    ],
)
def test_what_may_be_done_with_a_record(policy: Policy, age: float, expected: Freshness) -> None:
    assert freshness.of(aged(age), policy, NOW) is expected


OUTAGES: list[MirrorError] = [
    UpstreamUnavailable("refused"),
    UpstreamTimeout("slow"),
    UpstreamInvalid("HTML"),
    DigestMismatch("other bytes"),
    UpstreamError("any"),
]


@pytest.mark.parametrize("failure", OUTAGES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize(
    ("policy", "age", "expected"),
    [
        (DEFAULTS, 10, True),
        (DEFAULTS, 30 * DAY - 1, True),
        (DEFAULTS, 30 * DAY, False),
        (DEFAULTS, -365 * DAY, True),
        (Policy(stale_if_error=0), 0, False),
        (Policy(stale_if_error=60), 59.99, True),
        (Policy(stale_if_error=60), 60, False),
        (Policy(stale_if_denied=365 * DAY, keep_deleted_tags=True), 31 * DAY, False),
    ],
)
def test_a_record_stands_in_during_an_outage(policy: Policy, age: float, expected: bool, failure: MirrorError) -> None:
    assert freshness.may_stand_in(aged(age), failure, policy, NOW) is expected


@pytest.mark.parametrize(
    ("policy", "age", "expected"),
    [
        (DEFAULTS, 0, False),
        (DEFAULTS, -365 * DAY, False),
        (Policy(keep_deleted_tags=True), 0, False),
        (Policy(stale_if_denied=60), 59.99, True),
        (Policy(stale_if_denied=60), 60, False),
        (Policy(stale_if_denied=60 * DAY), 59 * DAY, True),  # its own limit, not that of outages
    ],
)
def test_a_refusal_is_not_an_outage(policy: Policy, age: float, expected: bool) -> None:
    assert freshness.may_stand_in(aged(age), UpstreamDenied("403"), policy, NOW) is expected


@pytest.mark.parametrize("failure", [ManifestUnknown("gone"), NameUnknown("gone"), BlobUnknown("gone")])
@pytest.mark.parametrize(
    ("policy", "age", "expected"),
    [
        (DEFAULTS, 0, False),
        (Policy(stale_if_denied=DAY), 0, False),
        (Policy(keep_deleted_tags=True), 0, True),
        (Policy(keep_deleted_tags=True), 365 * DAY, True),
        (Policy(keep_deleted_tags=True), -365 * DAY, True),
    ],
)
def test_a_deletion_is_not_an_outage(policy: Policy, age: float, expected: bool, failure: MirrorError) -> None:
    assert freshness.may_stand_in(aged(age), failure, policy, NOW) is expected


@pytest.mark.parametrize("failure", [StoreError("disk"), NameInvalid("A"), MirrorError("any")])
def test_a_failure_that_is_not_upstreams_is_not_hidden(failure: MirrorError) -> None:
    everything = Policy(stale_if_denied=DAY, keep_deleted_tags=True)
    assert not freshness.may_stand_in(aged(0), failure, everything, NOW)


moments = st.floats(0, 4e9)
spans = st.floats(0, 1e8)


@settings(deadline=None)
@given(moments, moments, spans, spans, spans)
def test_a_record_never_gets_fresher_while_time_goes_by(
    fetched_at: float, now: float, fresh_for: float, grace: float, later: float
) -> None:
    policy = Policy(fresh_for=fresh_for, stale_while_revalidate=grace)
    record = Record(min(fetched_at, now))
    order = [FRESH, USABLE, STALE]
    before, after = freshness.of(record, policy, now), freshness.of(record, policy, now + later)
    assert order.index(before) <= order.index(after)


@settings(deadline=None)
@given(moments, moments)
def test_an_age_is_never_negative(fetched_at: float, now: float) -> None:
    assert freshness.age(Record(fetched_at), now) == max(0.0, now - fetched_at)


@settings(deadline=None)
@given(moments, moments)
def test_without_a_grace_and_a_fresh_time_upstream_is_always_asked(fetched_at: float, now: float) -> None:
    assert freshness.of(Record(fetched_at), ALWAYS_ASK, now) is STALE
