"""Collection of what nobody comes for: uploads, places in a line, rows of threads that hold nothing."""

from __future__ import annotations

from contextlib import suppress

from checkpointd_server.domain.errors import DeadlineExceeded
from checkpointd_server.store.connections.database import Connections

TOMBSTONE_SECONDS = 3600.0
"""How long a thread's row outlives what it held: by how much clocks of databases may differ after a failover, too."""
_THREADS = 100
"""How many threads are looked at in one go."""
SWEEP_SECONDS = 60.0
"""How often a tenant's items are looked at for those that have expired, in seconds."""
_TENANTS = 100
"""How many tenants are looked at in one go."""
_ITEMS = 1000
"""How many expired items one call deletes."""


async def run_gc(connections: Connections, *, grace_seconds: float, timeout: float | None) -> int:
    """Looks after threads whose time has come, and returns how many there were.

    Args:
        connections: The database.
        grace_seconds: How long an upload is kept while no put names it.
        timeout: How long each thread may take, in seconds.
    """
    due = await connections.of(None).fetch("claim_gc", _THREADS, timeout=timeout)
    for thread, tenant in due:
        database = connections.of(tenant)
        with suppress(DeadlineExceeded):  # somebody has its lock, so it isn't left; it comes up again
            await database.fetch("collect_thread", thread, grace_seconds, TOMBSTONE_SECONDS, timeout=timeout)
    return len(due)


async def sweep_items(connections: Connections, *, timeout: float | None) -> int:
    """Deletes items that have expired, and returns how many.

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
