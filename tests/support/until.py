"""Waits for a condition: `until` in plain code, `auntil` in an event loop."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

TIMEOUT = 30.0
"""How long anything may take, in seconds: long, since the machine may be busy and only failures take that long."""
PAUSE = 0.01
"""How long to wait between two checks, in seconds."""
LONGEST_SHOWN = 4000
"""The maximum length of the last result in an error, in characters; its end is shown."""


def until(
    look: Callable[[], T], holds: Callable[[T], object] = bool, *, timeout: float = TIMEOUT, pause: float = PAUSE
) -> T:
    """Calls a function repeatedly until its result meets a condition.

    Args:
        look: Returns the current state. Its exceptions are passed on.
        holds: Whether the state meets the condition; by default, whether it is true.
        timeout: How long that may take, in seconds.
        pause: How long to wait between two calls, in seconds.

    Returns:
        The last result.

    Raises:
        AssertionError: The time is up; the message contains the last result.
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
    """Does what `until` does, in an event loop. `look` may be a coroutine function; it is cancelled if it hangs."""
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
