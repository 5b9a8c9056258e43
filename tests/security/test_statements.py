"""Every statement restricts rows to one tenant by itself: the first barrier, without row-level security.

A row is found by its thread, whose key is computed from the tenant and the thread's name; by the tenant itself; or by
its place, which another part of the same statement has found in one of these ways.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.items.rankings import ranking_statements
from checkpointd_server.store.migrations import load_migrations
from checkpointd_server.store.statements import load_statements
from tests.support.verbs import VERBS, contents, fill

SQL = re.sub(r"--.*", "", "\n".join(migration.sql for migration in load_migrations()))
STATEMENTS = {**load_statements("checkpointd"), **ranking_statements(("near_items_cosine",), "checkpointd")}
ACROSS_TENANTS = {
    "check": "looks for no row",
    "check_room": "looks for no row",
    "row_security_binds": "asks about the server's own role",
    "measure_tables": "asks how large tables are, and looks into none",
    "note_tenants": "notes which tenants there are, for the server's own housekeeping",
    "list_tenants": "lists them, with their quotas, for the operators of the server",
    "read_quotas": "reads the quotas of those that call",
    "set_quotas": "sets those of one, for the operators of the server",
    "note_sweep": "notes how far the sweep of a tenant has come",
    "claim_sweep": "lets one server sweep",
    "release_sweep": "lets others",
    "next_to_sweep": "says whose threads are to be looked at, for the server's own housekeeping",
    "claim_gc": "lists which threads are to be looked at, for the server's own housekeeping",
    "claim_sweeps": "lists whose items expire, for the server's own housekeeping",
    "identity": "reads the UUID of the store, which tenants share",
    "languages": "asks which languages searches for words know",
}
"""Statements that aren't restricted to one tenant, and why."""
USE = re.compile(r"(?<!INSERT INTO )(?:FROM|JOIN|UPDATE|USING) __schema__\.(\w+) AS (\w+)\b")
"""A table that is read, changed or deleted from, and its name in the statement."""


def uses(sql: str) -> list[tuple[str, str, str]]:
    """Returns every use of a table: its name, its alias, and the statement from there on."""
    found = []
    for statement in sql.split(";"):
        found += [(use[1], use[2], statement[use.start() :]) for use in USE.finditer(statement)]
    return found


def test_every_table_is_looked_into_by_thread_tenant_or_place() -> None:
    found = [use for use in uses(SQL) if f".{use[0]}(" not in use[2]]
    assert len(found) > 100
    for table, alias, rest in found:
        bound = re.search(rf"\b{alias}\.(thread|tenant|ctid)\b(?! IS)[^;]*?(=|IN)|\({alias}\.thread, ", rest)
        assert bound, f"{table} AS {alias}: {rest[:200]}"


def test_what_is_not_about_a_tenant_still_exists() -> None:
    assert STATEMENTS.keys() >= ACROSS_TENANTS.keys()
    for name in STATEMENTS.keys() - ACROSS_TENANTS:
        calls = re.findall(r'"checkpointd"\."?\w+"?\(\s*([^,)]+)', STATEMENTS[name])
        assert set(calls) <= {"$1"}, name
        assert re.search(r"\(\s*\$1[,)]", STATEMENTS[name]), name


@pytest.mark.parametrize("verb", VERBS)
async def test_no_verb_touches_another_tenant_s_rows(owner: StoreOptions, superuser_url: str, verb: str) -> None:
    """Runs as a superuser, to whom row-level security doesn't apply, among tenants with equal data and names."""
    connection = await asyncpg.connect(superuser_url)
    try:
        async with open_store(replace(owner, dsn=superuser_url)) as store:
            tenant = await fill(store, "a")
            await fill(store, "b")
            before = await contents(connection, "b")
            seen: Any = None
            try:
                seen = await VERBS[verb](tenant)
            except CheckpointdError as error:
                seen = error
            assert await contents(connection, "b") == before
            assert "of b" not in repr(seen)
    finally:
        await connection.close()
