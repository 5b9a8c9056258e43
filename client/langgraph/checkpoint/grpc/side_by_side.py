"""Doing several requests at once, in threads or in an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Request = TypeVar("Request")

AT_ONCE = 4
"""How many requests are under way at once, for one put or read."""


def each(work: Callable[[Request], None], requests: Iterator[Request]) -> None:
    """Does work on each of the requests, a few at once, and blocks until all of it is done."""
    turns, failed = threading.Lock(), threading.Event()

    def work_off() -> None:
        while True:
            with turns:
                request = None if failed.is_set() else next(requests, None)
            if request is None:
                return
            try:
                work(request)
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(AT_ONCE) as threads:
        # With the caller's context: its token may depend on that.
        done = [threads.submit(copy_context().run, work_off) for _ in range(AT_ONCE)]
    for end in done:
        end.result()


async def aeach(work: Callable[[Request], Awaitable[None]], requests: Iterator[Request]) -> None:
    """Awaits work on each of the requests, a few at once."""
    turns = asyncio.Lock()
    failure: Exception | None = None

    async def work_off() -> None:
        while True:
            async with turns:
                # To make one may take a while.
                request = await asyncio.to_thread(next, requests, None)
            if request is None:
                return
            await work(request)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work_off())
    except ExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:
        raise failure
