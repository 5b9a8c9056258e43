"""Waiters: how a thread, or a task of an event loop, waits for an event in another one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class ThreadWaiter:
    """Blocks a thread until it is released."""

    __slots__ = ("_lock",)

    loop = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout: float = -1) -> None:
        """Blocks until released, or for a number of seconds."""
        self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Wakes the thread. Further calls do nothing."""
        if self._lock.locked():
            with suppress(RuntimeError):
                self._lock.release()


class LoopWaiter:
    """Can be awaited in the event loop in which it was created, and released from any thread."""

    __slots__ = ("_future", "_is_released", "_thread", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] | None = None
        self._is_released = False

    def wait(self) -> asyncio.Future[None]:
        """Returns the awaitable."""
        future = self._future = self.loop.create_future()
        if self._is_released:
            future.set_result(None)
        return future

    def release(self) -> None:
        """Wakes the task. Further calls do nothing."""
        if threading.get_ident() == self._thread:
            self._release()
        else:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits in it
                self.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._is_released = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


Waiter = ThreadWaiter | LoopWaiter
