"""Work that would block the event loop, run on a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from checkpointd_server.domain.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
"""Number of threads. More would only compete for the interpreter."""
MAX_QUEUED = 64
"""Maximum number of tasks running or waiting."""


class BoundedExecutor:
    """Runs functions on a few threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="checkpointd-work")
        self._queued = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function and returns its result.

        If the caller is cancelled, this still waits for a function that has begun, because its memory is in use.

        Raises:
            Overloaded: Too many tasks are waiting.
        """
        if self._queued >= MAX_QUEUED:
            raise Overloaded(limit=MAX_QUEUED)
        self._queued += 1
        work = self._pool.submit(function, *args, **kwargs)
        ended = asyncio.wrap_future(work)
        # When the function ends, not the call: a call that is cancelled twice doesn't wait for the function.
        ended.add_done_callback(self._ended)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not work.cancel():
                await asyncio.wait((ended,))
            raise

    def _ended(self, work: asyncio.Future[T]) -> None:
        self._queued -= 1
        if not work.cancelled():
            work.exception()  # retrieves the exception: perhaps nobody else does

    def stop(self) -> None:
        """Ends the threads once their tasks are done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
