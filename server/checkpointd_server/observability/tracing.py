"""OpenTelemetry traces: spans of calls, of operations in pipelines, and of their statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from checkpointd_server import __version__
from checkpointd_server.domain.tracing import Span

MAX_TRACEPARENT = 128
"""Maximum length of a client's traceparent, in bytes. Longer ones are ignored."""


class OtelSpan:
    """Spans of OpenTelemetry that begin and end together.

    Args:
        spans: The spans.
    """

    __slots__ = ("spans",)

    def __init__(self, *spans: trace.Span) -> None:
        self.spans = spans

    def end(self, error: str | None = None) -> None:
        """Ends them."""
        for span in self.spans:
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error))
                span.set_attribute("error.type", error)
            span.end()
        self.spans = ()


class OtelTracing:
    """Makes spans of OpenTelemetry.

    Args:
        provider: The provider that exports them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("checkpointd", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def serve(self, method: str, traceparent: str, thread_id: str) -> OtelSpan:
        """Begins the span of a call or an operation, as a child of its client's."""
        parent = None
        if traceparent and len(traceparent) <= MAX_TRACEPARENT:
            parent = self._propagator.extract({"traceparent": traceparent})
        service, _, name = method.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": f"checkpointd.v1.{service}", "rpc.method": name}
        if thread_id:
            attributes["checkpointd.thread_id"] = thread_id
        span = self._tracer.start_span(
            f"checkpointd.v1.{method}", context=parent, kind=SpanKind.SERVER, attributes=attributes
        )
        return OtelSpan(span)

    def statement(self, name: str, spans: Sequence[Span]) -> OtelSpan:
        """Begins a span below each trace's first, linked to the others: a commit is one statement for many calls."""
        sampled = [span for one in spans for span in cast(OtelSpan, one).spans if span.is_recording()]
        first = {span.get_span_context().trace_id: span for span in reversed(sampled)}
        links = [Link(span.get_span_context()) for span in sampled]
        attributes: dict[str, str | int] = {"db.system.name": "postgresql", "db.operation.name": name}
        attributes["checkpointd.calls"] = len(spans)
        return OtelSpan(
            *(
                self._tracer.start_span(
                    name,
                    context=trace.set_span_in_context(parent),
                    kind=SpanKind.CLIENT,
                    attributes=attributes,
                    links=[link for link in links if link.context != parent.get_span_context()],
                )
                for parent in first.values()
            )
        )
