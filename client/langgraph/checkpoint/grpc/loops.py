"""The event loop that runs in this thread, if one does."""

from __future__ import annotations

import asyncio


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Returns the event loop that runs in this thread. None: none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
