"""``GET /metrics``, for Prometheus."""

from starlette.types import Receive, Scope, Send

from mirror.edge.headers import encode
from mirror.edge.respond import send_error
from mirror.errors import NotFound, Unsupported
from mirror.exposition import CONTENT_TYPE, Exposition

ROOT = "/metrics"


class MetricsApp:
    """An ASGI application for `ROOT`."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope["method"]
        if scope["path"] != ROOT:
            await send_error(send, method, NotFound(f"there is nothing at this address; metrics are at {ROOT}"))
        elif method not in ("GET", "HEAD"):
            await send_error(send, method, Unsupported("metrics are read, by GET"))
        else:
            body = await self._exposition.text()
            told = [("content-type", CONTENT_TYPE), ("content-length", str(len(body)))]
            headers = encode([*told, ("x-content-type-options", "nosniff")])
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
