"""Several servers behind one saver: each call goes to the next healthy one, and fails over to another.

gRPC balances over the addresses of one name, but doesn't accept a list of names. So each server has its own channel,
and `FailoverChannel` picks one for each call. If a server is draining or unreachable (UNAVAILABLE), the call is sent to
another at once, and the server isn't called for a while. All RPCs of checkpointd are safe to repeat. A pipeline does
the same for each lane.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import Any

from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._transport.rpc_errors import is_away

import grpc
import grpc.aio

FIRST_BACKOFF = 0.25
"""How long a failed server isn't called while others are healthy, in seconds; doubled each time."""
LONGEST_BACKOFF = 5.0
"""Maximum time that a server isn't called, in seconds."""


class Picker:
    """Picks servers. Shared by all channels of a saver, so all calls know which servers failed.

    May be used from several threads; a race only starts a backoff twice.

    Args:
        servers: The number of servers.
    """

    def __init__(self, servers: int) -> None:
        self.servers = servers
        # So not all processes begin with the same server.
        self._turns = itertools.count(SystemRandom().randrange(servers))
        self._backoffs = [0.0] * servers
        self._until = [0.0] * servers

    def pick_order(self) -> list[int]:
        """Returns the numbers of the servers to try: the healthy ones, then the others, earliest end of backoff first.

        A server in backoff may be back by now, so it is better than none.
        """
        if self.servers == 1:
            return [0]
        now = time.monotonic()
        first = next(self._turns)
        turn = [(first + step) % self.servers for step in range(self.servers)]
        return sorted(turn, key=lambda number: max(self._until[number], now))

    def note(self, number: int, *, healthy: bool) -> None:
        """Records whether a server has answered."""
        if healthy:
            self._backoffs[number] = self._until[number] = 0.0
            return
        now = time.monotonic()
        if self._until[number] <= now:
            # Many calls may fail at once, when a server goes down: that is one failure.
            self._backoffs[number] = min(max(2 * self._backoffs[number], FIRST_BACKOFF), LONGEST_BACKOFF)
            self._until[number] = now + self._backoffs[number]


class FailoverChannel:
    """A channel for stubs, over one channel per server."""

    def __init__(self, channels: Sequence[grpc.Channel], picker: Picker) -> None:
        self._channels = channels
        self._picker = picker

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Any]:
        """Returns a callable for a method, which tries one server after another."""
        methods = [channel.unary_unary(method, **arguments) for channel in self._channels]

        def call(request: Any, **options: Any) -> Any:
            return flows.run(_failover(self._picker), lambda number: methods[number](request, **options))

        return call

    def stream_stream(self, method: str, **arguments: Any) -> None:
        """Not supported: a stream goes to one server, see `Connection`."""

    def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            channel.close()


class AioFailoverChannel:
    """`FailoverChannel` for an event loop."""

    def __init__(self, channels: Sequence[Any], picker: Picker) -> None:
        self._channels = channels
        self._picker = picker

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Awaitable[Any]]:
        """Returns a callable for a method, which tries one server after another."""
        methods = [channel.unary_unary(method, **arguments) for channel in self._channels]

        async def call(request: Any, **options: Any) -> Any:
            return await flows.arun(_failover(self._picker), lambda number: methods[number](request, **options))

        return call

    def stream_stream(self, method: str, **arguments: Any) -> None:
        """Not supported: a stream goes to one server, see `Connection`."""

    async def close(self) -> None:
        """Closes the channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def _failover(picker: Picker) -> flows.Flow[Any]:
    """Yields one server after another, by number, until one answers. Returns its answer."""
    order = picker.pick_order()
    for number in order:
        try:
            answer = yield number
        except grpc.RpcError as error:
            away = is_away(error)
            picker.note(number, healthy=not away and not _took_too_long(error))
            if not away or number == order[-1]:
                raise
        else:
            picker.note(number, healthy=True)
            return answer
    raise AssertionError("the last one returns or raises")


def _took_too_long(error: grpc.RpcError) -> bool:
    return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
