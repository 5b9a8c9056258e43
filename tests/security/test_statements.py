"""Every statement that there is says which tenant's rows it is about: the first wall, without the second.

PostgreSQL itself tells: the plan of each statement, for any parameters, shows by which condition rows are found in each
table. Where that isn't the tenant, it is the place of a row that another part of the same plan has found by the tenant.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.security.plans import STATEMENTS, nodes, plan_of

ACROSS_TENANTS = {
    "check": "looks for no row",
    "row_security_binds": "asks about the server's own role",
    "due_sweeps": "lists which threads are to be swept, for the server's own housekeeping",
}
"""Statements that are not about one tenant, and why."""

BOUND = re.compile(r"\btenant(\)?::text)? = (\(?\$1\b|\w+\.tenant\b|\(\w+\.tenant\b)")
"""A condition that a row belongs to the tenant that was asked for, or to that of a row which does."""
GIVEN = re.compile(r"^\(*\$1\)*(::text)?( COLLATE \"\w+\")?$|^\(?(\w+\.)+\"?tenant\"?(\)?::text)?$")
"""An expression for the tenant of a new row: the parameter, or a row that was given or found."""


@pytest.fixture
async def planner(database_url: str) -> AsyncIterator[Any]:
    """A connection as superuser, whom row-level security doesn't bind, with a planner that looks rows up one by one."""
    connection = await asyncpg.connect(database_url)
    for setting in ("seqscan", "hashjoin", "mergejoin", "bitmapscan", "material", "memoize"):
        await connection.execute(f"SET enable_{setting} = off")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


def first_column(node: dict[str, Any]) -> str:
    """The expression for the first column of what a node is fed with, the tenant in all our tables."""
    (source,) = (child for child in node["Plans"] if child["Parent Relationship"] in ("Outer", "Subquery"))
    column = str(source["Output"][0])
    return first_column(source) if column.startswith('"*SELECT*') else column


def conditions(node: dict[str, Any]) -> str:
    return " ".join(str(node.get(key, "")) for key in ("Index Cond", "Filter", "Recheck Cond", "Join Filter"))


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - ACROSS_TENANTS))
async def test_every_statement_is_bound_to_the_tenant(name: str, planner: Any) -> None:
    tables = {
        row[0]
        for row in await planner.fetch(
            "SELECT table_name FROM information_schema.columns "
            "WHERE table_schema = 'checkpointd' AND column_name = 'tenant'"
        )
    }
    sql = STATEMENTS[name].replace("__tenant__", "61")
    found_by_tenant: set[str] = set()
    found_by_place: set[str] = set()
    mentioned = set(re.findall(r"""(?<!')"checkpointd"\.(\w+)""", sql)) & tables
    touched = set()
    for node in nodes(await plan_of(sql, planner)):
        table, kind = str(node.get("Relation Name")), node["Node Type"]
        if table not in tables:
            continue
        touched.add(table)
        if kind == "ModifyTable":
            if node["Operation"] == "Insert":
                tenant = first_column(node)
                assert GIVEN.match(tenant), f"{name}: a row is inserted into {table} for the tenant {tenant}"
        elif kind == "Tid Scan":
            found_by_place.add(table)
        else:
            assert BOUND.search(conditions(node)), f"{name}: {table} is looked through by {conditions(node)!r}"
            found_by_tenant.add(table)
    assert touched == mentioned
    assert found_by_place <= found_by_tenant


def test_what_is_not_about_a_tenant_still_exists() -> None:
    assert STATEMENTS.keys() >= ACROSS_TENANTS.keys()


async def test_a_statement_that_forgets_the_tenant_would_be_noticed(planner: Any) -> None:
    sql = STATEMENTS["get_latest"].replace("WHERE c.tenant = $1 AND", "WHERE", 1)
    scans = [node for node in nodes(await plan_of(sql, planner)) if node.get("Relation Name") == "checkpoints"]
    assert not all(BOUND.search(conditions(node)) for node in scans)
