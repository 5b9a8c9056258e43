"""Servers behind PgBouncer in transaction mode, without a setting: they detect it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from langgraph.checkpoint.grpc import GrpcSaver

from tests.faults.pgbouncer import USER, PgBouncer
from tests.faults.postgres import FaultyPostgres
from tests.support.gates import build, new_thread, said, turn
from tests.support.server_process import ServerProcess
from tests.support.storm import Storm

pytestmark = pytest.mark.long


@pytest.fixture
async def bouncer(postgres: FaultyPostgres, tmp_path: Path) -> AsyncIterator[PgBouncer]:
    """A PgBouncer with fewer connections than two servers open."""
    await postgres.let_in(USER)
    with PgBouncer(tmp_path, postgres.socket) as bouncer:
        yield bouncer


@pytest.fixture
async def servers(bouncer: PgBouncer, tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Two servers behind it. They start at the same moment on an empty database, and both migrate it."""
    replicas = []
    for number in range(2):
        log_dir = tmp_path / f"server-{number}"
        log_dir.mkdir()
        options = ("--database-url", bouncer.dsn)
        replicas.append(ServerProcess(*options, log_dir=log_dir, env={"CHECKPOINTD_LOG_LEVEL": "info"}))
    async with AsyncExitStack() as stack:
        for replica in replicas:
            replica.launch()
            stack.callback(replica.__exit__)
        for replica in replicas:
            await asyncio.to_thread(replica.wait_ready)
        yield replicas


async def test_everything_goes_through_also_while_it_is_restarted(
    postgres: FaultyPostgres, bouncer: PgBouncer, servers: list[ServerProcess], tmp_path: Path
) -> None:
    targets = ",".join(server.target for server in servers)
    async with Storm(targets, tmp_path) as storm:
        await storm.progress(200)
        bouncer.kill()
        await storm.for_seconds(0.5)
        bouncer.start()
        await storm.progress()
        await postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        await storm.progress()
    await storm.check(target=targets, dsn=postgres.dsn)
    for server in servers:
        assert "INTERNAL" not in server.stderr
        assert server.stderr.count("a pooler stands before the database") == 1
        assert "prepared" not in "".join(line for line in server.stderr.splitlines() if "warning" in line)
    await assert_nothing_stays_behind(bouncer)


async def assert_nothing_stays_behind(bouncer: PgBouncer) -> None:
    """Asserts that shared connections keep no session state for their next user."""
    connection = await asyncpg.connect(bouncer.dsn, statement_cache_size=0)
    try:
        for _ in range(10):
            async with connection.transaction():
                changed = await connection.fetch(
                    "SELECT name, setting FROM pg_settings WHERE source = 'session' AND setting <> reset_val "
                    "AND name NOT IN ('application_name', 'client_encoding', 'transaction_isolation')"
                )
                tenant = await connection.fetchval("SELECT current_setting('checkpointd.tenant', true)")
                locks = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
                prepared = await connection.fetch("SELECT FROM pg_prepared_statements WHERE name <> ''")
            assert (changed, tenant or None, locks, prepared) == ([], None, 0, [])
    finally:
        await connection.close()


async def test_leases_hold(servers: list[ServerProcess]) -> None:
    """Takes turns under leases, through both servers alternately."""
    config = new_thread()
    thread_id = config["configurable"]["thread_id"]
    async with GrpcSaver(servers[0].target) as one, GrpcSaver(servers[1].target) as two:

        async def take_turns(saver: GrpcSaver, name: str) -> None:
            for number in range(5):
                async with saver.alease(thread_id):
                    await build(saver).ainvoke(turn(f"{name}-{number}"), config)

        await asyncio.gather(take_turns(one, "one"), take_turns(two, "two"), take_turns(two, "three"))
        assert len(said(one, config)) == 3 * 5 * 4
