"""OpenTelemetry: spans are made, and sent to a collector by OTLP over HTTP. Imported only where traces are sent.

Ended spans wait in a queue, bounded, for a thread that sends them. When the collector is slow or away they are dropped;
no request notices.

Sources: OpenTelemetry specification 1.40, "Trace SDK"; OTLP specification 1.5, "OTLP/HTTP"; W3C Trace Context.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import PROCESS_PID, SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mirror import __version__
from mirror.tracing import Attributes, Kind, Span

log = logging.getLogger(__name__)

_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.INTERNAL: SpanKind.INTERNAL}
_CONTEXT = TraceContextTextMapPropagator()

_QUEUE = 4096
"""Spans that wait to be sent; what comes on top is dropped."""

_BATCH = 512
_SEND_EVERY = 2.0
_SEND_WITHIN = 5.0
_STOP_WITHIN = 3.0
"""Seconds in which the last spans must be sent when the mirror stops."""


class Traced:
    """A span, as `mirror.tracing.Span` has it."""

    def __init__(self, tracer: Tracer, span: OtelSpan) -> None:
        self._tracer = tracer
        self._span = span

    def child(self, name: str, kind: Kind, attributes: Attributes) -> "Traced":
        """A piece of this work, which begins now."""
        context = set_span_in_context(self._span, Context())
        made = self._tracer.start_span(name, context, _KINDS[kind], attributes, record_exception=False)
        return Traced(self._tracer, made)

    def name(self, name: str) -> None:
        """What it is called."""
        self._span.update_name(name)

    def say(self, attributes: Attributes) -> None:
        """What has come to be known of it."""
        self._span.set_attributes(attributes)

    def link(self, other: Span) -> None:
        """It has to do with ``other``."""
        if isinstance(other, Traced):
            self._span.add_link(other._span.get_span_context())

    def fail(self, kind: str, message: str = "") -> None:
        """It did not do what it was for."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, message or None))

    def end(self) -> None:
        """It is over."""
        self._span.end()

    def carried(self) -> Mapping[str, str]:
        """The headers that tell of it to whom a request is sent."""
        headers: dict[str, str] = {}
        _CONTEXT.inject(headers, set_span_in_context(self._span, Context()))
        return headers


class Telemetry:
    """Begins traces, and goes on with those of clients. Wired once for each worker; `aclose` ends it.

    ``endpoint`` is the whole URL of a collector, ``sample`` the part of requests that is traced where clients do not
    say.
    """

    def __init__(self, endpoint: str, sample: float) -> None:
        for name in ("opentelemetry.exporter", "opentelemetry.sdk"):  # they complain of each batch; `_Said` does once
            logging.getLogger(name).setLevel(logging.CRITICAL)
        ours = Resource({SERVICE_NAME: "wasm-mirror", SERVICE_VERSION: __version__, PROCESS_PID: os.getpid()})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        exporter = _Said(OTLPSpanExporter(endpoint, timeout=_SEND_WITHIN), endpoint)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, _QUEUE, _SEND_EVERY * 1000, _BATCH, _SEND_WITHIN * 1000)
        )
        self._tracer = self._provider.get_tracer("wasm-mirror", __version__)

    def begin(self, name: str, attributes: Attributes, headers: Mapping[str, str]) -> Traced:
        """The span of a request, in the trace that its ``headers`` name, if they do so rightly."""
        context = _CONTEXT.extract(headers, Context())
        made = self._tracer.start_span(name, context, SpanKind.SERVER, attributes, record_exception=False)
        return Traced(self._tracer, made)

    async def aclose(self) -> None:
        """Send what waits, as far as there is time."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has not waited for it
                loop.call_soon_threadsafe(ended.set)

        # A thread that nobody waits for at the end, as those of a pool are.
        threading.Thread(target=shut_down, name="last traces", daemon=True).start()
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await ended.wait()
        except TimeoutError:
            log.warning("the last traces could not be sent within %g s", _STOP_WITHIN)


class _Said(SpanExporter):
    """Sends spans, and says in the log when that begins to fail, and when it no longer does."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them, in a thread of its own."""
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails and not self._fails:
            log.warning("%s does not take traces; they are dropped until it does", self._endpoint)
        elif self._fails and not fails:
            log.info("%s takes traces again", self._endpoint)
        self._fails = fails
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()
