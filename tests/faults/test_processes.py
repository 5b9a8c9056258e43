"""Servers and databases that are killed, stopped and restarted under load: nothing is lost, and no run fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.postgres import FAST, IMMEDIATE, KILL, FaultyPostgres
from tests.support.server_process import ServerProcess
from tests.support.storm import Storm

pytestmark = pytest.mark.long


async def test_a_server_that_is_killed_again_and_again(
    postgres: FaultyPostgres, server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(server.target, tmp_path) as storm:
        for _ in range(3):
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await storm.progress()
    counts = await storm.check(target=server.target, dsn=postgres.dsn)
    # Otherwise the check of refused writes would check nothing.
    assert counts["put refused"] > 0


async def test_a_database_that_is_stopped_and_restarted(
    postgres: FaultyPostgres, server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(server.target, tmp_path) as storm:
        for how in (FAST, IMMEDIATE, KILL):
            for pause in (0.0, 1.0):
                await postgres.stop(how)
                await storm.for_seconds(pause)
                await postgres.start()
                await storm.progress()
    await storm.check(target=server.target, dsn=postgres.dsn)


async def test_sessions_of_the_database_that_are_terminated_all_at_once(
    postgres: FaultyPostgres, server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(server.target, tmp_path) as storm:
        for _ in range(6):
            await postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'checkpointd'"
            )
            await storm.progress(5)
    await storm.check(target=server.target, dsn=postgres.dsn)
