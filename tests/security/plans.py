"""Plans of the store's statements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from checkpointd_server.store.statements import load_statements


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def plan_of(sql: str, planner: Any) -> dict[str, Any]:
    """The plan of a statement, whatever its parameters."""
    await planner.execute(f"PREPARE asked AS {sql}")
    types = await planner.fetchval("SELECT parameter_types FROM pg_prepared_statements WHERE name = 'asked'")
    arguments = f"({', '.join(['NULL'] * len(types))})" if types else ""
    (plan,) = json.loads(await planner.fetchval(f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE asked{arguments}"))
    await planner.execute("DEALLOCATE asked")
    found: dict[str, Any] = plan["Plan"]
    return found


STATEMENTS = load_statements("checkpointd")
