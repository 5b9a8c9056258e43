"""Work that would hold up the event loop, on a few threads, counted until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from checkpointd_server.domain.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
"""How much is done at once. More would only take turns."""
MAX_QUEUED = 64
"""How much is under way or waits for its turn."""


class BoundedExecutor:
    """Runs functions on a few threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="checkpointd-work")
        self._queued = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function and returns what it does.

        A cancelled call ends when the function does, unless that hasn't begun: what it holds is held until then.

        Raises:
            Overloaded: As much waits as may.
        """
        if self._queued >= MAX_QUEUED:
            raise Overloaded(limit=MAX_QUEUED)
        self._queued += 1
        work = self._pool.submit(function, *args, **kwargs)
        ended = asyncio.wrap_future(work)
        # Not when the call ends: one that is cancelled twice doesn't wait for it.
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
            work.exception()  # it may be that nobody else asks for it

    def stop(self) -> None:
        """Ends the threads, as soon as what they do is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
