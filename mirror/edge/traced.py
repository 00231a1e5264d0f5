"""The span of each request: in front of the application, where traces are sent at all."""

from collections.abc import Awaitable, Mapping
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.edge.account import LOOKUP, OPERATION, UPSTREAM
from mirror.tracing import CARRIERS, Attributes, Span, inside

_TRACED = ("/v2", "/modules/", "/peer/", "/api/")
"""Where requests are traced; probes and scrapes are not."""

_OF_REPLICAS = "/peer/"
"""Where other replicas ask. What they ask for nobody's request, many times a second, begins no trace."""

_SHOWN = frozenset({"manifests", "blobs", "tags", "referrers", "modules"})
"""The operations whose path is told. That of an upload is a secret of whoever has begun it."""


_CARRIERS = frozenset(name.encode() for name in CARRIERS)


class Traces(Protocol):
    """Who begins traces: `mirror.telemetry.Telemetry`."""

    def begin(self, name: str, attributes: Attributes, headers: Mapping[str, str]) -> Span:
        """The span of a request, in the trace that its ``headers`` name, if they do so rightly."""
        ...


class TracedApp:
    """The application, with a span around each of its answers."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        carriers = _carriers(scope) if scope["type"] == "http" and scope["path"].startswith(_TRACED) else None
        if carriers is None or ("traceparent" not in carriers and scope["path"].startswith(_OF_REPLICAS)):
            await self._app(scope, receive, send)
            return
        status, whole = 0, False

        def watched(message: Message) -> Awaitable[None]:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                whole = not message.get("more_body", False)
            return send(message)

        method = scope["method"]
        span = self._traces.begin(method, {"http.request.method": method}, carriers)
        with inside(span):
            try:
                await self._app(scope, receive, watched)
            finally:
                said = _known(scope, status)
                span.name(f"{method} {said['wasm_mirror.operation']}")
                span.say(said)
                if status >= 500:
                    span.fail(str(status))
                elif not whole:
                    span.fail("cut", "the answer could not be finished" if status else "there was no answer")


def _carriers(scope: Scope) -> dict[str, str]:
    """What the client says of its trace. A field that comes twice is one of two values, and as a traceparent none."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in _CARRIERS:
            text, before = value.decode("latin-1"), found.get(name.decode())
            found[name.decode()] = text if before is None else f"{before},{text}"
    return found


def _known(scope: Scope, status: int) -> Attributes:
    """What is known of a request once it is answered. Neither its headers nor its query: both may hold secrets."""
    said: dict[str, str | int | bool] = {}
    if status:
        said["http.response.status_code"] = status
    operation = scope.get(OPERATION) or scope["path"].split("/", 2)[1]
    said["wasm_mirror.operation"] = operation
    for key, name in ((UPSTREAM, "wasm_mirror.upstream"), (LOOKUP, "wasm_mirror.lookup")):
        if (value := scope.get(key)) is not None:
            said[name] = value
    if operation in _SHOWN:
        said["url.path"] = scope["path"]
    return said
