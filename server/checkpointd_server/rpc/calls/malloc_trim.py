"""Return of free memory to the system.

The freed memory of large messages is scattered over the allocator's arenas, which grow with each burst and aren't
returned automatically, so that the process seems to leak.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress

TRIM_BYTES = 128 * 1024 * 1024
"""Number of bytes of messages after which memory is returned, which takes some tens of milliseconds in a thread."""


class MallocTrim:
    """Returns memory each time a number of bytes of messages has passed. Does nothing without glibc."""

    def __init__(self) -> None:
        self._trim: Callable[[int], int] | None = None
        with suppress(AttributeError, OSError):
            self._trim = ctypes.CDLL(None).malloc_trim
        self._passed = 0
        self._trimming: asyncio.Future[int] | None = None

    def passed(self, size: int) -> None:
        """Records that a message was read or sent."""
        self._passed += size
        if self._passed >= TRIM_BYTES and self._trim is not None and (self._trimming is None or self._trimming.done()):
            self._passed = 0
            self._trimming = asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
