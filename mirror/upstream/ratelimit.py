"""How much of a rate limit is left, as an answer's fields say it. Pure, and never raises.

Sources: draft-ietf-httpapi-ratelimit-headers, versions 03 (three fields), 07 (a dictionary) and 08 on (a list of named
policies); https://docs.docker.com/docker-hub/usage/pulls/ (the three fields, with the window as a parameter).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SCARCE_BELOW = 0.1
"""The part of a limit below which what can wait gives way to what cannot."""

LOOK_AGAIN_AFTER = 60.0
"""Seconds for which a limit is believed when the endpoint does not say when it is renewed: Docker Hub's slides."""

LONGEST_BELIEF = 3600.0

_PARTS = ("limit", "remaining", "reset")
_MAX_FIELD = 2048
_FIRST_NUMBER = re.compile(r"\s*(\d{1,15})\s*(?:[;,]|$)")
_PARAMETER = re.compile(r"(?:^|[;,\s])([a-z]{1,16})\s*=\s*(\d{1,15})(?![\d.])")
_NAME = re.compile(r'\s*("[^"]{0,200}"|[A-Za-z*][\w.*/:-]{0,200})\s*;')
_EPOCH = 10**9  # a number of seconds so large is a date


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``remaining`` is the part of the limit that is left, from 0 to 1, ``resets_in`` seconds, None when not told."""

    remaining: float
    resets_in: float | None

    @property
    def holds_for(self) -> float:
        """Seconds for which it is to be believed, unless something newer is heard."""
        return LOOK_AGAIN_AFTER if self.resets_in is None else min(self.resets_in, LONGEST_BELIEF)


def read(headers: Mapping[str, str], now: float) -> RateLimit | None:
    """The limit that leaves least, if the answer names any. ``now`` is in seconds since the epoch."""
    return min(_limits(headers, now), key=lambda limit: limit.remaining, default=None)


def _limits(headers: Mapping[str, str], now: float) -> Iterator[RateLimit]:
    limit, remaining, reset = (_first_number(_field(headers, f"ratelimit-{part}")) for part in _PARTS)
    yield from _limit(limit, remaining, reset, now)
    combined = _field(headers, "ratelimit")
    one = _parameters(combined)
    yield from _limit(one.get("limit"), one.get("remaining"), one.get("reset"), now)
    quotas = {name: values.get("q") for name, values in _policies(_field(headers, "ratelimit-policy"))}
    for name, values in _policies(combined):
        yield from _limit(quotas.get(name), values.get("r"), values.get("t"), now)


def _limit(limit: int | None, remaining: int | None, reset: int | None, now: float) -> Iterator[RateLimit]:
    if remaining is None or (remaining and not limit):
        return
    resets_in = None if reset is None else max(0.0, reset - now) if reset >= _EPOCH else float(reset)
    yield RateLimit(min(1.0, remaining / limit) if limit else 0.0, resets_in)


def _field(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "")[:_MAX_FIELD]


def _first_number(text: str) -> int | None:
    found = _FIRST_NUMBER.match(text)
    return int(found[1]) if found else None


def _parameters(text: str) -> dict[str, int]:
    return {found[1]: int(found[2]) for found in _PARAMETER.finditer(text.lower())}


def _policies(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    for item in text.split(","):
        if found := _NAME.match(item):
            yield found[1], _parameters(item[found.end() - 1 :])
