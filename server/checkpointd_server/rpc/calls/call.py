"""Calls, and their limits."""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any, NamedTuple

from checkpointd_server.domain.access import ANYBODY, Identity
from checkpointd_server.domain.tracing import Span
from checkpointd_server.rpc.tenants import TenantState


class CallLimits(NamedTuple):
    """Limits of each call."""

    message_bytes: int
    """Maximum size of a request or a response, in bytes."""
    concurrent_calls: int
    """Maximum number of calls in flight."""
    default_timeout: float | None
    """Timeout of calls without a deadline, in seconds. None: no limit."""
    max_timeout: float | None = None
    """Maximum timeout of a call, in seconds. None: no limit."""
    send_timeout: float = 10.0
    """How long a client may take to read an answer, besides the time for its size, in seconds."""
    slow_seconds: float = math.inf
    """Duration from which a call is logged, in seconds. Infinity: never."""
    large_bytes: int = 0
    """Size from which a checkpoint is logged, in bytes. 0: never."""


class Call:
    """A call, or a part of one that is served like a call.

    Args:
        method: The method as it is logged, e.g. "CheckpointService/PutCheckpoint".
        via: "unary", or "pipeline" for an operation of one.
    """

    __slots__ = ("at_work", "held", "identity", "method", "request", "span", "started", "tenant", "unread", "via")

    def __init__(self, method: str, via: str = "unary") -> None:
        self.method = method
        self.via = via
        self.started = perf_counter()
        self.identity: Identity | None = None
        """The caller. None: not known yet."""
        self.tenant: TenantState | None = None
        """Its tenant, once it is admitted."""
        self.request: Any = None
        """The request. None: it hasn't arrived yet."""
        self.held = 0
        """The number of bytes reserved for it."""
        self.at_work = False
        """True if it counts as in flight."""
        self.unread = False
        """True if it ended without a request."""
        self.span: Span | None = None
        """Its span, if it is traced."""

    @property
    def thread_id(self) -> str:
        """Its thread. Empty: none, or not known yet."""
        return getattr(self.request, "thread_id", "")

    def fields(self) -> dict[str, Any]:
        """Returns the fields that every log line about it has. Ids may be logged, values never."""
        fields: dict[str, Any] = {
            "method": self.method,
            "duration_ms": round((perf_counter() - self.started) * 1000, 3),
        }
        thread_id = getattr(self.request, "thread_id", None)
        if thread_id:
            fields["thread_id"] = thread_id
        if self.identity is not None and self.identity is not ANYBODY:
            fields["tenant"], fields["subject"] = self.identity.tenant, self.identity.subject
        return fields
