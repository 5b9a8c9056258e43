"""Round trips: the number of statements that a verb takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from tests.support.tenant import Tenant, a_connection, write


@contextlib.asynccontextmanager
async def _counted(options: StoreOptions) -> AsyncIterator[tuple[PostgresStore, list[str]]]:
    """A store with one connection, and all statements that are sent over it."""
    statements: list[str] = []
    async with open_store(replace(options, pool_max_size=1)) as store:
        async with a_connection(store) as connection:
            connection.add_query_logger(lambda record: statements.append(record.query))
        yield store, statements


async def test_the_verbs_of_a_run_are_one_statement_each(own_options: StoreOptions) -> None:
    async with _counted(own_options) as (store, statements):
        tenant = Tenant(store, "tenant")
        version = await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"A", "b": None}, writer=b"me")
        await tenant.writes("1", write("task", 0, "a", b""))  # the driver looks up array types once
        await tenant.get()
        for call in (
            tenant.put("2", versions={"a": "1"}, expect=version, expect_writer=b"me"),
            tenant.put("3", writer=b"me"),
            tenant.writes("2", write("task", 0, "a", b"")),
            tenant.writes("2", write("task", 1, "a", b""), expect_writer=b"me"),
            tenant.get(),
            tenant.get("2"),
            tenant.page(thread_id="t", checkpoint_ns="", before_checkpoint_id="3", page_size=1),
            tenant.page(thread_id="t"),
            tenant.page(),
            tenant.history("a"),
        ):
            await asyncio.sleep(0)  # the driver reports a statement a moment later
            statements.clear()
            await call
            await asyncio.sleep(0)
            assert len(statements) == 1


async def test_without_prepared_statements_every_call_is_a_transaction(own_options: StoreOptions) -> None:
    # A transaction pooler may send each statement outside a transaction to another server connection.
    async with _counted(replace(own_options, statement_cache_size=0)) as (store, statements):
        tenant = Tenant(store, "tenant")
        await tenant.put("1")  # the driver looks up array types once
        await asyncio.sleep(0)  # it reports a statement a moment later
        statements.clear()
        await tenant.put("2")
        await asyncio.sleep(0)
        assert (statements[0].split()[0].rstrip(";"), statements[-1]) == ("BEGIN", "COMMIT")
        assert len(statements) == 3
        assert await tenant.ids() == ["1", "2"]
