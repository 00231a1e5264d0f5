"""A login that somebody else gives out, kept and renewed.

Credential helpers do not say for how long what they say is good: so they are asked again now and then, and when the
registry refuses it.
"""

import asyncio
import binascii
import json
import logging
import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mirror.errors import UpstreamUnavailable
from mirror.flight import Flights
from mirror.upstream.tokens import Login

log = logging.getLogger(__name__)

KEPT_FOR = 300.0
"""Seconds after which a login that does not say when it ends is renewed."""

REFUSED_AFTER = 30.0
"""Seconds for which a login that was just got and is refused is not asked for again."""

_KEPT_AT_MOST = 43200.0
_LEAVE_ALONE = 5.0
"""Seconds after a failure in which nobody asks; longer after one that took long."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a helper said at ``asked_at``; to be renewed from ``renew_at`` on, and of no use from ``ends_at`` on."""

    login: Login | None
    asked_at: float
    renew_at: float
    ends_at: float


class KeptLogin:
    """What ``ask`` says, asked once for all who need it, and kept for as long as it is likely to hold.

    When it is time to renew it, that happens behind everybody's back. While ``ask`` fails what is known stays in force,
    and it is left alone for the longer the longer it took to fail: one that hangs does not cost each request its time.
    ``clock`` and ``wall`` (the time of day) give seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Login | None]],
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._wall = wall
        self._known: _Answer | None = None
        self._failure: UpstreamUnavailable | None = None
        self._again_at = float("-inf")
        self._asking: Flights[Login | None] = Flights()

    async def login(self) -> Login | None:
        """The login, None for anonymous access; raises `UpstreamUnavailable`."""
        known, now = self._known, self._clock()
        if known is None or now >= known.ends_at:
            return await self._renew()
        if now >= known.renew_at and now >= self._again_at:
            self._asking.join("login", self._renewed)
        return known.login

    async def instead_of(self, refused: Login | None) -> Login | None:
        """Another login than one that was refused, None if there is none.

        Raises `UpstreamUnavailable` when what was refused was due to be renewed, and cannot be: then the refusal says
        nothing of who we are.
        """
        known = self._known
        if known is None or known.login != refused:
            return await self.login()
        if self._clock() < known.asked_at + REFUSED_AFTER:
            return None
        try:
            fresh = await self._renew()
        except UpstreamUnavailable:
            if self._clock() >= known.renew_at:
                raise
            return None
        return None if fresh == refused else fresh

    async def aclose(self) -> None:
        """Stop asking."""
        await self._asking.aclose()

    async def _renew(self) -> Login | None:
        if self._failure is not None and self._clock() < self._again_at:
            raise UpstreamUnavailable(self._failure.message)
        task, _ = self._asking.join("login", self._renewed)
        return await asyncio.shield(task)

    async def _renewed(self) -> Login | None:
        began = self._clock()
        try:
            login = await self._ask()
        except UpstreamUnavailable as failure:
            if self._failure is None or self._failure.message != failure.message:
                log.error("%s", failure)
            now = self._clock()
            self._failure, self._again_at = failure, now + max(_LEAVE_ALONE, 3 * (now - began))
            raise
        now = self._clock()
        left = None if login is None else _time_left(login.secret.get_secret_value(), self._wall())
        if left is None:
            renew_at, ends_at = now + KEPT_FOR, float("inf")
        else:
            renew_at, ends_at = now + min(left - min(60.0, left / 10), _KEPT_AT_MOST), now + left
        self._known, self._failure = _Answer(login, now, renew_at, ends_at), None
        return login


def _time_left(secret: str, now: float) -> float | None:
    """Seconds until a secret expires that is a JWT and says so (RFC 7519, section 4.1.4); None for all others."""
    parts = secret.split(".")
    if len(parts) != 3:
        return None
    try:
        expires = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))["exp"]
        left = float(expires) - now
    except (binascii.Error, ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None
    return left if 0 < left < float("inf") else None
