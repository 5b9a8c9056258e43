"""Properties of the schema that let it run on a single PostgreSQL and on Citus, checked in its text and catalogs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from checkpointd_server.store import StoreOptions
from checkpointd_server.store.migrations import load_migrations
from checkpointd_server.store.statements import load_statements

SQL = re.sub(r"--.*", "", "\n".join(migration.sql for migration in load_migrations()))
STATEMENTS = load_statements("checkpointd")
LOCAL = {"migrations", "gc_queue", "item_sweeps", "tenants", "retention_tenants", "retention_sweeper", "identity"}
"""Tables that are queried across all tenants: they list threads or tenants."""
OF_TENANTS = {"items", "item_sweeps", "item_vectors", "tenants", "retention_policies", "retention_tenants"}
"""Tables that belong to tenants, not to threads."""
NO_CALLS = {
    *("claim_sweeps", "languages", "check", "check_room", "row_security_binds", "claim_gc", "measure_tables"),
    *("identity", "note_tenants", "list_tenants", "read_quotas", "set_quotas"),
    *("register_retention", "claim_sweep", "release_sweep", "next_to_sweep", "note_sweep"),
}
"""Statements that aren't calls of a function: they concern no thread, or all threads."""

ITEM_CALLS = {"change_items", "get_items", "put_items", "restore_items", "search_items", "sweep_items"}
"""Functions that change items, which belong to no thread."""


def functions() -> dict[str, str]:
    """The bodies of all functions, by name."""
    parts = re.findall(r"CREATE FUNCTION __schema__\.(\w+)\((.*?)\$\$(.*?)\$\$", SQL, re.DOTALL)
    return {name: body for name, _, body in parts}


@pytest.fixture
async def catalog(own_options: StoreOptions) -> AsyncIterator[Any]:
    """A connection to a fresh schema."""
    connection = await asyncpg.connect(own_options.dsn)
    yield connection
    await connection.close()


async def test_every_key_begins_with_the_thread(catalog: Any) -> None:
    keys = await catalog.fetch("""
        SELECT c.relname, pg_get_indexdef(i.indexrelid, 1, true) AS first, i.indisunique
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'checkpointd'::regnamespace AND c.relkind = 'r' AND i.indisunique
    """)
    others = {row["relname"]: row["first"] for row in keys if row["first"] != "thread"}
    assert others.pop("migrations") == "number"
    assert others.pop("retention_sweeper") == others.pop("identity") == "is_only"
    assert set(others.values()) == {"tenant"}
    assert others.keys() <= OF_TENANTS
    tables = await catalog.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'checkpointd'")
    assert {row["tablename"] for row in tables} == {row["relname"] for row in keys}


async def test_there_are_no_sequences_triggers_or_foreign_keys(catalog: Any) -> None:
    assert await catalog.fetchval("SELECT count(*) FROM pg_sequences WHERE schemaname = 'checkpointd'") == 0
    for table in ("pg_trigger WHERE NOT tgisinternal", "pg_constraint WHERE contype = 'f'"):
        assert await catalog.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert not re.search(r"nextval|\bserial\b|GENERATED|\bTRIGGER\b", SQL, re.IGNORECASE)


async def test_every_table_of_tenants_has_row_level_security(catalog: Any) -> None:
    rows = await catalog.fetch("""
        SELECT c.relname, c.relrowsecurity FROM pg_class AS c
        WHERE c.relnamespace = 'checkpointd'::regnamespace AND c.relkind = 'r'
    """)
    assert {row["relname"] for row in rows if not row["relrowsecurity"]} == LOCAL


def test_row_level_security_is_forced_only_where_there_is_no_citus() -> None:
    guarded = re.findall(r"IF NOT EXISTS \([^)]*?extname = 'citus'\) THEN(.*?)END IF;", SQL, re.DOTALL)
    assert SQL.count("FORCE") == sum(block.count("FORCE") for block in guarded) > 0


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - NO_CALLS))
def test_every_verb_is_one_call_with_bound_parameters_and_nothing_around_it(name: str) -> None:
    call = re.fullmatch(r'SELECT (?:\* FROM )?"checkpointd"\.(\w+)\((\$\d+(?:, \$\d+)*)\)', STATEMENTS[name])
    assert call is not None
    body = functions()[call[1]]
    # The tenant is set where the work is done: a session's settings don't reach other machines.
    assert "set_config('checkpointd.tenant', p_tenant, true)" in body or re.search(
        r"__schema__\.lock_thread\(p_tenant", body
    )


def test_the_lock_is_an_update_of_the_threads_row_and_comes_first() -> None:
    locks = {"lock_thread"}
    changes = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) __schema__\.(\w+)")
    called = {re.search(r"\.(\w+)\(", STATEMENTS[name])[1] for name in STATEMENTS.keys() - NO_CALLS}  # type: ignore[index]
    # No lock is needed to show that a waiter still waits or to make a thread's empty row. Items have their own locks. A
    # tenant's policies and other data, and announcements about deleted threads, belong to no thread.
    free = {
        *("await_lease", "make_thread", "purge_items", "purge_tenant"),
        *("set_retention_policy", "delete_retention_policy", "clean_expiring"),
        *ITEM_CALLS,
    }
    for name in called - free:
        body = functions()[name]
        first = changes.search(body)
        lock = re.search(r"__schema__\.(\w+)\(p_tenant", body)
        if first is None:
            continue
        if lock is not None and lock[1] in locks and lock.start() < first.start():
            continue
        assert (first[1], first[2]) == ("UPDATE", "threads"), name
    assert not re.search(r"advisory", SQL)
    assert set(re.findall(r"FOR (?:NO KEY )?UPDATE[^\n]*|FOR (?:KEY )?SHARE[^\n]*", SQL)) == {
        "FOR NO KEY UPDATE SKIP LOCKED"
    }


def test_no_function_puts_sql_together() -> None:
    assert not re.search(r"\bEXECUTE\b|\bformat\(", SQL)
