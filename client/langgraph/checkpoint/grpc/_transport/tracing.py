"""OpenTelemetry spans of a saver's calls. Nothing is imported unless tracing is enabled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.grpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Headers = tuple[tuple[str, str], ...]


def tracing_of(tracing: Any) -> Tracing | None:
    """Returns what makes the spans that a saver is asked for.

    Args:
        tracing: True for OpenTelemetry's global tracer provider, a provider, or False.

    Raises:
        InvalidArgumentError: It is something else, or OpenTelemetry isn't installed.
    """
    if tracing is False:
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        raise InvalidArgumentError(
            "tracing: needs OpenTelemetry: pip install 'langgraph-checkpoint-grpc[otel]'", field="tracing"
        ) from None
    if tracing is True:
        return Tracing(trace.get_tracer_provider())
    if not isinstance(tracing, trace.TracerProvider):
        raise InvalidArgumentError(
            f"tracing: must be True, False or a TracerProvider, not {type(tracing).__name__}", field="tracing"
        )
    return Tracing(tracing)


class Tracing:
    """Makes spans.

    Args:
        provider: The provider that exports them.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = provider.get_tracer("langgraph.checkpoint.grpc")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, thread_id: str) -> CallSpan:
        """Begins the span of a call, as a child of the current span."""
        attributes = {"rpc.system": "grpc", "rpc.method": method}
        if thread_id:
            attributes["checkpointd.thread_id"] = thread_id
        span = self._tracer.start_span(f"GrpcSaver/{method}", kind=self._trace.SpanKind.CLIENT, attributes=attributes)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=self._trace.set_span_in_context(span))
        return CallSpan(span, carrier.get("traceparent", ""))

    @contextmanager
    def call(self, method: str, request: Any) -> Iterator[Headers]:
        """Traces a call, and yields the headers that carry its span."""
        span = self.begin(method, getattr(request, "thread_id", ""))
        try:
            yield span.headers
        except BaseException as error:
            span.end(error)
            raise
        span.end(None)


class CallSpan:
    """The span of a call.

    Args:
        span: The span.
        traceparent: The value of its header.
    """

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Span, traceparent: str) -> None:
        self._span = span
        self.traceparent = traceparent
        """The value of the header that carries it."""

    @property
    def headers(self) -> Headers:
        """The headers of a call of its own."""
        return (("traceparent", self.traceparent),) if self.traceparent else ()

    def end(self, error: BaseException | None) -> None:
        """Ends it, with the call's error, if any."""
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            name = type(error).__name__  # not its message, which names threads
            self._span.set_status(Status(StatusCode.ERROR, name))
            self._span.set_attribute("error.type", name)
        self._span.end()
