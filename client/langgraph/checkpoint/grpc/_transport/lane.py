"""Lanes: the operations on a namespace that have no outcome yet, in order."""

from __future__ import annotations

from collections import deque

from langgraph.checkpoint.grpc._transport.operation import Namespace, Operation
from langgraph.checkpoint.grpc._transport.stream import Stream


class Lane:
    """The operations on one namespace that have no outcome yet, in order."""

    __slots__ = ("alone", "held", "namespace", "sent", "stream", "tried", "waiting")

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.waiting: deque[Operation] = deque()
        """The operations that haven't been sent."""
        self.sent: dict[Operation, None] = {}
        """The operations that were sent and have no outcome."""
        self.stream: Stream | None = None
        """The stream that they were sent on."""
        self.alone = False
        """True if the sent operation is a unary call: nothing may follow it."""
        self.held = False
        """True if everything sent is about to be sent again."""
        self.tried: set[int] = set()
        """The servers that were unavailable at the last attempt."""

    def remove(self, operation: Operation) -> None:
        """Takes an operation out."""
        if operation in self.sent:
            del self.sent[operation]
            if self.stream is not None:
                self.stream.forget(operation)
            if not self.sent:
                self.alone = False
        elif operation in self.waiting:
            self.waiting.remove(operation)
