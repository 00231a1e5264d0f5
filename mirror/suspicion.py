"""Which upstreams have not answered lately, so that nobody waits for them who need not."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

_SUSPECT_FOR = 30.0
"""Seconds after a time-out during which held content is served without waiting for upstream's word. More than a
question takes to fail (`mirror.resolve`), so that a question asked meanwhile, and in vain, prolongs it in time.
"""


class Suspicion:
    """A time-out of an upstream is paid for once: until it answers again, held tags are served at once, and asked about
    behind the clients' backs. An upstream that refuses, or answers with an error, does so quickly: it is not suspected.
    ``clock`` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def rests_on(self, upstream: str) -> bool:
        """Whether the upstream took too long lately and has not answered since."""
        return self._clock() < self._until.get(upstream, 0.0)

    def failed(self, upstream: str) -> None:
        """It did not answer in time."""
        if not self.rests_on(upstream):
            log.warning("%s does not answer; what is held is served without waiting for it", upstream)
        self._until[upstream] = self._clock() + _SUSPECT_FOR

    def answered(self, upstream: str) -> None:
        """It answered."""
        if self._until.pop(upstream, None) is not None:
            log.info("%s answers again", upstream)
