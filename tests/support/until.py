"""Waiting for what comes in its own time: `until` in plain code, `auntil` where an event loop runs."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

TIMEOUT = 30.0
"""How long anything may take, in seconds: long, for the machine may be busy, and only what fails waits so long."""
PAUSE = 0.01
"""How long to wait between two looks, in seconds."""
LONGEST_SHOWN = 4000
"""How much of what was seen last an error shows, in characters: the end of it."""


def until(
    look: Callable[[], T], holds: Callable[[T], object] = bool, *, timeout: float = TIMEOUT, pause: float = PAUSE
) -> T:
    """Looks again and again, until what is seen is as it should be.

    Args:
        look: Returns what there is now. What it raises is raised.
        holds: Whether that is as it should be; without it, whatever is true.
        timeout: How long that may take, in seconds.
        pause: How long to wait between two looks, in seconds.

    Returns:
        What was seen last.

    Raises:
        AssertionError: The time is up; the message has what was seen last.
    """
    deadline = time.monotonic() + timeout
    while not holds(seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(_in_vain(timeout, _shown(seen)))
        time.sleep(pause)
    return seen


@overload
async def auntil(
    look: Callable[[], Awaitable[T]], holds: Callable[[T], object] = ..., *, timeout: float = ..., pause: float = ...
) -> T: ...
@overload
async def auntil(
    look: Callable[[], T], holds: Callable[[T], object] = ..., *, timeout: float = ..., pause: float = ...
) -> T: ...
async def auntil(
    look: Callable[[], Any], holds: Callable[[Any], object] = bool, *, timeout: float = TIMEOUT, pause: float = PAUSE
) -> Any:
    """Does what `until` does, in an event loop. `look` may be a coroutine function; one that hangs is given up."""
    shown = "nothing"
    try:
        async with asyncio.timeout(timeout) as limit:
            while True:
                found = look()
                seen = await found if inspect.isawaitable(found) else found
                if holds(seen):
                    return seen
                shown = _shown(seen)
                await asyncio.sleep(pause)
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(_in_vain(timeout, shown)) from None


def _in_vain(timeout: float, shown: str) -> str:
    return f"it didn't come within {timeout:g} s; seen last: {shown}"


def _shown(seen: object) -> str:
    text = seen if isinstance(seen, str) else repr(seen)
    return text if len(text) <= LONGEST_SHOWN else f"... {text[-LONGEST_SHOWN:]}"
