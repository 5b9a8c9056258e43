"""Blocks puts, as another server's transaction would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.support.until import auntil


class Blocker:
    """Blocks every write to existing threads."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def waiting(self) -> int:
        """Returns how many other statements wait for a lock."""
        return int(
            await self._connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )

    async def until_waiting(self, number: int) -> None:
        """Waits until exactly this many statements wait for a lock."""
        await auntil(self.waiting, lambda waiting: waiting == number)


@asynccontextmanager
async def blocked(database_url: str) -> AsyncIterator[Blocker]:
    """Blocks puts while entered."""
    holder = await asyncpg.connect(database_url)
    # Within a transaction, pg_stat_activity doesn't show later connections.
    watcher = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            rows = await holder.fetch("SELECT FROM checkpointd.threads FOR UPDATE")
            assert rows, "there is nothing to block"
            yield Blocker(watcher)
    finally:
        await holder.close()
        await watcher.close()
