"""Garbage collection: abandoned uploads, waiters that are gone, and rows of empty threads."""

from __future__ import annotations

from contextlib import suppress

from checkpointd_server.domain.errors import DeadlineExceeded
from checkpointd_server.store.connections.database import Connections

TOMBSTONE_SECONDS = 3600.0
"""How long an empty thread's row is kept, in seconds; also the tolerated clock difference after a failover."""
_THREADS = 100
"""Number of threads that are collected in one go."""
SWEEP_SECONDS = 60.0
"""How often expired items of a tenant are deleted, in seconds."""
_TENANTS = 100
"""Number of tenants that are swept in one go."""
_ITEMS = 1000
"""Maximum number of expired items that one call deletes."""


async def run_gc(connections: Connections, *, grace_seconds: float, timeout: float | None) -> int:
    """Collects the garbage of due threads, and returns how many there were.

    Args:
        connections: The database.
        grace_seconds: How long an upload that no put names is kept.
        timeout: How long each thread may take, in seconds.
    """
    due = await connections.of(None).fetch("claim_gc", _THREADS, timeout=timeout)
    for thread, tenant in due:
        database = connections.of(tenant)
        with suppress(DeadlineExceeded):  # it is locked, so it is in use; it is tried again later
            await database.fetch("collect_thread", thread, grace_seconds, TOMBSTONE_SECONDS, timeout=timeout)
    return len(due)


async def sweep_items(connections: Connections, *, timeout: float | None) -> int:
    """Deletes expired items, and returns how many.

    Args:
        connections: The database.
        timeout: How long each call may take, in seconds.
    """
    due = await connections.of(None).fetch("claim_sweeps", _TENANTS, SWEEP_SECONDS, timeout=timeout)
    total = 0
    for (tenant,) in (row.values() for row in due):
        gone = _ITEMS
        while gone == _ITEMS:
            gone = int(await connections.of(tenant).fetch_value("sweep_items", _ITEMS, timeout=timeout))
            total += gone
    return total
