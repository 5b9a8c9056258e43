"""A call, and what each is held to."""

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
    """The largest request and response."""
    concurrent_calls: int
    """The most calls at work at once."""
    default_timeout: float | None
    """Seconds that a call gets if its client set no deadline. None: no bound."""
    max_timeout: float | None = None
    """The most seconds that a call gets, whatever deadline its client set. None: no bound."""
    send_timeout: float = 10.0
    """How many seconds an answer may take to be read, besides those for its size."""
    slow_seconds: float = math.inf
    """From when on the log is told of a call. Infinity: of none."""
    large_bytes: int = 0
    """From what size on the log is told of a checkpoint. 0: of none."""


class Call:
    """A call, or a part of one that is served like a call.

    Args:
        method: The method as the log has it, e.g. "CheckpointService/PutCheckpoint".
        via: The way in which it came: "unary", or "pipeline" for an operation of one.
    """

    __slots__ = ("at_work", "held", "identity", "method", "request", "span", "started", "tenant", "unread", "via")

    def __init__(self, method: str, via: str = "unary") -> None:
        self.method = method
        self.via = via
        self.started = perf_counter()
        self.identity: Identity | None = None
        """The caller. None: that isn't known yet."""
        self.tenant: TenantState | None = None
        """Whose call it is, once it is admitted."""
        self.request: Any = None
        """The request. None: it isn't there yet."""
        self.held = 0
        """The bytes that are held for it."""
        self.at_work = False
        """True if it counts as at work."""
        self.unread = False
        """True if it ended without a request."""
        self.span: Span | None = None
        """Its span, if it is traced."""

    @property
    def thread_id(self) -> str:
        """Its thread. Empty: it has none, or that isn't known yet."""
        return getattr(self.request, "thread_id", "")

    def fields(self) -> dict[str, Any]:
        """Returns what every line of the log says of it. Ids may be in a log, values never."""
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
