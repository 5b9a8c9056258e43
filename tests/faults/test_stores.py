"""Servers and databases that are killed while clients use a store: acknowledged writes are stored, exactly once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcStore

from tests.faults.postgres import FAST, KILL, FaultyPostgres
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

pytestmark = pytest.mark.long

CALLERS = 16
PLACE = ("faults", "counters")


async def count_through(store: GrpcStore, break_things: Callable[[], Awaitable[None]]) -> None:
    """Runs clients that each count in their own item while things break, and checks what each reads back."""
    counts, stopping = [0] * CALLERS, False

    async def count(number: int) -> None:
        version = 0
        while not stopping:
            value = counts[number] + 1
            # A stored put that is repeated because its answer was lost doesn't conflict with itself.
            await store.aput(PLACE, f"{number}", {"count": value}, if_version_match=version)
            item: Any = await store.aget(PLACE, f"{number}")
            assert item.value == {"count": value}
            assert item.version > version
            version, counts[number] = item.version, value

    async def progress() -> None:
        before = list(counts)
        await auntil(lambda: all(now > then for now, then in zip(counts, before, strict=True)))

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(count(number))
        for _ in range(3):
            await progress()
            await break_things()
        await progress()
        stopping = True
    found = {item.key: item.value["count"] for item in await store.asearch(PLACE, limit=CALLERS)}
    assert found == {f"{number}": value for number, value in enumerate(counts)}


async def test_a_server_that_is_killed_again_and_again(postgres: FaultyPostgres, server: ServerProcess) -> None:
    async def kill() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    async with GrpcStore(server.target, retry_budget=120.0) as store:
        await count_through(store, kill)


@pytest.mark.parametrize("how", [FAST, KILL])
async def test_a_database_that_is_stopped_and_restarted(
    postgres: FaultyPostgres, server: ServerProcess, how: signal.Signals
) -> None:
    async def restart() -> None:
        await postgres.stop(how)
        await postgres.start()

    async with GrpcStore(server.target, retry_budget=120.0) as store:
        await count_through(store, restart)
