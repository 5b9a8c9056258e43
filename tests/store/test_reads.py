"""Reading one checkpoint, and what it costs."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from tests.store.pieces import use_functions

from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.statements import load_statements, quote_literal
from tests.store.long_history import FILL
from tests.support.tenant import Tenant, write


async def test_the_latest_has_the_greatest_id_not_the_last_put(tenant: Tenant) -> None:
    await tenant.put("2")
    version = await tenant.put("1")
    assert (await tenant.read()).checkpoint_id == "2"
    assert (await tenant.get()).version == version


async def test_ids_are_compared_bytewise(tenant: Tenant) -> None:
    for checkpoint_id in ("a", "B", "\U0001f600", "\uffee", "ab"):
        await tenant.put(checkpoint_id)
    assert await tenant.ids() == ["B", "a", "ab", "\uffee", "\U0001f600"]
    assert (await tenant.read()).checkpoint_id == "\U0001f600"


async def test_absence_is_an_answer(tenant: Tenant) -> None:
    assert await tenant.get() == (None, 0, [])
    assert await tenant.get("1") == (None, 0, [])
    version = await tenant.put("1")
    assert await tenant.get("2") == (None, version, [])


async def test_nobody_reads_another_tenants_checkpoints(tenant: Tenant) -> None:
    other = Tenant(tenant.store, tenant.name + "x")
    await tenant.put("1", versions={"a": "1"}, values={"a": b"A"}, metadata={"run_id": "r"})
    await tenant.writes("1", write("task", 0, "a", b""))
    assert await other.get() == (None, 0, [])
    assert await other.listed() == []
    assert await other.delete() == 0
    assert await other.delete_runs("r") == 0
    assert await other.copy("t", "copy") == 0
    assert await other.prune("t") == 0
    assert len((await tenant.read()).pending_writes) == 1


async def test_neither_values_nor_writes_of_another_namespace_are_read(tenant: Tenant) -> None:
    for thread, ns in (("t", ""), ("t", "child"), ("other", "")):
        await tenant.put("1", thread=thread, ns=ns, versions={"a": "1"}, values={"a": (thread + ns).encode()})
        await tenant.writes("1", write("task", 0, "a", (thread + ns).encode()), thread=thread, ns=ns)
    for thread, ns in (("t", ""), ("t", "child"), ("other", "")):
        assert await tenant.values(thread=thread, ns=ns) == {"a": (thread + ns).encode()}
        assert [w.value.data for w in (await tenant.read(thread=thread, ns=ns)).pending_writes] == [
            (thread + ns).encode()
        ]


async def test_large_values_come_back(tenant: Tenant) -> None:
    data = bytes(range(256)) * 2000
    await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": data, "b": data[1:]}, body=data)
    stored = await tenant.read()
    assert stored.body == data
    assert await tenant.values() == {"a": data, "b": data[1:]}


async def _explain(connection: Any, statement: str, *args: str) -> tuple[int, str]:
    """Runs a statement with the plan that a prepared one keeps; returns the pages it touched and the plan."""
    sql = load_statements("checkpointd")[statement]
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE statement AS {sql}")
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE statement({', '.join(args)})")
    await connection.execute("DEALLOCATE statement")
    plan = json.loads(rows[0][0])[0]
    return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"], json.dumps(plan["Plan"], indent=1)


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
async def test_reading_costs_the_same_after_ten_thousand_checkpoints_as_after_ten(
    own_options: StoreOptions, analyzed: bool
) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    try:
        await connection.execute("SET statement_timeout = '60s'")
        await connection.execute(FILL.format(thread="long", last=10_000))
        await connection.execute(FILL.format(thread="short", last=10))
        if analyzed:
            await connection.execute("ANALYZE")
        for statement, more in (("get_latest", []), ("get_by_id", ["'00000005'"])):
            pages = {}
            for thread in ("short", "long"):
                pages[thread], plan = await _explain(connection, statement, "'t'", quote_literal(thread), "''", *more)
                assert "Seq Scan" not in plan
                assert "Hash Join" not in plan
            assert pages["long"] <= pages["short"] + 5
            assert pages["long"] < 60
    finally:
        await connection.close()


async def test_a_list_reads_no_more_than_its_page(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    try:
        await connection.execute(FILL.format(thread="long", last=10_000))
        for analyze in ("SELECT 1", "ANALYZE"):
            await connection.execute(analyze)
            above = "repeat(chr(1114111), 64)"
            args = ["''", above, "'00005000'", "NULL", above, "''", "''", "11", "10", "1000000", "true"]
            for statement, thread, ns in (
                ("list_namespace", "'long'", "''"),
                ("list_thread", "'long'", "NULL"),
                ("list_tenant", "NULL", "NULL"),
            ):
                pages, plan = await _explain(connection, statement, "'t'", thread, ns, *args)
                assert pages < 600, plan
    finally:
        await connection.close()


PUT = ["'t'", "'long'", "''", "'00010001'", "'00010000'", "''", "'{a,b}'", "'{v2,v3}'", "'json'", "''", "'{}'"]
PUT += ["NULL", "'me'", "'request'", "'{a,b}'", "'{v10001,v10001}'", "'{json,json}'", "'{x,y}'", "'{c}'"]
"""A put of a checkpoint, up to the version of its channel "c"."""
ALONG = ["'{00010000}'", "'{task}'", "'{0}'", "'{path}'", "'{a}'", "'{json}'", "'{x}'", "'{NULL}'", "'{request}'"]
"""A task write that goes with a put."""
PIECES = ["'{}'", "ARRAY[sha256('x')]", "'{0}'", "'{x}'"]
"""A piece that comes with a put, or with task writes."""


async def test_a_put_finds_its_rows_by_index(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    try:
        await connection.execute(FILL.format(thread="long", last=10_000))
        row = [*PUT, "'{v9}'"]
        await use_functions(connection)
        await connection.execute("BEGIN")
        more = [*ALONG, *PIECES]
        for statement, expected, along in (
            ("put_checkpoint", "true", []),
            ("put_checkpoint_if", "1", []),
            ("put_with_more", "true", more),
            ("put_with_more_if", "1", more),
        ):
            last = [expected, "'me'", "0", "'{NULL,NULL}'"]
            pages, plan = await _explain(connection, statement, *row, *last, *along)
            assert "Seq Scan" not in plan
            assert pages < 250, plan
            await connection.execute("ROLLBACK; BEGIN")
    finally:
        await connection.close()


async def test_a_plan_made_for_empty_tables_serves_full_ones(own_options: StoreOptions) -> None:
    """A prepared statement keeps its plan until the tables are analyzed, which a young database has not been."""
    put = [*PUT, "'{v9999}'"]
    writes = [
        "'t'",
        "'long'",
        "''",
        "'00010000'",
        "'{task}'",
        "'{0}'",
        "'{path}'",
        "'{a}'",
        "'{json}'",
        "'{x}'",
        "0",
        "'{NULL}'",
        "'request'",
        *PIECES,
    ]
    statements = {
        "put_checkpoint": [*put, "true", "'me'", "0", "'{NULL,NULL}'"],
        "put_checkpoint_if": [*put, "1", "'me'", "0", "'{NULL,NULL}'"],
        "put_with_more": [*put, "true", "'me'", "0", "'{NULL,NULL}'", *ALONG, *PIECES],
        "put_with_more_if": [*put, "1", "'me'", "0", "'{NULL,NULL}'", *ALONG, *PIECES],
        "put_writes": writes,
        "put_writes_if": [*writes, "1", "'me'"],
        "explain_writes": [*writes[:4], "'request'", "'{task}'", "'{0}'"],
        "get_latest": ["'t'", "'long'", "''"],
        "get_by_id": ["'t'", "'long'", "''", "'00000005'"],
    }
    connection = await asyncpg.connect(own_options.dsn)
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for statement, sql in load_statements("checkpointd").items():
            if statement in statements:
                await connection.execute(f"PREPARE {statement} AS {sql}")
                await connection.execute(f"BEGIN; EXECUTE {statement}({', '.join(statements[statement])}); ROLLBACK")
        await connection.execute(FILL.format(thread="long", last=10_000))
        await connection.execute("DELETE FROM checkpointd.channel_values WHERE channel = 'c' AND version = 'v9999'")
        for statement, args in statements.items():
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {statement}({', '.join(args)})"
            async with connection.transaction():
                plan = json.loads((await connection.fetch(explain))[0][0])[0]["Plan"]
            assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 250, json.dumps(plan, indent=1)
    finally:
        await connection.close()


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
            await tenant.get("1")
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await tenant.listed()
