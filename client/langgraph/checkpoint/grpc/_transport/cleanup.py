"""Clean-up that awaits, and is not to be cut off: giving up a lease, closing connections, deleting half a copy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")


async def run_to_end(work: Awaitable[T]) -> T:
    """Awaits work to its end, however often the task is cancelled meanwhile. Then it is cancelled.

    anyio, on which Starlette and FastAPI run, cancels a task again at each of its awaits.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with _shield():
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # told by nobody else; the cancellation goes first
        raise cancelled
    return task.result()


def _shield() -> AbstractContextManager[object]:
    """Holds off anyio, which would otherwise cancel the wait at every turn of the loop."""
    anyio = sys.modules.get("anyio")
    # Not loaded: nobody in this process cancels with it.
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
