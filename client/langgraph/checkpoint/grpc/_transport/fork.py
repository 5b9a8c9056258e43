"""Forks: a child never uses its parent's loops and calls, and a parent's calls are ended before it forks.

In a forked child gRPC restarts its threads, except those that serve event loops: grpc.aio would hang there. And if a
call of grpc.aio is in flight during the fork, these threads crash the child, even one that never uses the saver, such
as a worker of a process pool that a tool starts while LangGraph saves in the background. So all such calls are ended
before a fork, and the parent repeats them after it; all calls of checkpointd are safe to repeat.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from langgraph.checkpoint.grpc._transport.operation import local_error

import grpc
import grpc.aio

# Copied in one go, since the fork may come from any thread.
_in_flight: dict[int, weakref.ref[Any]] = {}
_ended: weakref.WeakSet[Any] = weakref.WeakSet()
_opening: ContextVar[list[Any] | None] = ContextVar("checkpointd_opening", default=None)
"""Where the calls are noted that gRPC makes for the one that is being opened: what intercepts calls hides them."""
_behind: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()
_hooks: dict[int, Callable[[], Callable[[], None] | None]] = {}
_numbers = itertools.count()
_generation = 0
_used_aio = False
_at_work = False
"""Between the begin of a fork and its end: whether grpc.aio is at work, for us or for another library."""
_lost_aio = False
_POLLER = "_poll_wrapper"
"""The function that polls for grpc.aio. Its thread is named after it."""


def generation() -> int:
    """Returns how often the process was forked since this module was imported; 0 in the process that imported it."""
    return _generation


def note_aio() -> None:
    """Records that this process uses grpc.aio, so that its forked children can't."""
    global _used_aio
    _used_aio = True


def lost_aio() -> bool:
    """Returns whether grpc.aio can't be used in this process: it was forked after its parent had used it."""
    return _lost_aio


def in_child(hook: Callable[[], None]) -> None:
    """Calls a function in each forked child, before anything else runs there."""
    _hooks[next(_numbers)] = lambda: hook


def in_child_for(owner: Any, hook: str) -> None:
    """Calls a method in each forked child, as long as its object lives."""
    number = next(_numbers)
    reference = weakref.ref(owner, lambda _: _hooks.pop(number, None))
    _hooks[number] = lambda: getattr(reference(), hook, None)


def _keep(call: Any) -> None:
    number = id(call)
    _in_flight[number] = weakref.ref(call, lambda _: _in_flight.pop(number, None))


def _before() -> None:
    global _at_work
    _at_work = _used_aio or any(_POLLER in thread.name for thread in threading.enumerate())
    _end_calls()


def _end_calls() -> None:
    """Ends all calls. Nothing of theirs is touched but what is grpc's core: they belong to other threads, maybe."""
    for reference in list(_in_flight.values()):
        call = reference()
        # An intercepted call has no core of its own; the one behind it is kept too.
        core = getattr(call, "_cython_call", None)
        if call is not None and core is not None and not call.done():
            _ended.add(call)
            core.cancel("the process forks")


def _begin_child() -> None:
    global _generation, _lost_aio
    _generation += 1
    # Forked while a call was in flight or not: its poller is gone, and calls would hang.
    _lost_aio = _lost_aio or _at_work
    _in_flight.clear()
    for hook in list(_hooks.values()):
        if (call := hook()) is not None:
            call()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_begin_child)


def was_ended(call: Any) -> bool:
    """Returns whether a CancelledError of a call means that the call was ended for a fork."""
    task = asyncio.current_task()
    return has_ended(call) and not (task is not None and task.cancelling())


def has_ended(call: Any) -> bool:
    """Returns whether a call was ended for a fork, however that shows."""
    return call in _ended or any(behind in _ended for behind in _behind.get(call, ()))


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

    def unary_unary(self, method: str, **arguments: Any) -> Callable[..., Awaitable[Any]]:
        """Returns what calls a method. Ended for a fork, a call is made again at once."""
        begin = self._channel.unary_unary(method, **arguments)

        async def call(request: Any, **options: Any) -> Any:
            while True:
                rpc = _open(begin, request, **options)
                try:
                    response = await rpc
                    if response is None:  # all that grpc.aio says of an answer that it can't parse
                        raise local_error(grpc.StatusCode.INTERNAL, "the answer could not be read")
                    return response
                except asyncio.CancelledError:
                    if not was_ended(rpc):
                        raise
                except grpc.RpcError as error:
                    if not (has_ended(rpc) and error.code() is grpc.StatusCode.CANCELLED):
                        raise
                finally:
                    _in_flight.pop(id(rpc), None)

        return call

    def stream_stream(self, method: str, **arguments: Any) -> Callable[..., Any]:
        """Returns what opens a stream. Ended for a fork, its methods raise CancelledError: see `was_ended`."""
        begin = self._channel.stream_stream(method, **arguments)

        def call(**options: Any) -> Any:
            return _open(begin, **options)

        return call

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
