"""Who kept clients waiting lately, an upstream or a tag's new version, so that nobody waits who need not."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

_SUSPECT_FOR = 30.0
"""Seconds after a time-out during which held content is served without waiting for upstream's word. More than a
question takes to fail (`mirror.resolve`), so that a question asked meanwhile, and in vain, prolongs it in time.
"""


class Suspicion:
    """A time-out is paid for once: until there is an answer again, held tags are served at once, and asked about behind
    the clients' backs. What is refused, or answered with an error, is so quickly: it is not suspected. Names are those
    of upstreams and of references. ``clock`` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def rests_on(self, name: str) -> bool:
        """Whether it took too long lately and has not come since."""
        return self._clock() < self._until.get(name, 0.0)

    def failed(self, name: str) -> None:
        """It did not come in time."""
        if not self.rests_on(name):
            log.warning("%s keeps clients waiting; what is held is served without waiting for it", name)
        now = self._clock()
        self._until = {known: until for known, until in self._until.items() if now < until}
        self._until[name] = now + _SUSPECT_FOR

    def answered(self, name: str) -> None:
        """It came."""
        if self._until.pop(name, None) is not None:
            log.info("%s keeps nobody waiting any more", name)
