"""Internal timeouts and limits of a saver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Timeouts in seconds, and limits. A saver uses `GrpcSaver._tuning`, which subclasses in tests override."""

    stream_lifetime: float = 30.0
    """Maximum time that a stream is used, or kept idle."""
    max_streams: int = 16
    """Maximum number of streams. Calls under further tokens are unary."""
    silence_timeout: float = 10.0
    """Time without any answer after which a stream counts as blocked between here and the server, or half an
    operation's timeout."""
    max_message_operations: int = 256
    """The most operations in a message."""
    linger: float = 0.002
    """Maximum time that operations linger while others are in flight."""
    max_in_flight: int = 1024
    """Maximum number of operations without an answer. Further ones wait."""
    put_expected_within: float = 1.0
    """How long task writes wait for the put of their checkpoint to begin. LangGraph begins it before or just after
    them. A rare checkpoint is never put (of a Command on a thread that doesn't exist): then the wait ends by this."""
