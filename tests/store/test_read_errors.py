"""Errors of PostgreSQL during a read aren't the caller's fault."""

from __future__ import annotations

import asyncpg
import pytest

from checkpointd_server.store import StoreOptions, open_store
from tests.support.tenant import Tenant, write


async def test_what_is_wrong_with_the_database_is_not_the_readers_fault(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "acme")
        await tenant.put("1")
        await tenant.writes("1", write("task", 0, "a", b""))
        connection = await asyncpg.connect(own_options.dsn)
        try:
            await connection.execute(
                "ALTER TABLE checkpointd.task_writes RENAME TO damaged; "
                "CREATE VIEW checkpointd.task_writes AS "
                "SELECT * FROM checkpointd.damaged WHERE (task_id || 'x')::integer IS NOT NULL"
            )
        finally:
            await connection.close()
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await tenant.read()
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await tenant.listed()
