"""Several servers behind one saver: each call goes to the next one that is well, and on to another where it isn't.

grpc balances over the addresses of one name, but takes no list of names. So each server has a channel of its own, and
what looks like a channel here picks one for each call. A server that is draining, away or cut off says UNAVAILABLE: the
call is sent again to another at once, and the server rests for a while. All RPCs of checkpointd may be sent again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import Any

from langgraph.checkpoint.grpc.errors import is_away

import grpc
import grpc.aio

FIRST_REST = 0.25
"""For how long a server that failed is not called while others are well, in seconds; doubled each time."""
LONGEST_REST = 5.0
"""For how long a server rests at the most, in seconds: so late a server that is back is noticed."""


class Rota:
    """Whose turn it is. Shared by all channels of a saver: what one call has found out, the others know.

    Used from several threads at once; where two of them meet, a rest is begun twice.

    Args:
        servers: How many there are.
    """

    def __init__(self, servers: int) -> None:
        self._servers = servers
        # Not all processes begin with the same one.
        self._turns = itertools.count(SystemRandom().randrange(servers))
        self._rests = [0.0] * servers
        self._rests_until = [0.0] * servers

    def order(self) -> list[int]:
        """Returns the servers to try, by number: those that are well, then those that rest, soonest back first.

        A server that rests may be back by now: it is still a better answer than none.
        """
        now = time.monotonic()
        first = next(self._turns)
        turn = [(first + step) % self._servers for step in range(self._servers)]
        return sorted(turn, key=lambda number: max(self._rests_until[number], now))

    def note(self, number: int, *, well: bool) -> None:
        """Notes whether a server has answered."""
        if well:
            self._rests[number] = self._rests_until[number] = 0.0
            return
        now = time.monotonic()
        if self._rests_until[number] <= now:
            # Many calls may fail at once, when a server goes down: that is one failure.
            self._rests[number] = min(max(2 * self._rests[number], FIRST_REST), LONGEST_REST)
            self._rests_until[number] = now + self._rests[number]


class BlockingReplicas:
    """What the stubs take for a channel, over a channel to each server."""

    def __init__(self, channels: Sequence[grpc.Channel], rota: Rota) -> None:
        self._channels = channels
        self._rota = rota

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Any]:
        """Returns what calls a method, on one server after another until one is there."""
        methods = [channel.unary_unary(method, **arguments) for channel in self._channels]

        def call(request: Any, **options: Any) -> Any:
            order = self._rota.order()
            for number in order:
                try:
                    answer = methods[number](request, **options)
                except grpc.RpcError as error:
                    away = is_away(error)
                    self._rota.note(number, well=not away and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED)
                    if not away or number == order[-1]:
                        raise
                else:
                    self._rota.note(number, well=True)
                    return answer
            raise AssertionError("the last one returns or raises")

        return call

    def stream_stream(self, method: str, **arguments: Any) -> None:
        """Calls that stay open are none of ours: each call may go to another server."""

    def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            channel.close()


class AioReplicas:
    """`BlockingReplicas` for an event loop."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], rota: Rota) -> None:
        self._channels = channels
        self._rota = rota

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Awaitable[Any]]:
        """Returns what calls a method, on one server after another until one is there."""
        methods = [channel.unary_unary(method, **arguments) for channel in self._channels]

        async def call(request: Any, **options: Any) -> Any:
            order = self._rota.order()
            for number in order:
                try:
                    answer = await methods[number](request, **options)
                except grpc.RpcError as error:
                    away = is_away(error)
                    self._rota.note(number, well=not away and error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED)
                    if not away or number == order[-1]:
                        raise
                else:
                    self._rota.note(number, well=True)
                    return answer
            raise AssertionError("the last one returns or raises")

        return call

    def stream_stream(self, method: str, **arguments: Any) -> None:
        """Calls that stay open are none of ours: each call may go to another server."""

    async def close(self) -> None:
        """Closes the channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels))
