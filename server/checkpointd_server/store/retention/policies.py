"""Policies in the database."""

from __future__ import annotations

import json

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.retention import MAX_POLICIES, RetentionPolicy
from checkpointd_server.store.connections.database import Connections, Database, Row


def as_json(policy: RetentionPolicy) -> str:
    """Returns a policy as an argument of the database's functions."""
    return json.dumps(
        {
            "name": policy.name,
            "prefix": policy.prefix,
            "metadata": None if policy.metadata is None else json.loads(policy.metadata),
            "max_idle_seconds": policy.max_idle_seconds,
            "deletes_interrupted": policy.deletes_interrupted,
            "max_age_seconds": policy.max_age_seconds,
            "keep_newest": policy.keep_newest,
            "keep_last_of_run": policy.keep_last_of_run,
            "max_bytes": policy.max_bytes,
            "hold_seconds": policy.hold_seconds,
        }
    )


async def set_policy(database: Database, policy: RetentionPolicy, *, timeout: float | None) -> None:
    """Stores a policy, replacing the one with its name. Raises InvalidArgument if there are too many."""
    if not await database.fetch_value("set_retention_policy", as_json(policy), MAX_POLICIES, timeout=timeout):
        raise InvalidArgument("policy.name", f"would be one more than {MAX_POLICIES} policies", limit=MAX_POLICIES)


async def delete_policy(database: Database, name: str, *, timeout: float | None) -> bool:
    """Deletes a policy, and returns whether it existed."""
    return bool(await database.fetch_value("delete_retention_policy", name, timeout=timeout))


async def list_policies(database: Database, *, timeout: float | None) -> list[RetentionPolicy]:
    """Returns all policies, by name."""
    rows = await database.fetch("list_retention_policies", timeout=timeout, reads=True)
    return [_policy(row) for row in rows]


async def register(connections: Connections, tenant: str, *, has_changed: bool, timeout: float | None) -> None:
    """Registers a tenant for sweeps.

    Args:
        connections: The database.
        tenant: The tenant.
        has_changed: Whether its policies have changed, so that all its threads must be checked.
        timeout: How long it may take, in seconds.
    """
    await connections.of(None).fetch("register_retention", tenant, has_changed, timeout=timeout)


def _policy(row: Row) -> RetentionPolicy:
    return RetentionPolicy(
        name=row["o_name"],
        prefix=row["o_prefix"],
        metadata=row["o_metadata"],
        max_idle_seconds=row["o_max_idle_seconds"],
        deletes_interrupted=row["o_deletes_interrupted"],
        max_age_seconds=row["o_max_age_seconds"],
        keep_newest=row["o_keep_newest"],
        keep_last_of_run=row["o_keep_last_of_run"],
        max_bytes=row["o_max_bytes"],
        hold_seconds=row["o_hold_seconds"],
        updated_at=row["o_updated_at"],
    )
