"""Awaiting clean-up that must not be cancelled: releasing a lease, closing connections, deleting half a copy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")


async def run_to_end(work: Awaitable[T]) -> T:
    """Awaits work to its end, even if the task is cancelled; then raises the cancellation.

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
            task.exception()  # otherwise lost: the cancellation has precedence
        raise cancelled
    return task.result()


def _shield() -> AbstractContextManager[object]:
    """Shields from anyio, which would otherwise cancel the wait in each iteration of the loop."""
    anyio = sys.modules.get("anyio")
    # Not imported, so nothing in this process cancels with it.
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
