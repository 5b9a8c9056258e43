"""Memory that goes back to the system.

What a large message leaves behind is free, but lies in many small holes of the allocator's arenas, which grow with each
burst and aren't given back by themselves: the process looks as if it leaked.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress

TRIM_BYTES = 128 * 1024 * 1024
"""After how many bytes of messages memory is given back. That takes some tens of milliseconds, in a thread."""


class MallocTrim:
    """Gives memory back after every so many bytes of messages. Where there is no glibc, it does nothing."""

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
