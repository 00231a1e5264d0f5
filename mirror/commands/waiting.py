"""A mirror that is not up yet: it is asked again until it answers."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from mirror.errors import CommandError, MirrorRefused, MirrorUnreachable

T = TypeVar("T")

_PAUSES: Final = (0.2, 0.5, 1.0, 2.0)
_NOT_YET: Final = (502, 503, 504)
"""What a mirror that is about to begin or to stop answers, and what stands before it when nobody is behind it."""


def until_up(
    ask: Callable[[], T],
    within: float,
    note: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """What ``ask`` gives, asked again for up to ``within`` seconds while no mirror answers; blocks.

    ``note`` hears once that it is waited, and for what. Raises the `CommandError` that `ask` raises at last, or at once
    where waiting changes nothing: a certificate that is not trusted, a token that is wrong.
    """
    deadline = clock() + within
    tries = 0
    while True:
        try:
            return ask()
        except MirrorUnreachable as error:
            failed: CommandError = error
        except MirrorRefused as error:
            if error.answered not in _NOT_YET:
                raise
            failed = error
        left = deadline - clock()
        if left <= 0:
            raise failed
        if not tries:
            note(f"{failed.message}; it is asked again, for up to {within:g} s")
        pause(min(left, _PAUSES[min(tries, len(_PAUSES) - 1)]))
        tries += 1
