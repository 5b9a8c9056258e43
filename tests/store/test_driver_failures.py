"""Misleading failures: rights that are briefly missing, and faults in calls of the driver."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.errors import DatabaseUnavailable
from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.errors import judge
from tests.support.cluster import ORDINARY, PostgresCluster
from tests.support.tenant import Tenant, a_connection


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_right_that_is_lacking_is_asked_for_once_more(
    comes_back: bool, postgres_cluster: PostgresCluster
) -> None:
    """While Citus moves a shard, access to tables is briefly denied."""
    database = postgres_cluster.create_migrated_database(role=ORDINARY)
    take, give = (
        f"{verb} checkpointd.checkpoints {of} {ORDINARY}"
        for verb, of in (("REVOKE INSERT ON", "FROM"), ("GRANT INSERT ON", "TO"))
    )
    failed = []

    def note(record: Any) -> None:
        if record.exception is not None:
            failed.append(record)
            if comes_back:
                postgres_cluster.execute(give, database=database)

    async with open_store(StoreOptions(dsn=postgres_cluster.dsn(database, role=ORDINARY), pool_max_size=1)) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("1")
        postgres_cluster.execute(take, database=database)
        async with a_connection(store) as connection:
            connection.add_query_logger(note)
        if comes_back:
            await tenant.put("2")
        else:
            with pytest.raises(DatabaseUnavailable, match=r"lacks rights \(on table checkpoints\)"):
                await tenant.put("2")
        await asyncio.sleep(0)  # the driver reports a statement a moment later
        assert len(failed) == (1 if comes_back else 2)
        assert await tenant.ids() == (["1", "2"] if comes_back else ["1"])


def test_a_fault_in_how_the_driver_is_called_is_not_taken_for_a_lost_connection() -> None:
    assert judge(asyncpg.InterfaceError("the server expects 23 arguments for this query, 22 were passed")) is None
    lost = judge(asyncpg.InterfaceError("connection is closed"))
    assert lost is not None
    assert lost.reconnect
