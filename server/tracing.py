"""OpenTelemetry spans of each request and its stages, sent over OTLP/HTTP where an endpoint is set.

    request ─┬─ decode          each turn on a decode thread
             ├─ queue           from submitting a window to its batch's start
             ├─ features        the batch's log-mel
             ├─ inference       the batch's network
             └─ postprocess     logits to labels and events

Needs the extra `otel`. Other settings of the SDK come from its own variables, such as OTEL_TRACES_SAMPLER.
"""

import logging
import time
from contextvars import ContextVar
from typing import Any, Protocol

from server.trace_context import TraceContext
from server.version import VERSION

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError:  # the extra is not installed; `open_tracing` says so where it is needed
    trace = None  # type: ignore[assignment]

MAX_STAGES = 200  # spans below one request; a long sound's further windows are only counted
SECOND_NS = 1_000_000_000
COMPLAINT_SECONDS = 60.0


class TracingError(Exception):
    """An endpoint is set, but spans cannot be made."""


class RequestTrace(Protocol):
    """One request's span; stages may be recorded from any of the request's tasks."""

    @property
    def context(self) -> TraceContext: ...

    def stage(self, name: str, seconds: float, ended_ago: float = 0.0) -> None:
        """A stage that took `seconds` and ended so many seconds ago."""
        ...

    def end(self, name: str, attributes: dict[str, Any], failed: bool) -> None:
        """Ends the span under its final name."""
        ...


class Tracing(Protocol):
    """What makes requests' spans."""

    def start(self, parent: TraceContext | None) -> RequestTrace: ...

    def close(self) -> None:
        """Sends what is left; takes a few seconds where the endpoint does not answer."""
        ...


current_trace: ContextVar[RequestTrace | None] = ContextVar("current_trace", default=None)


def record_stage(name: str, seconds: float, ended_ago: float = 0.0) -> None:
    """Tells the request's trace, where it has one, of a stage that took `seconds` and ended so many seconds ago."""
    if request := current_trace.get():
        request.stage(name, seconds, ended_ago)


def open_tracing(endpoint: str | None) -> Tracing | None:
    """What makes spans, or None without an endpoint.

    Raises: TracingError where the packages are missing.
    """
    if endpoint is None:
        return None
    if trace is None:
        raise TracingError(
            "HARK_OTLP_ENDPOINT is set, but the packages that make spans are missing;"
            " install hark with its extra 'otel'"
        )
    return _OpenTelemetry(endpoint)


class SeldomFilter(logging.Filter):
    """Lets one line in a minute pass: an endpoint that is down is said by the exporter every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be shown."""
        seldom = time.monotonic() - self._said >= COMPLAINT_SECONDS
        if seldom:
            self._said = time.monotonic()
        return seldom


class _OpenTelemetry:
    def __init__(self, endpoint: str) -> None:
        exporters_log = logging.getLogger(OTLPSpanExporter.__module__)
        exporters_log.filters = [SeldomFilter()]
        path = "" if endpoint.rstrip("/").endswith("/v1/traces") else "/v1/traces"
        resource = Resource.create({"service.name": "hark", "service.version": VERSION})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + path, timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hark", VERSION)

    def start(self, parent: TraceContext | None) -> RequestTrace:
        context = None
        if parent is not None:
            flags = trace.TraceFlags(parent.sampled)
            remote = trace.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        return _OpenTelemetryTrace(self._tracer, context)

    def close(self) -> None:
        self._provider.shutdown()


class _OpenTelemetryTrace:
    def __init__(self, tracer: Any, parent: Any) -> None:
        self._tracer = tracer
        self._span = tracer.start_span("request", context=parent, kind=trace.SpanKind.SERVER)
        self._below = trace.set_span_in_context(self._span)
        self._stages = 0

    @property
    def context(self) -> TraceContext:
        own = self._span.get_span_context()
        return TraceContext(f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags.sampled)

    def stage(self, name: str, seconds: float, ended_ago: float = 0.0) -> None:
        self._stages += 1
        if self._stages > MAX_STAGES:
            return
        ended = time.time_ns() - round(ended_ago * SECOND_NS)
        started = ended - round(seconds * SECOND_NS)
        self._tracer.start_span(name, context=self._below, start_time=started).end(ended)

    def end(self, name: str, attributes: dict[str, Any], failed: bool) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if self._stages > MAX_STAGES:
            self._span.set_attribute("hark.stages_left_out", self._stages - MAX_STAGES)
        if failed:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR))
        self._span.end()
