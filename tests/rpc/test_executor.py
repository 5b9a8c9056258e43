"""Work in threads is bounded, and counts until it ends, even if its call ends earlier."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from checkpointd_server.domain.errors import Overloaded
from checkpointd_server.rpc.calls.executor import MAX_QUEUED, THREADS, BoundedExecutor
from tests.support.until import auntil


@pytest.fixture
async def executor() -> AsyncIterator[BoundedExecutor]:
    executor = BoundedExecutor()
    yield executor
    executor.stop()


async def test_beyond_the_bound_work_is_refused_until_some_has_ended(executor: BoundedExecutor) -> None:
    go_on = threading.Event()
    waiting = [asyncio.create_task(executor.run(go_on.wait)) for _ in range(MAX_QUEUED)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await executor.run(int)
    go_on.set()
    assert await asyncio.gather(*waiting) == [True] * MAX_QUEUED
    assert await executor.run(int) == 0


@pytest.mark.parametrize("times", [1, 2])
async def test_what_outlives_its_call_counts_until_it_ends(executor: BoundedExecutor, times: int) -> None:
    go_on, at_work = threading.Event(), []

    def work() -> None:
        at_work.append(1)
        go_on.wait()

    calls = [asyncio.create_task(executor.run(work)) for _ in range(MAX_QUEUED)]
    await auntil(lambda: len(at_work), lambda number: number == THREADS)
    for _ in range(times):
        for call in calls:
            call.cancel()
        await asyncio.sleep(0.01)
    # Work that has begun still fills the threads; work that hadn't is dropped.
    more = [asyncio.create_task(executor.run(int)) for _ in range(MAX_QUEUED - THREADS)]
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await executor.run(int)
    go_on.set()
    assert await asyncio.gather(*more) == [0] * len(more)
    await asyncio.gather(*calls, return_exceptions=True)
    assert len(at_work) == THREADS


async def test_what_fails_fails_its_call(executor: BoundedExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        await executor.run(divmod, 1, 0)
