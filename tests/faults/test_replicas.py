"""Several servers, several databases: replaced one after another, and failed over, under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.faults.postgres import FaultyPostgres
from tests.support.replicas import ReplicatedPostgres
from tests.support.server_process import ServerProcess
from tests.support.storm import Storm

pytestmark = pytest.mark.long


@pytest.fixture
async def servers(postgres: FaultyPostgres, tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Three servers on one database."""
    replicas = []
    for number in range(3):
        log_dir = tmp_path / f"server-{number}"
        log_dir.mkdir()
        replicas.append(ServerProcess("--database-url", postgres.dsn, log_dir=log_dir))
    async with AsyncExitStack() as stack:
        for replica in replicas:
            await asyncio.to_thread(replica.start)
            stack.callback(replica.__exit__)
        yield replicas


async def test_a_rolling_deploy_behind_a_list_of_targets_needs_no_retry_budget(
    postgres: FaultyPostgres, servers: list[ServerProcess], tmp_path: Path
) -> None:
    targets = ",".join(server.target for server in servers)
    async with Storm(targets, tmp_path, retry_budget=0) as storm:
        for server in servers:
            await asyncio.to_thread(server.stop)
            await storm.progress()
            await asyncio.to_thread(server.start)
            # As in a deployment, each server runs for a while before the next one is stopped.
            await storm.for_seconds(0.5)
    await storm.check(target=targets, dsn=postgres.dsn)


async def test_servers_behind_a_list_of_targets_that_are_killed_in_turn(
    postgres: FaultyPostgres, servers: list[ServerProcess], tmp_path: Path
) -> None:
    targets = ",".join(server.target for server in servers)
    async with Storm(targets, tmp_path) as storm:
        for server in servers:
            await asyncio.to_thread(server.kill)
            await storm.progress()
            await asyncio.to_thread(server.start)
    await storm.check(target=targets, dsn=postgres.dsn)


@pytest.mark.parametrize("how", ["killed", "cut-off"])
async def test_a_primary_that_fails_over_to_its_synchronous_standby(tmp_path: Path, how: str) -> None:
    async with ReplicatedPostgres(tmp_path / "postgres") as postgres:
        server = ServerProcess("--database-url", postgres.dsn, log_dir=tmp_path)
        await asyncio.to_thread(server.start)
        async with Storm(server.target, tmp_path) as storm:
            if how == "killed":
                postgres.kill_primary()
            else:
                await postgres.freeze_primary()
            await postgres.promote()
            await storm.progress()
        await storm.check(target=server.target, dsn=postgres.standby_dsn)
        await asyncio.to_thread(server.kill)
