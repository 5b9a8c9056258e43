"""How long an event loop of this process computes at a time, in CPU time: a busy machine doesn't make it longer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stretches:
    """The longest stretch of each thread since the begin, in seconds of its own CPU time."""

    def __init__(self) -> None:
        self._longest: dict[int, float] = {}

    def longest(self, thread: int) -> float:
        """Returns that of a thread, by its number."""
        return self._longest.get(thread, 0.0)

    def note(self, seconds: float) -> None:
        """Notes how long the running thread has computed."""
        thread = threading.get_ident()
        if seconds > self._longest.get(thread, 0.0):
            self._longest[thread] = seconds

    def begin_anew(self) -> None:
        """Forgets what was longest."""
        self._longest.clear()


@contextmanager
def measured_stretches() -> Iterator[Stretches]:
    """Measures everything that event loops run: from one callback to the next nobody else gets a turn."""
    stretches = Stretches()
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> Any:
        begun = time.thread_time()
        try:
            return run(handle)
        finally:
            stretches.note(time.thread_time() - begun)

    asyncio.Handle._run = measured  # type: ignore[method-assign, assignment]
    try:
        yield stretches
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
