"""May a tag's record be served, must upstream be asked, and may the record stand in when asking fails?

Pure: the clock is an argument. All ages and limits are in seconds.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from mirror.errors import MirrorError, NotFound, UpstreamDenied, UpstreamError


@dataclass(frozen=True, slots=True)
class Policy:
    """For how long what is known of an upstream's tags may be believed."""

    fresh_for: float = 10.0
    stale_while_revalidate: float = 0.0
    revalidate_for: float = 1.0
    stale_if_error: float = 30 * 86400.0
    stale_if_denied: float = 0.0
    negative_for: float = 10.0
    hold_for: float = 25.0
    keep_deleted_tags: bool = False
    offline: bool = False


class Dated(Protocol):
    """Anything that upstream has confirmed at a moment (seconds since the epoch)."""

    @property
    def fetched_at(self) -> float: ...


class Freshness(Enum):
    """What may be done with a record."""

    FRESH = auto()
    """Serve it; upstream is not asked."""
    USABLE = auto()
    """Serve it, and ask upstream behind the client's back."""
    STALE = auto()
    """Ask upstream first."""


def age(record: Dated, now: float) -> float:
    """Seconds since upstream confirmed the record; never negative, even when the clock was set back."""
    return max(0.0, now - record.fetched_at)


def of(record: Dated, policy: Policy, now: float) -> Freshness:
    """What may be done with ``record`` at ``now``."""
    if policy.offline:
        return Freshness.FRESH
    if record.fetched_at > now + policy.fresh_for:  # the clock was set back: its word on this record is worth nothing
        return Freshness.STALE
    old = age(record, now)
    if old < policy.fresh_for:
        return Freshness.FRESH
    if old < policy.fresh_for + policy.stale_while_revalidate:
        return Freshness.USABLE
    return Freshness.STALE


def may_stand_in(record: Dated, failure: MirrorError, policy: Policy, now: float, *, kept: bool = False) -> bool:
    """Whether ``record`` may be served although asking upstream ended in ``failure``. One that is ``kept``, for it is
    pinned or was imported, stands in for an outage however old it is.

    A refusal of the mirror's credentials and a deletion upstream are answers, not outages: each has its own setting.
    """
    old = age(record, now)
    match failure:
        case UpstreamDenied():
            return old < policy.stale_if_denied
        case NotFound():
            return policy.keep_deleted_tags
        case UpstreamError():
            return kept or old < policy.stale_if_error
        case _:
            return False
