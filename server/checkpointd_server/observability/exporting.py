"""Export of the spans of `checkpointd serve --traces` to a collector, configured by OTEL_... environment variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from checkpointd_server import __version__
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.domain.tracing import Tracing


@contextmanager
def exporting_traces(enabled: bool) -> Iterator[Tracing | None]:
    """Exports spans while entered, in batches from a background thread; spans beyond its queue are dropped.

    Args:
        enabled: Whether to trace. If not, yields None.

    Raises:
        SetupError: OpenTelemetry isn't installed.
    """
    if not enabled:
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from checkpointd_server.observability.tracing import OtelTracing
    except ImportError:
        raise SetupError("--traces needs OpenTelemetry: pip install 'checkpointd[otel]'") from None
    resource = Resource({SERVICE_NAME: "checkpointd", SERVICE_VERSION: __version__}).merge(
        OTELResourceDetector().detect()
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield OtelTracing(provider)
    finally:
        provider.shutdown()
