"""Values in pieces, and what tests ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from checkpointd_server.domain.model import StoredCheckpoint
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.database import Session
from tests.support.tenant import TIMEOUT, Tenant, gather_results, in_pieces, piece
from tests.support.until import auntil


def names_of(*parts: bytes) -> set[bytes]:
    return {piece(part).name for part in parts}


async def put(
    tenant: Tenant, checkpoint_id: str, *parts: bytes, thread: str = "t", version: str = "", **more: object
) -> int:
    """Puts a checkpoint whose channel "a" has these pieces, and brings them all along."""
    version = version or checkpoint_id
    values = {"a": in_pieces(*parts)}
    sent = [piece(part) for part in dict.fromkeys(parts)]
    return await tenant.put(checkpoint_id, thread=thread, versions={"a": version}, values=values, pieces=sent, **more)  # type: ignore[arg-type]


async def upload(tenant: Tenant, *parts: bytes, thread: str = "t") -> None:
    sent = [piece(part) for part in parts]
    await tenant.store.put_pieces(tenant.name, thread, sent, timeout=TIMEOUT)


async def names(tenant: Tenant, thread: str = "t") -> set[bytes]:
    """The names of the pieces that a thread has."""
    query = "SELECT digest FROM checkpointd.pieces WHERE tenant = $1 AND thread_id = $2"
    return {row["digest"] for row in await tenant.select(query, tenant.name, thread)}


async def contents(tenant: Tenant) -> list[bytes]:
    """What the tenant's pieces hold."""
    query = "SELECT data FROM checkpointd.piece_contents WHERE tenant = $1 ORDER BY data"
    return [row["data"] for row in await tenant.select(query, tenant.name)]


async def queued(tenant: Tenant) -> dict[str, float]:
    """The threads that are to be looked at, and in how many seconds."""
    query = """
        SELECT thread_id, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in
        FROM checkpointd.piece_sweeps WHERE tenant = $1
    """
    return {row["thread_id"]: row["due_in"] for row in await tenant.select(query, tenant.name)}


async def collect(tenant: Tenant) -> None:
    """Has all that is due looked at."""
    while await tenant.store.collect_pieces():
        pass


async def read(tenant: Tenant, checkpoint_id: str | None = None, *, thread: str = "t") -> bytes:
    """Reads the channel "a" of a checkpoint, asking for its pieces."""
    stored = await tenant.read(checkpoint_id, thread=thread)
    return await joined(tenant, stored, thread)


async def joined(tenant: Tenant, stored: StoredCheckpoint, thread: str) -> bytes:
    (entry,) = stored.values
    assert entry.value is not None
    assert entry.value.pieces is not None
    found = await tenant.store.get_pieces(tenant.name, thread, entry.value.pieces.names, timeout=TIMEOUT)
    assert found.missing == []
    by_name = {piece.name: piece.data for piece in found.pieces}
    data = b"".join(by_name[name] for name in entry.value.pieces.names)
    assert len(data) == entry.value.pieces.size
    return data


def hasty(options: StoreOptions, grace: float) -> AbstractAsyncContextManager[PostgresStore]:
    """Opens a store that spares what was sent ahead for this long only."""
    return open_store(StoreOptions(dsn=options.dsn, upload_grace=grace))


@asynccontextmanager
async def holding(tenant: Tenant, sql: str, *args: object, undo: bool = False) -> AsyncIterator[None]:
    """Runs a statement in a transaction that lasts as long as the context, and then is rolled back if wanted."""
    held, release = asyncio.Event(), asyncio.Event()

    async def work(session: Session) -> None:
        await session._connection.fetch(sql, *args)
        held.set()
        await release.wait()
        if undo:
            raise InterruptedError

    holder = asyncio.ensure_future(tenant.store._connections.of(tenant.name).transact(work, timeout=None))
    try:
        await held.wait()
        yield
    finally:
        release.set()
        (result,) = await gather_results(holder)
    assert result is None or undo


async def until_waiting(tenant: Tenant, number: int) -> None:
    """Waits until so many statements wait for a lock."""
    query = """
        SELECT count(*) AS waiting FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()
    """
    await auntil(lambda: tenant.select(query), lambda rows: rows[0]["waiting"] == number)


async def pass_time(tenant: Tenant, seconds: float) -> None:
    """Lets time pass for what was sent ahead."""
    for table, column in (("pieces", "uploaded_at"), ("piece_sweeps", "due_at")):
        query = f"UPDATE checkpointd.{table} SET {column} = {column} - make_interval(secs => $2) WHERE tenant = $1"
        await tenant.select(query, tenant.name, seconds)


async def use_functions(connection: Any) -> None:
    """Has a connection plan what is in the functions that statements call."""
    await connection.execute("BEGIN; SELECT checkpointd.missing_pieces('t', '', '{x}')")
    await connection.execute("SELECT checkpointd.store_pieces('t', '', '{x}', '{0}', '{x}', NULL, true); ROLLBACK")
