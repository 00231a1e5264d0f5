"""When to try again: full-jitter exponential back-off, and what ``Retry-After`` asks for. Pure.

Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from collections.abc import Callable

_BASE = 0.1
_CAP = 3.0


class Backoff:
    """The pauses of one operation, in seconds. ``random`` gives numbers from 0 to 1."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._limit = _BASE

    def pause(self) -> float:
        """How long to wait before the next round; a different number for each who waits, so that no herd forms."""
        limit, self._limit = self._limit, min(_CAP, self._limit * 2)
        return self._random() * limit
