"""Calls of event loops in a process that forks: they are ended before, and made again by the parent after.

In a forked child grpc starts its threads anew. Where a call of grpc.aio is under way at that moment, they crash the
child, even one that never uses the saver: a worker of a process pool, say, that a tool starts while LangGraph saves in
the background. All calls of checkpointd may be sent again.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

# Copied in one go, since the fork may come from any thread.
_under_way: dict[int, weakref.ref[Any]] = {}
_ended: weakref.WeakSet[Any] = weakref.WeakSet()


def _keep(call: Any) -> None:
    number = id(call)
    _under_way[number] = weakref.ref(call, lambda _: _under_way.pop(number, None))


def _end_calls() -> None:
    """Ends all calls. Nothing of theirs is touched but what is grpc's core: they belong to other threads, maybe."""
    for reference in list(_under_way.values()):
        call = reference()
        if call is not None and not call.done():
            _ended.add(call)
            call._cython_call.cancel("the process forks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_calls, after_in_child=_under_way.clear)


def was_ended(call: Any) -> bool:
    """Whether a CancelledError of a call means that the call was ended for a fork."""
    task = asyncio.current_task()
    return call in _ended and not (task is not None and task.cancelling())


class ForkSafeChannel:
    """A channel of an event loop whose calls are ended before a fork."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Awaitable[Any]]:
        """Returns what calls a method. Ended for a fork, a call is made again at once."""
        begin = self._channel.unary_unary(method, **arguments)

        async def call(request: Any, **options: Any) -> Any:
            while True:
                rpc = begin(request, **options)
                _keep(rpc)
                try:
                    return await rpc
                except asyncio.CancelledError:
                    if not was_ended(rpc):
                        raise
                finally:
                    _under_way.pop(id(rpc), None)

        return call

    def stream_stream(self, method: str, **arguments: Any) -> Callable[..., Any]:
        """Returns what opens a call. Ended for a fork, its methods raise CancelledError: see `was_ended`."""
        begin = self._channel.stream_stream(method, **arguments)

        def call(**options: Any) -> Any:
            rpc = begin(**options)
            _keep(rpc)
            return rpc

        return call

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
