"""A collector of traces: an OTLP receiver over HTTP, on loopback.

::

    with Collector() as collector:
        …                                        # a mirror with tracing.endpoint collector.url
        spans = collector.spans()
"""

import contextlib
import gzip
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

_KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class Received:
    """A span as it came. Ids are in hex; ``parent`` is empty for the first span of a trace."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    attributes: Mapping[str, str | int | bool]
    links: tuple[str, ...]
    failed: bool
    message: str
    resource: Mapping[str, str | int | bool]


class Collector:
    """The receiver. ``holding``: it takes requests, and answers nothing; ``held``: it has done so."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.holding = threading.Event()
        self.held = threading.Event()
        self._let_go = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take a batch in."""
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.holding.is_set():
                    collector.held.set()
                    collector._let_go.wait(60)
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.append(self.path)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.bodies.append(body)
                with contextlib.suppress(ConnectionError):  # who was kept waiting may have left
                    self.send_response(200)
                    self.send_header("content-type", "application/x-protobuf")
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="collector")

    def spans(self) -> list[Received]:
        """All that have come."""
        return [span for body in list(self.bodies) for span in _parsed(body)]

    def let_go(self) -> None:
        """Answer those who were kept waiting, and all others."""
        self.holding.clear()
        self._let_go.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.let_go()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _parsed(body: bytes) -> Iterator[Received]:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    for resource in request.resource_spans:
        of = _attributes(resource.resource.attributes)
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield Received(
                span.name,
                _KINDS[span.kind],
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.trace_state,
                _attributes(span.attributes),
                tuple(link.span_id.hex() for link in span.links),
                span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                span.status.message,
                of,
            )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str | int | bool]:
    found: dict[str, str | int | bool] = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        assert kind is not None
        found[pair.key] = getattr(pair.value, kind)
    return found
