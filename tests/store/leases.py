"""Leases that grow old."""

from __future__ import annotations

from tests.support.tenant import Tenant


async def pass_time(tenant: Tenant, seconds: float, *, thread: str = "t") -> None:
    """Lets time pass for the leases on a thread, and for those who wait for them."""
    for table, column in (("threads", "lease_expires_at"), ("lease_waiters", "seen_at")):
        await tenant.select(
            f"UPDATE checkpointd.{table} SET {column} = {column} - make_interval(secs => $2) WHERE thread = $1",
            tenant.key(thread),
            seconds,
        )
