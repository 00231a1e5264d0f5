"""The account that is kept of each request, and what it adds to the metrics when the answer has ended; and who asked
for which manifest.
"""

from collections.abc import Callable, Mapping
from time import perf_counter

from starlette.types import Scope

from mirror.askers import Askers
from mirror.digest import Digest
from mirror.errors import AbsenceRemembered, MirrorError, ModuleUnknown, NameUnknown, RequestError
from mirror.metrics import SORTED_AT_ONCE, Metrics

# Keys of a scope, for who answers the request to set.
OPERATION = "mirror.operation"
"""What is asked for: a word out of a few."""
UPSTREAM = "mirror.upstream"
"""The upstream of the settings that the request is about."""
LOOKUP = "mirror.lookup"
"""How content was found: `mirror.answer.Outcome.lookup`, or `of_failure`."""

Given = Callable[[Digest, Scope, str, float], None]
"""Is told that a manifest is given out: for which request, to which principal, when (seconds since the epoch)."""

_OPERATIONS: Mapping[str, str] = {
    "/modules/": "modules",
    "/api/": "api",
    "/peer/": "peer",
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "metrics",
}
"""What is asked for under these paths, where nobody says it more exactly."""

NOBODY = "-"
"""The address of a client that has none: it came by a Unix socket."""

_CUT = "cut"
_NONE = "none"


def settle(metrics: Metrics, scope: Scope, began: float, status: int, sent: int, finished: bool) -> None:
    """An answer has ended that ``began`` (`time.perf_counter`), with ``sent`` bytes of body, and maybe too early.

    ``status`` is 0 when there was none.
    """
    of, answers = scope.get, metrics.answers
    told = (status or _NONE) if finished or not status else _CUT
    operation = of(OPERATION) or _operation(scope["path"])
    answers.noted.append((operation, told, of(UPSTREAM), of(LOOKUP), perf_counter() - began, sent))
    if len(answers.noted) >= SORTED_AT_ONCE:
        answers.sort()


def given_to(askers: Askers) -> Given:
    """Have it known who asks for manifests, by the address that the access log has."""

    def given(digest: Digest, scope: Scope, principal: str, now: float) -> None:
        client = scope.get("client")
        askers.asked(digest, client[0] if client else NOBODY, scope["headers"], principal, now)

    return given


def of_failure(failure: MirrorError) -> str | None:
    """What a lookup that failed counts as; None: it was none."""
    if isinstance(failure, AbsenceRemembered):
        return "negative"
    return None if isinstance(failure, NameUnknown | ModuleUnknown | RequestError) else "miss"


def _operation(path: str) -> str:
    return next((operation for beginning, operation in _OPERATIONS.items() if path.startswith(beginning)), "other")
