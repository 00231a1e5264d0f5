"""``GET /metrics``, and the account that is kept of each request."""

import time
from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

from mirror.edge.respond import send_error
from mirror.errors import NotFound, Unsupported
from mirror.exposition import CONTENT_TYPE, Exposition
from mirror.metrics import Metrics

ROOT = "/metrics"

OPERATION = "mirror.operation"
"""A key of a scope: what is asked for, a word out of a few. Who answers the request sets it."""

UPSTREAM = "mirror.upstream"
"""A key of a scope: of which upstream of the settings the request is."""

_OPERATIONS: Mapping[str, str] = {
    "/modules/": "modules",
    "/api/": "api",
    "/peer/": "peer",
    "/healthz": "health",
    "/readyz": "health",
    ROOT: "metrics",
}
"""What is asked for under these paths, where nobody says it more exactly."""

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
        if self._bytes and (upstream := scope.get(UPSTREAM)) is not None:
            metrics.sent_bytes[(upstream,)] += self._bytes


def _operation(path: str) -> str:
    return next((operation for beginning, operation in _OPERATIONS.items() if path.startswith(beginning)), "other")


class MetricsApp:
    """An ASGI application for `ROOT`."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] != ROOT:
            await send_error(send, scope["method"], NotFound(f"there is nothing at this address; see {ROOT}"))
            return
        if scope["method"] not in ("GET", "HEAD"):
            await send_error(send, scope["method"], Unsupported("metrics are read, by GET"))
            return
        body = await self._exposition.text()
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
