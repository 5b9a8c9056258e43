"""Locks tables for a test, so calls stay in flight."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import asyncpg

from tests.support.until import until


class LockedTables:
    """All of checkpointd's tables, locked: writes wait until the block ends."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._connection: Any = None

    def __enter__(self) -> Self:
        self._runner.run(self._lock())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def await_waiter(self) -> None:
        """Waits until a statement waits for the lock."""
        self.await_waiters(1)

    def await_waiters(self, count: int) -> None:
        """Waits until this many statements wait for the lock."""
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: self._runner.run(self._connection.fetchval(query)), lambda waiting: waiting >= count)

    def release(self) -> None:
        """Releases the tables before the block ends."""
        self._runner.run(self._connection.execute("ROLLBACK"))

    async def _lock(self) -> None:
        self._connection = await asyncpg.connect(self._url)
        await self._connection.execute("BEGIN")
        tables = await self._connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'checkpointd'")
        names = ", ".join(f"checkpointd.{table['tablename']}" for table in tables)
        await self._connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
