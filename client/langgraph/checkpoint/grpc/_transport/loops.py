"""Event loops: the running one, and a background loop for all other calls."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

from langgraph.checkpoint.grpc._transport import fork

Result = TypeVar("Result")

EXIT_SECONDS = 2.0
"""Maximum time that the process waits at exit for the background loop, in seconds."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Returns the event loop that runs in this thread. None: none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class BackgroundLoop:
    """An event loop in a daemon thread, which lives as long as the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._generation = fork.generation()
        self._closers: dict[object, Callable[[], Coroutine[Any, Any, None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="checkpointd", daemon=True)
        Context().run(self._thread.start)  # it may inherit a context, for ever
        atexit.register(self._end)

    def do(self, work: Callable[[], Result]) -> Result:
        """Runs work in the loop, and blocks until it is done."""
        done: Future[Result] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(do)
        return done.result()

    def at_exit(self, user: object, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Registers something to close before the process exits, unless `close_for` closes it. Call it in the loop."""
        self._closers[user] = close

    def close_for(self, user: object) -> None:
        """Closes what was registered for a user, without waiting."""
        self.loop.call_soon_threadsafe(self._close_for, user)

    def _close_for(self, user: object) -> None:
        if (close := self._closers.pop(user, None)) is not None:
            closing = self.loop.create_task(close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def _end(self) -> None:
        """Ends the loop. gRPC complains about calls and channels that are open when the interpreter exits."""
        if fork.generation() != self._generation or not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self.loop)
        self._thread.join(EXIT_SECONDS)

    async def _close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_SECONDS / 2):
                for user in list(self._closers):
                    self._close_for(user)
                # All of them, those of savers that were closed just now too: a task that the loop's end leaves pending
                # is complained of.
                await asyncio.gather(*self._closing, return_exceptions=True)
        self.loop.stop()


_lock = threading.Lock()
_background: BackgroundLoop | None = None


def background() -> BackgroundLoop:
    """Returns the process's background loop."""
    global _background
    with _lock:
        if _background is None:
            _background = BackgroundLoop()
        return _background


def _after_fork() -> None:
    """Drops the loop in a forked child: its thread doesn't exist there, and it must not be used."""
    global _background, _lock, _abandoned
    _abandoned, _background, _lock = _background, None, threading.Lock()


_abandoned: BackgroundLoop | None = None
fork.in_child(_after_fork)
