"""What pieces cost: each statement finds its rows by index, and no work grows with the square of a thread."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from checkpointd_server.store import StoreOptions
from checkpointd_server.store.statements import load_statements
from tests.store.pieces import use_functions

NAMES = 100_000

FILL = f"""
INSERT INTO checkpointd.pieces (tenant, thread_id, digest, content_id)
    SELECT 't', thread.name, sha256(n::text::bytea), n + thread.first
    FROM generate_series(1, {NAMES}) AS n, (VALUES ('long', 0), ('other', {NAMES})) AS thread (name, first);
INSERT INTO checkpointd.piece_contents (tenant, content_id, compression, data)
    SELECT 't', n, 0, 'x' FROM generate_series(1, {2 * NAMES}) AS n;
SELECT setval('checkpointd.piece_content_ids', {2 * NAMES});
INSERT INTO checkpointd.channel_values (tenant, thread_id, checkpoint_ns, channel, version, type, data, size)
    SELECT
        't', 'long', '', 'channel', to_char(v, 'FM00000000'), 'x',
        (SELECT string_agg(sha256(n::text::bytea), ''::bytea) FROM generate_series(v * 1000 + 1, v * 1000 + 1000) AS n),
        1000
    FROM generate_series(0, {NAMES // 2000 - 1}) AS v;
"""
"""Two threads with as many pieces each. Half of the first one's are referred to, by values of a thousand each."""

DIGESTS = "(SELECT array_agg(sha256(n::text::bytea)) FROM generate_series(1, 100) AS n)"
ALL = f"(SELECT array_agg(sha256(n::text::bytea)) FROM generate_series(1, {NAMES}) AS n)"
NEW = "(SELECT array_agg(sha256(n::text::bytea)) FROM generate_series(-100, -1) AS n)"
NEW_ONES = [
    "(SELECT array_agg(0) FROM generate_series(1, 100))",
    "(SELECT array_agg('x'::bytea) FROM generate_series(1, 100))",
]
BOUND = {
    "missing_pieces": ["'t'", "'long'", DIGESTS],
    "store_pieces": ["'t'", "'long'", NEW, *NEW_ONES],
    "upload_pieces": ["'t'", "'long'", NEW, *NEW_ONES, "3600"],
    "get_pieces": ["'t'", "'long'", DIGESTS, "1000000"],
    "get_stored_value": ["'t'", "'long'", "''", "'channel'", "'00000001'"],
    "get_stored_write": ["'t'", "'long'", "''", "'1'", "'task'", "0"],
    "queue_sweeps": ["'t'", "'{long,other,none}'"],
    "due_sweeps": [],
    "begin_sweep": ["'t'", "'long'"],
    "queue_sweep_later": ["'t'", "'long'", "60"],
    "postpone_sweep": ["'t'", "'long'", "60"],
    "lock_contents": ["'t'", "(SELECT array_agg(n) FROM generate_series(1, 100) AS n)"],
    "delete_nameless_contents": ["'t'", "(SELECT array_agg(n) FROM generate_series(1, 100) AS n)"],
}
"""Statements about a hundred pieces, or a thread."""
WHOLE = {
    "delete_unreferenced_pieces": ["'t'", "'long'", "3600"],
    "lock_contents": ["'t'", f"(SELECT array_agg(n) FROM generate_series(1, {NAMES}) AS n)"],
    "delete_nameless_contents": ["'t'", f"(SELECT array_agg(n) FROM generate_series(1, {NAMES}) AS n)"],
    "copy_pieces": ["'t'", "'other'", "'long'"],
    "missing_pieces": ["'t'", "'long'", ALL],
    "store_pieces": [
        "'t'",
        "'new'",
        ALL,
        f"(SELECT array_agg(0) FROM generate_series(1, {NAMES}) AS n)",
        f"(SELECT array_agg('x'::bytea) FROM generate_series(1, {NAMES}) AS n)",
    ],
}
"""Statements about a whole thread."""
FUNCTIONS = {
    "missing_pieces": "SELECT checkpointd.missing_pieces($1, $2, $3)",
    "store_pieces": "SELECT checkpointd.store_pieces($1, $2, $3, $4, $5, NULL, true)",
}
"""What other statements call. A function plans what is in it when it is first used."""


@pytest.fixture(params=["for empty tables", "for analyzed tables"])
async def planned(own_options: StoreOptions, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A connection that has planned the statements, before the tables were filled or after they were analyzed."""
    statements = {**load_statements("checkpointd"), **FUNCTIONS}
    connection = await asyncpg.connect(own_options.dsn)
    await connection.execute("SET plan_cache_mode = force_generic_plan; SET jit = off; SET statement_timeout = '20s'")
    if request.param == "for analyzed tables":
        await connection.execute(FILL)
        await connection.execute("ANALYZE")
    for name in BOUND.keys() | WHOLE.keys():
        await connection.execute(f"PREPARE {name} AS {statements[name]}")
        # The first use makes the plan.
        types = await connection.fetchval(
            "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1", name
        )
        arguments = f"({', '.join(['NULL'] * types)})" if types else ""
        await connection.execute(f"EXPLAIN EXECUTE {name}{arguments}")
    await use_functions(connection)
    if request.param == "for empty tables":
        await connection.execute(FILL)
    yield connection
    await connection.close()


async def plan_of(connection: Any, name: str, arguments: list[str]) -> dict[str, Any]:
    """Runs a statement, undoes it, and returns what it did."""
    values = [await connection.fetchval(f"SELECT quote_literal(({argument})::text)") for argument in arguments]
    given = f"({', '.join(values)})" if values else ""
    transaction = connection.transaction()
    await transaction.start()
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name}{given}")
    await transaction.rollback()
    plan: dict[str, Any] = json.loads(rows[0][0])[0]["Plan"]
    return plan


async def test_a_hundred_pieces_are_found_by_index(planned: Any) -> None:
    for name, arguments in BOUND.items():
        plan = await plan_of(planned, name, arguments)
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert pages < 3000, f"{name}\n{json.dumps(plan, indent=1)}"


async def test_a_thread_with_a_hundred_thousand_is_swept_and_copied_in_linear_time(planned: Any) -> None:
    """Comparing all with all would take minutes; the statement's timeout would end it."""
    for name, arguments in WHOLE.items():
        plan = await plan_of(planned, name, arguments)
        pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        assert pages < 25 * NAMES, f"{name}\n{json.dumps(plan, indent=1)}"
