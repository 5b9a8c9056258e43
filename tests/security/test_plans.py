"""Row-level security is a filter on rows that were found as ever: it changes no statement's way to them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from checkpointd_server.store import StoreOptions
from tests.security.plans import STATEMENTS, nodes, plan_of


@pytest.fixture
async def roles(owner: StoreOptions, superuser_url: str) -> AsyncIterator[tuple[Any, Any]]:
    """Connections to fresh tables, which the planner knows least of: as a superuser, and as the role that is bound."""
    connections = [await asyncpg.connect(dsn) for dsn in (superuser_url, owner.dsn)]
    for connection in connections:
        await connection.execute("SET plan_cache_mode = force_generic_plan; SET jit = off")
    yield connections[0], connections[1]
    for connection in connections:
        await connection.close()


def ways(plan: dict[str, Any]) -> list[tuple[str, ...]]:
    """How a plan finds rows: by which index, and by which conditions on it."""
    found: list[tuple[str, ...]] = []
    for node in nodes(plan):
        if "Relation Name" in node and node["Node Type"] != "ModifyTable":
            condition = re.sub(r"\((\$?\w+(?:\.\w+)?)\)::text", r"\1", node.get("Index Cond", ""))
            found.append((node["Node Type"], node["Relation Name"], node.get("Index Name", ""), condition))
    return found


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - {"writers_under_way"}))
async def test_rows_are_found_in_the_same_way(name: str, roles: tuple[Any, Any]) -> None:
    sql = STATEMENTS[name].replace("__tenant__", "61")
    unbound, bound = [ways(await plan_of(sql, connection)) for connection in roles]
    assert bound == unbound
