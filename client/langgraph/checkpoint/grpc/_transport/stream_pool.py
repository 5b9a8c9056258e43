"""The streams of a pipeline: one at a time for each server and token, replaced after a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import SystemRandom

from langgraph.checkpoint.grpc._transport.operation import Metadata
from langgraph.checkpoint.grpc._transport.replicas import Picker
from langgraph.checkpoint.grpc._transport.stream import Stream, StreamOwner
from langgraph.checkpoint.grpc.options import ClientOptions

import grpc.aio

STATUS_LOST_SECONDS = 1.0
"""Pause before another stream after one that ended before it worked, for an unknown reason, in seconds."""
HELD_UP_SECONDS = 300.0
"""Pause before another stream after one that something between here and the server blocked, in seconds."""
TROUBLE_SECONDS = 1.0
"""Minimum interval of replacing streams because their server has problems, in seconds."""

OpenStream = Callable[..., grpc.aio.StreamStreamCall]


class StreamPool:
    """The streams that a pipeline has open.

    Args:
        owner: Receives results.
        options: The saver's options.
        picker: Picks the servers.
        openers: Opens a stream to each of them.
    """

    def __init__(self, owner: StreamOwner, options: ClientOptions, picker: Picker, openers: list[OpenStream]) -> None:
        self._owner = owner
        self._timeout = options.timeout
        self._tuning = options.tuning
        self._lifetime = options.tuning.stream_lifetime
        self._max_streams = options.tuning.max_streams * len(openers)
        self._picker = picker
        self._openers = openers
        self._in_use: dict[Metadata, dict[int, Stream]] = {}
        self._retired: set[Stream] = set()
        self._none_until = 0.0
        self._changed_at = -TROUBLE_SECONDS

    def find(self, metadata: Metadata, tried: set[int]) -> Stream | None:
        """Returns a stream for a lane with nothing in flight. None: make unary calls."""
        now = time.monotonic()
        if now < self._none_until:
            return None
        order = self._picker.pick_order()
        server = next((number for number in order if number not in tried), order[0])
        by_server = self._in_use.setdefault(metadata, {})
        stream = by_server.get(server)
        if stream is not None:
            if stream.is_open and now < stream.until:
                return stream
            self._retire(stream)
            by_server = self._in_use.setdefault(metadata, {})
        if sum(map(len, self._in_use.values())) >= self._max_streams:
            self._retire_oldest(now)
        if sum(map(len, self._in_use.values())) >= self._max_streams:
            return None
        try:
            call = self._openers[server](metadata=metadata)
        except grpc.aio.UsageError:  # the channel was closed
            return None
        # So not all clients of a restarted server come at the same moment.
        until = now + self._lifetime * SystemRandom().uniform(0.75, 1.0)
        stream = by_server[server] = Stream(self._owner, call, server, metadata, self._timeout, until, self._tuning)
        return stream

    def running(self) -> list[Stream]:
        """Returns the streams that haven't ended, including those that only finish their operations."""
        in_use = [stream for by_server in self._in_use.values() for stream in by_server.values()]
        return [stream for stream in (*in_use, *self._retired) if not stream.ended]

    def change(self, stream: Stream) -> None:
        """Switches to another stream, which may go to another server behind the same name."""
        now = time.monotonic()
        if stream.is_open and now - self._changed_at >= TROUBLE_SECONDS:
            self._changed_at = now
            self._retire(stream)

    def _retire(self, stream: Stream) -> None:
        """Stops giving operations to a stream."""
        self.forget(stream)
        if not stream.ended:
            self._retired.add(stream)
            stream.retire()

    def _retire_oldest(self, now: float) -> None:
        """Retires streams that were used long enough."""
        for stream in self.running():
            if now >= stream.until or not stream.is_open:
                self._retire(stream)

    def forget(self, stream: Stream) -> None:
        """Drops a stream that has ended, or is ending."""
        self._retired.discard(stream)
        by_server = self._in_use.get(stream.metadata)
        if by_server is not None and by_server.get(stream.server) is stream:
            del by_server[stream.server]
            if not by_server:
                del self._in_use[stream.metadata]

    def do_without(self, seconds: float) -> None:
        """Returns no stream for a number of seconds."""
        self._none_until = max(self._none_until, time.monotonic() + seconds)
