"""Servers in which tests provoke errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from checkpointd.v1 import checkpoint_service_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class World:
    """Means for tests to provoke errors."""

    serve: Any
    blocker: Any
    database_url: str
    keys_file: Path
    store: Any

    async def sql(self, statement: str, *, database: str | None = None) -> None:
        """Runs a statement behind the server's back."""
        connection = await asyncpg.connect(self.database_url, database=database)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def busy(self, **options: Any) -> AsyncIterator[tuple[Any, Any, asyncio.Task[Any], Any]]:
        """A server with one put at work, which waits as long as `blocker` holds it up."""
        async with self.serve(**options) as (server, client):
            await client.checkpoints.PutCheckpoint(client.put_request())
            async with self.blocker() as blocked:
                put = asyncio.create_task(put_another(client))
                await blocked.until_waiting(1)
                yield server, client, put, blocked


async def put_another(client: Any, **options: Any) -> int:
    response = await client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id="checkpoint-2"), **options)
    return int(response.version)


async def internal(world: World) -> Any:
    """Provokes an internal error, and returns what the client receives."""
    async with world.serve() as (_, client):
        await world.sql("ALTER TABLE checkpointd.checkpoints RENAME TO stolen")
        return await client.refused(client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t")))
