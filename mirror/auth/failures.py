"""Failed logins, in the log: who it was said to be, and from where. Never a password, and never a flood of lines."""

import logging
from collections.abc import Callable
from typing import Final

from mirror.config.values import shown
from mirror.tags import Lru

log = logging.getLogger(__name__)

ONCE_IN: Final = 60.0
"""Seconds in which one user gets one line."""

_MOST = 30
"""Lines of all users together in that time: names cost who guesses nothing."""

_REMEMBERED = 1000


class FailedLogins:
    """Says it. ``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told_at: Lru[str, float] = Lru(_REMEMBERED)
        self._since = clock()
        self._lines = 0

    def note(self, user: str, address: str, where: str) -> None:
        """A login as ``user`` has failed, from ``address``; ``where`` is who refused it."""
        name = shown(user)
        if self._may_tell(name):
            log.warning("a login as %s from %s has failed: refused by %s", name, address, where)

    def note_token(self, address: str) -> None:
        """Somebody at ``address`` has shown the admin API something else than its token."""
        if self._may_tell(address):
            log.warning("a request from %s to the admin API was refused: it does not bring the token", address)

    def _may_tell(self, name: str) -> bool:
        now = self._clock()
        if now - self._since >= ONCE_IN:
            self._since, self._lines = now, 0
        told_at = self._told_at.get(name)
        if (told_at is not None and now - told_at < ONCE_IN) or self._lines > _MOST:
            return False
        self._told_at.put(name, now)
        self._lines += 1
        if self._lines > _MOST:
            log.warning("logins fail as so many users that no more are named for up to %g s", ONCE_IN)
        return self._lines <= _MOST
