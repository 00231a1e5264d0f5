"""The account that is kept of each request, and what it adds to the metrics when the answer has ended."""

import time
from collections.abc import Mapping

from starlette.types import Message, Scope

from mirror.errors import AbsenceRemembered, MirrorError, NameUnknown, RequestError
from mirror.metrics import Metrics

# Keys of a scope, for who answers the request to set.
OPERATION = "mirror.operation"
"""What is asked for: a word out of a few."""
UPSTREAM = "mirror.upstream"
"""The upstream of the settings that the request is about."""
LOOKUP = "mirror.lookup"
"""How content was found: `mirror.answer.Outcome.lookup`, or `of_failure`."""

_OPERATIONS: Mapping[str, str] = {
    "/modules/": "modules",
    "/api/": "api",
    "/peer/": "peer",
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "metrics",
}
"""What is asked for under these paths, where nobody says it more exactly."""

_LOOKUPS = frozenset({"manifests", "blobs", "modules"})
_CUT = "cut"
_NONE = "none"


class Account:
    """One request, from its header to the end of its answer."""

    __slots__ = ("_began", "_bytes", "_scope", "status")

    def __init__(self, scope: Scope) -> None:
        self.status: int | None = None
        self._scope = scope
        self._began = time.perf_counter()
        self._bytes = 0

    def saw(self, message: Message) -> None:
        """A message of the answer goes out."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self._bytes += len(message.get("body", b""))

    def close(self, metrics: Metrics, *, finished: bool) -> None:
        """The answer has ended, and is all that it was to be if it is ``finished``."""
        scope = self._scope
        operation = scope.get(OPERATION) or _operation(scope["path"])
        status = _NONE if self.status is None else self.status if finished else _CUT
        metrics.requests[operation, status] += 1
        metrics.request_durations.observe((operation,), time.perf_counter() - self._began)
        upstream = scope.get(UPSTREAM)
        if upstream is not None:
            metrics.sent_bytes[(upstream,)] += self._bytes
            lookup = scope.get(LOOKUP)
            if lookup is not None and operation in _LOOKUPS:
                metrics.lookups[upstream, lookup] += 1


def of_failure(failure: MirrorError) -> str | None:
    """What a lookup that failed counts as; None: it was none."""
    if isinstance(failure, AbsenceRemembered):
        return "negative"
    return None if isinstance(failure, NameUnknown | RequestError) else "miss"


def _operation(path: str) -> str:
    return next((operation for beginning, operation in _OPERATIONS.items() if path.startswith(beginning)), "other")
