"""Which upstreams have not answered lately, so that nobody waits for them who need not."""

from collections.abc import Callable

_SUSPECT_FOR = 30.0
"""Seconds after a failure during which held content is served without waiting for upstream's word. More than a
question takes to fail (`mirror.resolve`), so that a question asked meanwhile, and in vain, prolongs it in time.
"""


class Suspicion:
    """A failure of an upstream is paid for once: until it answers again, held tags are served at once, and asked about
    behind the clients' backs. ``clock`` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def rests_on(self, upstream: str) -> bool:
        """Whether the upstream failed lately and has not answered since."""
        return self._clock() < self._until.get(upstream, 0.0)

    def failed(self, upstream: str) -> None:
        """It failed, or did not answer in time."""
        self._until[upstream] = self._clock() + _SUSPECT_FOR

    def answered(self, upstream: str) -> None:
        """It answered."""
        self._until.pop(upstream, None)
