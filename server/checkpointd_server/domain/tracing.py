"""Events that the server reports to a tracer: the calls that it serves, and the statements that it runs for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Protocol


class Span(Protocol):
    """An action with a duration."""

    def end(self, error: str | None = None) -> None:
        """Ends it, with its error, if any. A second call does nothing."""


class Tracing(Protocol):
    """Makes spans."""

    def serve(self, method: str, traceparent: str, thread_id: str) -> Span:
        """Begins the span of a call, or of an operation of a pipeline.

        Args:
            method: The method, e.g. "CheckpointService/PutCheckpoint".
            traceparent: The client's span in W3C Trace Context format. Empty or invalid: none.
            thread_id: The thread that it is about, or "".
        """

    def statement(self, name: str, spans: Sequence[Span]) -> Span:
        """Begins the span of a statement for the calls or operations of these spans."""


current_spans: ContextVar[Sequence[Span]] = ContextVar("current_spans", default=())
"""The spans of the calls that the running task serves."""
