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
    patience: float = 10.0
    """After how long a stream of which the server has told nothing counts as one that is held up on the way; or after
    half an operation's time."""
    max_message_operations: int = 256
    """The most operations in a message."""
    linger: float = 0.002
    """How long operations wait for others at the most, while the server has some to answer."""
    max_in_flight: int = 1024
    """The most operations that a server is given before it has answered. The others wait."""
    put_expected_within: float = 1.0
    """How long task writes wait for the put of their checkpoint to begin. LangGraph begins it before or just after
    them; for the rare checkpoint that it never puts (a Command on a thread that doesn't exist) this is the end."""
