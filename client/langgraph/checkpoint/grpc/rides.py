"""Blocking task writes that go along with the run's next put, in one call.

A step ends with its tasks' writes and the next step's put, from different threads, within a moment of each other. A
write waits that moment for a put to take it along; nobody else waits for it meanwhile. What is awaited does the same in
its event loop: see `batching`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

from checkpointd.v1.checkpoint_service_pb2 import PutWritesRequest

HOLD_SECONDS = 0.002
"""For how long a write waits for a put."""
MOST_ALONG = 63
"""How many writes a put takes along at the most."""


class Ride:
    """A write that may go along."""

    def __init__(self, end: Future[Any], request: PutWritesRequest) -> None:
        self.end = end
        """What tells that the write is over."""
        self.request = request
        self.taken = False
        self._end: Future[Any] = Future()

    def stored(self, response: Any) -> None:
        """Notes that it was stored."""
        self._end.set_result(response)

    def failed(self, error: Exception) -> None:
        """Notes that it was refused."""
        self._end.set_exception(error)

    def left(self) -> None:
        """Notes that it has to be sent by itself after all, if it hasn't come to an end."""
        if not self._end.done():
            self._end.set_result(None)

    def result(self) -> Any:
        """Blocks until it has come to an end. Returns the answer, or None if it has to be sent by itself."""
        return self._end.result()


class Rides:
    """The writes of a run in one namespace that may go along with its next put."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offered: dict[Future[Any], Ride] = {}

    def offer(self, end: Future[Any], request: PutWritesRequest) -> Any:
        """Offers a write, and blocks until a put has taken it along and is over, or for a moment.

        Args:
            end: What tells that the write is over.
            request: The write.

        Returns:
            The answer, or None if no put has taken it along.
        """
        ride = Ride(end, request)
        with self._changed:
            self._offered[end] = ride
            self._changed.notify_all()
            self._changed.wait_for(lambda: ride.taken, HOLD_SECONDS)
            if not ride.taken:
                del self._offered[end]
                return None
        return ride.result()

    def take(self, ends: Collection[Future[Any]], timeout: float | None) -> list[Ride]:
        """Blocks until each of these writes is over or offered, and takes what is offered. The caller has to settle it.

        Args:
            ends: What tells that the writes are over.
            timeout: How long to wait at the most, in seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: all(end.done() or end in self._offered for end in ends), timeout)
            offered = [end for end in ends if end in self._offered]
            rides = [self._offered.pop(end) for end in offered[:MOST_ALONG]]
            for ride in rides:
                ride.taken = True
            self._changed.notify_all()
        return rides

    def wake(self) -> None:
        """Lets those look again who wait for a write to be over."""
        with self._changed:
            self._changed.notify_all()
