"""Usage and quotas of tenants: sums over the rows of their threads, and the table of quotas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from checkpointd_server.domain.tenants import Day, Quotas, Statistics, TenantQuotas, ThreadSize, Usage
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.store.connections.database import Database, Row

_DAYS = 7
_LARGEST = 10
_SAMPLE = 30
"""Number of threads that are measured besides the largest."""
_CHECKPOINTS = 25
"""Number of the oldest, and of the newest, checkpoints that are measured of each."""
_MOST_WRITES = 20_000
"""Maximum number of task writes that are counted of each."""


async def note_tenants(everybody: Database, tenants: Sequence[str], *, timeout: float | None) -> None:
    """Registers tenants that have called."""
    await everybody.fetch("note_tenants", list(tenants), timeout=timeout)


async def list_tenants(everybody: Database, *, after: str, limit: int, timeout: float | None) -> list[TenantQuotas]:
    """Reads tenants and their own quotas, by name, after a given one."""
    return [_quotas(row) for row in await everybody.fetch("list_tenants", after, limit, timeout=timeout, reads=True)]


async def read_quotas(everybody: Database, tenants: Iterable[str], *, timeout: float | None) -> list[TenantQuotas]:
    """Reads the own quotas of registered tenants."""
    return [_quotas(row) for row in await everybody.fetch("read_quotas", list(tenants), timeout=timeout, reads=True)]


async def set_quotas(
    everybody: Database, tenant: str, quotas: Quotas, *, resets: bool, timeout: float | None
) -> TenantQuotas:
    """Sets the quotas that aren't None, after clearing all if requested, and returns the tenant's quotas."""
    row = await everybody.fetch_row(
        "set_quotas",
        tenant,
        resets,
        quotas.max_bytes,
        quotas.max_threads,
        quotas.max_calls_per_second,
        timeout=timeout,
    )
    return _quotas(row)


def _quotas(row: Row) -> TenantQuotas:
    quotas = Quotas(
        max_bytes=row["max_bytes"],
        max_threads=row["max_threads"],
        max_calls_per_second=row["max_calls_per_second"],
    )
    return TenantQuotas(row["tenant"], quotas, row["noted_at"])


async def find_threads(
    database: Database, tenant: str, thread_ids: Iterable[str], *, timeout: float | None
) -> Set[str]:
    """Returns those of some threads that aren't empty."""
    names = {thread_key(tenant, thread_id): thread_id for thread_id in thread_ids}
    rows = await database.fetch("known_threads", list(names), timeout=timeout, reads=True)
    return {names[row["o_thread"]] for row in rows}


async def read_usage(database: Database, *, timeout: float | None) -> Usage:
    """Sums up a tenant's data from the rows of its threads."""
    return Usage(*(await database.fetch_row("tenant_usage", timeout=timeout, reads=True)).values())


async def read_statistics(database: Database, *, timeout: float | None) -> Statistics:
    """Sums up a tenant's data, and measures its largest threads and a random sample of others."""
    row = await database.fetch_row("tenant_statistics", _DAYS, _LARGEST, _SAMPLE, timeout=timeout, reads=True)
    items = await database.fetch_row("item_usage", timeout=timeout, reads=True)
    largest = [await _measure(database, *one, timeout) for one in _threads(row, "l")]
    others = [await _measure(database, *one, timeout) for one in _threads(row, "s")]
    rest = row["o_threads"] - len(largest)
    rest_checkpoints = row["o_checkpoints"] - sum(row["l_checkpoints"])
    writes = sum(thread[1] for thread in largest)
    logical = sum(thread[0] * thread[2] for thread in largest)
    if others:
        # For the rest, the sample estimates the writes per thread and the bytes per checkpoint.
        writes += sum(thread[1] for thread in others) * rest / len(others)
        sampled = max(sum(thread[0] for thread in others), 1)
        logical += sum(thread[0] * thread[2] for thread in others) * rest_checkpoints / sampled
    days = zip(row["d_day"], row["d_threads"], row["d_checkpoints"], row["d_bytes"], strict=True)
    sizes = zip(row["l_thread_id"], row["l_checkpoints"], row["l_bytes"], strict=True)
    return Statistics(
        threads=row["o_threads"],
        idle=row["o_idle"],
        running=row["o_running"],
        interrupted=row["o_interrupted"],
        failed=row["o_failed"],
        archived=row["o_archived"],
        pinned=row["o_pinned"],
        checkpoints=row["o_checkpoints"],
        bytes=row["o_bytes"],
        writes=round(writes),
        logical_bytes=round(logical),
        is_estimate=rest > len(others) or any(thread[1] >= _MOST_WRITES for thread in (*largest, *others)),
        mean_session_seconds=row["o_session_seconds"],
        oldest_at=row["o_oldest_at"],
        measured_at=row["o_measured_at"],
        largest=[ThreadSize(*one) for one in sizes],
        days=[Day(*one) for one in days],
        items=items["o_items"],
        item_bytes=items["o_bytes"],
    )


def _threads(row: Row, kind: str) -> Iterable[tuple[object, int]]:
    return zip(row[f"{kind}_thread"], row[f"{kind}_checkpoints"], strict=True)


async def _measure(
    database: Database, thread: object, checkpoints: int, timeout: float | None
) -> tuple[int, int, float]:
    """Returns a thread's numbers of checkpoints and task writes, and the mean size of a whole checkpoint in bytes."""
    row = await database.fetch_row("measure_thread", thread, _CHECKPOINTS, _MOST_WRITES, timeout=timeout, reads=True)
    return checkpoints, row["o_writes"], row["o_checkpoint_bytes"]
