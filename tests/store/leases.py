"""Aging of leases."""

from __future__ import annotations

from tests.support.tenant import Tenant


async def pass_time(tenant: Tenant, seconds: float, *, thread: str = "t") -> None:
    """Makes the leases on a thread, and their waiters, older."""
    for table, column in (("threads", "lease_expires_at"), ("lease_waiters", "seen_at")):
        await tenant.select(
            f"UPDATE checkpointd.{table} SET {column} = {column} - make_interval(secs => $2) WHERE thread = $1",
            tenant.key(thread),
            seconds,
        )
