"""Times and bounds of a saver that no user has to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Times, in seconds, and bounds. What a saver takes is `GrpcSaver._tuning`: tests have subclasses with others."""

    stream_lifetime: float = 30.0
    """For how long a stream is used at the most, and kept where nobody uses it."""
    max_streams: int = 16
    """How many streams are in use at once. What goes under more tokens than that is served without."""
    put_expected_within: float = 1.0
    """How long task writes wait for the put of their checkpoint to begin. LangGraph begins it before or just after
    them; for the rare checkpoint that it never puts (a Command on a thread that doesn't exist) this is the end."""
