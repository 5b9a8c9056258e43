"""Measures how long event loops compute without a break, in CPU time, which a busy machine doesn't affect."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stretches:
    """The longest stretch of each thread since the beginning, in seconds of its own CPU time."""

    def __init__(self) -> None:
        self._longest: dict[int, float] = {}

    def longest(self, thread: int) -> float:
        """Returns the longest stretch of a thread, by its number."""
        return self._longest.get(thread, 0.0)

    def note(self, seconds: float) -> None:
        """Records how long the running thread has computed."""
        thread = threading.get_ident()
        if seconds > self._longest.get(thread, 0.0):
            self._longest[thread] = seconds

    def begin_anew(self) -> None:
        """Forgets all stretches."""
        self._longest.clear()


@contextmanager
def measured_stretches() -> Iterator[Stretches]:
    """Measures each callback of event loops: nothing else runs on the loop meanwhile."""
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
