"""SQL is never built from input: it lies in files, is run by name, and takes all input as parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import checkpointd_server
from checkpointd_server.store.items.rankings import ranking_statements
from checkpointd_server.store.statements import load_statements

ROOT = Path(checkpointd_server.__file__).parent
STATEMENTS = {**load_statements("checkpointd"), **ranking_statements(("near_items_cosine",), "checkpointd")}
RUNS = {"execute", "executemany", "fetch", "fetch_row", "fetch_value", "fetchrow", "fetchval", "prepare", "cursor"}
"""Methods that run SQL: the driver's, and those of `Database` that take a statement's name."""

SCHEMA = "the operator's own schema, quoted"
NOT_WRITTEN_OUT = {
    ("store/connections/database.py", "sql"): "what was found under a name; another text is no name",
    ("store/connections/database.py", "_PREPARE"): "constants",
    ("store/connections/database.py", "_BEGIN"): "constants",
    ("store/connections/database.py", "'ROLLBACK' if connection.pooled else 'SELECT 1'"): "written out",
    (
        "store/connections/connector.py",
        "f'SELECT WHERE pg_backend_pid() = {connection.get_server_pid():d}'",
    ): "a number, which the database gave",
    ("store/connections/watchdog.py", "_SESSIONS"): "a constant",
    ("store/threads.py", "statement"): "a name, for `Database`",
    ("store/items/vectors.py", "_FUNCTIONS"): "a constant",
    ("store/items/vectors.py", "_IS_OWNER"): "a constant",
    ("store/items/vectors.py", "_CAN_CREATE"): "a constant",
    ("store/items/vectors.py", "with_schema(vector_sql(indexes), schema)"): f"{SCHEMA}, numbers, and words of ours",
    ("store/items/tenant.py", "statement"): "a name, for `Database`",
    ("store/migrations.py", "load_statements(options.schema)['check']"): "found under a name",
    ("store/migrations.py", "exists"): "written out above",
    ("store/migrations.py", "insert"): SCHEMA,
    ("store/migrations.py", "with_schema(migration.sql, options.schema)"): SCHEMA,
    ("store/migrations.py", "with_schema(_MIGRATIONS_TABLE, options.schema)"): SCHEMA,
    ("store/migrations.py", "f'CREATE SCHEMA IF NOT EXISTS {quote_identifier(options.schema)}'"): SCHEMA,
    ("store/migrations.py", "f'SELECT {columns} FROM {table} AS m ORDER BY number'"): SCHEMA,
    ("store/migrations.py", "f'SELECT pg_advisory_xact_lock({_lock(options.schema)})'"): "a number",
}
"""SQL that isn't a literal at the call, and why it contains no input."""


def runs() -> Iterator[tuple[str, ast.expr]]:
    """Yields every call that runs SQL, and its argument."""
    for file in sorted((ROOT / "store").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in RUNS
                and node.args
            ):
                yield str(file.relative_to(ROOT)), node.args[0]


def test_what_is_run_is_named_or_written_out() -> None:
    strange = set()
    named = 0
    for file, what in runs():
        if isinstance(what, ast.Constant):
            named += what.value in STATEMENTS
        else:
            strange.add((file, ast.unparse(what)))
    assert strange == set(NOT_WRITTEN_OUT)
    assert named > 15


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_no_statement_puts_sql_together_itself(name: str) -> None:
    words = STATEMENTS[name].upper().split()
    assert "EXECUTE" not in words
    assert "FORMAT(" not in STATEMENTS[name].upper()
