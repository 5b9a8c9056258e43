"""When a commit begins while another is in flight: not at once, but soon, and at once where much waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from checkpointd_server.domain.threads import thread_key
from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.writes import group_commit
from tests.support.tenant import TIMEOUT, Tenant
from tests.support.until import auntil

NEVER = 600.0
LOCK_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@asynccontextmanager
async def commit_in_flight(options: StoreOptions, tenant: Tenant) -> AsyncIterator[asyncio.Task[int]]:
    """Has a put of a new thread wait for somebody who is just making the same thread. Yields that put."""
    holder, watcher = await asyncpg.connect(options.dsn), await asyncpg.connect(options.dsn)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(
            "INSERT INTO checkpointd.threads (thread, tenant, thread_id) VALUES ($1, 'tenant', 'slow')",
            thread_key("tenant", "slow"),
        )
        put = asyncio.create_task(tenant.put("c0", thread="slow"))
        await auntil(lambda: watcher.fetchval(LOCK_WAITS))
        yield put
        assert not put.done()
        await transaction.rollback()
        assert isinstance(await asyncio.wait_for(put, TIMEOUT), int)
    finally:
        await holder.close()
        await watcher.close()


async def test_what_comes_during_a_commit_shares_the_next(
    own_options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "JOIN_SECONDS", NEVER)
    monkeypatch.setattr(group_commit, "SLOW_SECONDS", NEVER)
    async with open_store(own_options) as store:
        tenant, puts = Tenant(store, "tenant"), list[asyncio.Task[int]]()
        async with commit_in_flight(own_options, tenant):
            for number in range(10):
                puts.append(asyncio.create_task(tenant.put("c0", thread=f"t{number}")))
                await asyncio.sleep(0.01)
            assert not any(put.done() for put in puts)
        await asyncio.wait_for(asyncio.gather(*puts), TIMEOUT)
    connection = await asyncpg.connect(own_options.dsn)
    try:
        commits = "SELECT count(DISTINCT xmin::text) FROM checkpointd.checkpoints WHERE checkpoint_id = 'c0'"
        assert await connection.fetchval(commits) == 2
    finally:
        await connection.close()


async def test_a_commit_that_takes_long_is_joined_by_another(
    own_options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "SLOW_SECONDS", NEVER)
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        async with commit_in_flight(own_options, tenant):
            for number in range(3):
                await asyncio.wait_for(tenant.put("c0", thread=f"t{number}"), TIMEOUT)


async def test_where_much_waits_another_commit_begins_at_once(
    own_options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "JOIN_SECONDS", NEVER)
    monkeypatch.setattr(group_commit, "SLOW_SECONDS", NEVER)
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        async with commit_in_flight(own_options, tenant):
            puts = [tenant.put("c0", thread=f"t{number}") for number in range(group_commit.JOIN_WRITES)]
            await asyncio.wait_for(asyncio.gather(*puts), TIMEOUT)
