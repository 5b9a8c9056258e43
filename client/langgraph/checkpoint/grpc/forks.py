"""Calls of event loops in a process that forks: they are ended before, and made again by the parent after.

In a forked child grpc starts its threads anew. Where a call of grpc.aio is under way at that moment, they crash the
child, even one that never uses the saver: a worker of a process pool, say, that a tool starts while LangGraph saves in
the background. All calls of checkpointd may be sent again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

# Copied in one go, since the fork may come from any thread.
_under_way: dict[int, weakref.ref[Any]] = {}
_ended: weakref.WeakSet[Any] = weakref.WeakSet()
_opening: ContextVar[list[Any] | None] = ContextVar("checkpointd_opening", default=None)
"""Where the calls are noted that gRPC makes for the one that is being opened: what intercepts calls hides them."""
_behind: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


_lost: list[object] = []
"""Holds something in a process that was forked while grpc.aio was at work: its poller is gone, and calls would hang."""
_channels: weakref.WeakSet[ForkSafeChannel] = weakref.WeakSet()
"""Our channels of event loops that are open."""
_POLLER = "_poll_wrapper"
"""What the thread runs that polls for grpc.aio, for other libraries too. Threads are named after it."""


def _keep(call: Any) -> None:
    number = id(call)
    _under_way[number] = weakref.ref(call, lambda _: _under_way.pop(number, None))


def _end_calls() -> None:
    """Ends all calls. Nothing of theirs is touched but what is grpc's core: they belong to other threads, maybe."""
    for reference in list(_under_way.values()):
        call = reference()
        # An intercepted call has no core of its own; the one behind it is kept too.
        core = getattr(call, "_cython_call", None)
        if call is not None and core is not None and not call.done():
            _ended.add(call)
            core.cancel("the process forks")


def _is_at_work() -> bool:
    return bool(_channels) or any(_POLLER in thread.name for thread in threading.enumerate())


def _before() -> None:
    _at_work.append(_is_at_work())
    _end_calls()


def _after_in_parent() -> None:
    _at_work.clear()


def _after_in_child() -> None:
    _under_way.clear()
    # Held for ever: to collect them could wait for threads that the fork left behind.
    _lost.extend(_channels)
    _channels.clear()
    if any(_at_work):
        _lost.append(True)
    _at_work.clear()


_at_work: list[bool] = []
"""Between the begin of a fork and its end: whether grpc.aio is at work."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def has_lost_aio() -> bool:
    """Whether nothing can be awaited in this process: it was forked while grpc.aio was at work in its parent."""
    return bool(_lost)


def was_ended(call: Any) -> bool:
    """Whether a CancelledError of a call means that the call was ended for a fork."""
    task = asyncio.current_task()
    return has_ended(call) and not (task is not None and task.cancelling())


def has_ended(call: Any) -> bool:
    """Whether a call was ended for a fork, however that shows."""
    return call in _ended or any(core in _ended for core in _behind.get(call, ()))


def interceptors() -> tuple[Any, ...]:
    """Returns what a channel of an event loop needs for its calls to be found: tools may have put interceptors before.

    Those of OpenTelemetry, Sentry and Datadog replace the functions that make channels. Where they aren't replaced,
    calls do without: an interceptor costs a task.
    """
    original = getattr(getattr(grpc.aio, "_channel", None), "insecure_channel", None)
    return () if grpc.aio.insecure_channel is original else (_UnaryFinder(), _StreamFinder())


def _found(call: Any) -> Any:
    _keep(call)
    if (calls := _opening.get()) is not None:
        calls.append(call)
    return call


class _UnaryFinder(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return _found(await continuation(details, request))


class _StreamFinder(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return _found(await continuation(details, requests))


def _open(begin: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Opens a call, and keeps it."""
    behind: list[Any] = []
    token = _opening.set(behind)
    try:
        call = begin(*arguments, **options)
    finally:
        _opening.reset(token)
    _behind[call] = behind
    _keep(call)
    return call


class ForkSafeChannel:
    """A channel of an event loop whose calls are ended before a fork."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        _channels.add(self)

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Awaitable[Any]]:
        """Returns what calls a method. Ended for a fork, a call is made again at once."""
        begin = self._channel.unary_unary(method, **arguments)

        async def call(request: Any, **options: Any) -> Any:
            while True:
                rpc = _open(begin, request, **options)
                try:
                    return await rpc
                except asyncio.CancelledError:
                    if not was_ended(rpc):
                        raise
                except grpc.RpcError as error:
                    if not (has_ended(rpc) and error.code() is grpc.StatusCode.CANCELLED):
                        raise
                finally:
                    _under_way.pop(id(rpc), None)

        return call

    def stream_stream(self, method: str, **arguments: Any) -> Callable[..., Any]:
        """Returns what opens a call. Ended for a fork, its methods raise CancelledError: see `was_ended`."""
        begin = self._channel.stream_stream(method, **arguments)

        def call(**options: Any) -> Any:
            return _open(begin, **options)

        return call

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
        _channels.discard(self)
