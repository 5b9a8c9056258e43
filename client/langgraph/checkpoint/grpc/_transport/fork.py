"""Forks: a child never touches its parent's loops and calls, and a parent's calls are ended before it forks.

In a forked child grpc starts its threads anew, but not those that serve event loops: there grpc.aio would wait for
ever. And where a call of grpc.aio is in flight at the moment of the fork, these threads crash the child, even one that
never uses the saver: a worker of a process pool, say, that a tool starts while LangGraph saves in the background. So
all such calls are ended before, and made again by the parent after; all calls of checkpointd may be sent again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from langgraph.checkpoint.grpc._transport.operation import local_error

import grpc
import grpc.aio

# Copied in one go, since the fork may come from any thread.
_in_flight: dict[int, weakref.ref[Any]] = {}
_ended: weakref.WeakSet[Any] = weakref.WeakSet()
_hooks: dict[int, Callable[[], Callable[[], None] | None]] = {}
_numbers = itertools.count()
_generation = 0
_used_aio = False
_at_work = False
"""Between the begin of a fork and its end: whether grpc.aio is at work, for us or for another library."""
_lost_aio = False
_POLLER = "_poll_wrapper"
"""What the thread runs that polls for grpc.aio. Threads are named after it."""


def generation() -> int:
    """Returns how often the process was forked since this module was imported; 0 in the process that imported it."""
    return _generation


def note_aio() -> None:
    """Notes that this process uses grpc.aio, so that its forked children can't."""
    global _used_aio
    _used_aio = True


def lost_aio() -> bool:
    """Whether grpc.aio can't be used in this process: it was forked after its parent had used it."""
    return _lost_aio


def in_child(hook: Callable[[], None]) -> None:
    """Has a function called in each forked child, before anything else runs there."""
    _hooks[next(_numbers)] = lambda: hook


def in_child_for(owner: Any, hook: str) -> None:
    """Has a method called in each forked child, for as long as its object lives."""
    number = next(_numbers)
    reference = weakref.ref(owner, lambda _: _hooks.pop(number, None))
    _hooks[number] = lambda: getattr(reference(), hook, None)


def _keep(call: Any) -> None:
    number = id(call)
    _in_flight[number] = weakref.ref(call, lambda _: _in_flight.pop(number, None))


def _core_of(call: Any) -> Any:
    """Returns what of a call belongs to grpc's core; None if it isn't there.

    Instrumentation (OpenTelemetry's, Sentry's and others') puts interceptors between: then it is an inner call's.
    """
    for _ in range(8):
        core = getattr(call, "_cython_call", None)
        if core is not None:
            return core
        task = getattr(call, "_interceptors_task", None)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        call = task.result()
    return None


def _before() -> None:
    global _at_work
    _at_work = _used_aio or any(_POLLER in thread.name for thread in threading.enumerate())
    _end_calls()


def _end_calls() -> None:
    """Ends all calls. Nothing of theirs is touched but what is grpc's core: they belong to other threads, maybe."""
    for reference in list(_in_flight.values()):
        call = reference()
        if call is not None and not call.done() and (core := _core_of(call)) is not None:
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
                    response = await rpc
                    if response is None:  # all that grpc.aio says of an answer that it can't parse
                        raise local_error(grpc.StatusCode.INTERNAL, "the answer could not be read")
                    return response
                except asyncio.CancelledError:
                    if not was_ended(rpc):
                        raise
                finally:
                    _in_flight.pop(id(rpc), None)

        return call

    def stream_stream(self, method: str, **arguments: Any) -> Callable[..., Any]:
        """Returns what opens a stream. Ended for a fork, its methods raise CancelledError: see `was_ended`."""
        begin = self._channel.stream_stream(method, **arguments)

        def call(**options: Any) -> Any:
            rpc = begin(**options)
            _keep(rpc)
            return rpc

        return call

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
