"""Purges: deletions that leave nothing, a page per call, each thread in its own transaction."""

from __future__ import annotations

from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from checkpointd_server.domain.tenants import PurgePosition, PurgeReport
from checkpointd_server.domain.thread_lists import ThreadFilter, ThreadPosition
from checkpointd_server.store import tenants
from checkpointd_server.store.connections.database import Database, Row
from checkpointd_server.store.thread_lists import conditions, first_position

PAGE = 200
"""Maximum number of threads that a call purges."""
_BUDGET = 4000
"""Approximate number of threads that it checks."""
_ITEMS = 10_000
"""Maximum number of items of long-term memory deleted in one transaction."""
PAGE_SECONDS = 2.0
"""Time after which a call begins no further thread, in seconds."""


async def purge_found(
    database: Database,
    wanted: ThreadFilter,
    *,
    start: PurgePosition,
    takes_pinned: bool,
    is_dry_run: bool,
    timeout: float | None,
) -> PurgeReport:
    """Purges a page of the threads that match a filter, archived or not, unless it selects archived ones.

    Args:
        database: The database, in the tenant's name.
        wanted: Which threads.
        start: Where to continue.
        takes_pinned: Whether to purge pinned ones, too.
        is_dry_run: Whether to only count.
        timeout: How long each statement may take, in seconds.
    """
    report, end = PurgeReport(), monotonic() + PAGE_SECONDS
    is_archived = wanted.is_archived or start.is_archived
    position = start.after or first_position()
    found = await database.fetch(
        "find_to_purge",
        is_archived,
        *conditions(wanted)[1:],
        position.active_at,
        position.thread,
        PAGE,
        _BUDGET,
        timeout=timeout,
        reads=True,
    )
    for row in found:
        position = ThreadPosition(row["o_active_at"], row["o_thread"] or UUID(int=0))
        if row["o_thread"] is None:
            break
        if not is_dry_run:
            await _purge(database, row["o_thread"], report, takes_pinned=takes_pinned, timeout=timeout)
        elif row["o_is_pinned"] and not takes_pinned:
            report.pinned_threads += 1
        else:
            report.threads += 1
            report.checkpoints += row["o_checkpoints"]
            report.bytes += row["o_bytes"]
        if monotonic() > end:
            break
    else:
        if len(found) < PAGE:
            if not is_archived:
                report.next = PurgePosition(is_archived=True)
            return report
    report.next = PurgePosition(is_archived=is_archived, after=position)
    return report


async def purge_all(
    database: Database, *, start: PurgePosition, takes_pinned: bool, is_dry_run: bool, timeout: float | None
) -> PurgeReport:
    """Purges a page of all threads that a tenant had when the purge began, including empty ones.

    Args:
        database: The database of the tenant.
        start: The place where the page before ended; it also says when the purge began.
        takes_pinned: Whether pinned threads are purged too. Otherwise they are counted.
        is_dry_run: Whether to delete nothing, and report what the tenant has in all.
        timeout: The time that the caller has left, in seconds; None: no end.

    Returns:
        The deletions of this page. Its `next` is where the next one starts; None: this was the last one.
    """
    report, end = PurgeReport(), monotonic() + PAGE_SECONDS
    usage = await tenants.read_usage(database, timeout=timeout) if start.began_at is None or is_dry_run else None
    stays = usage is not None and not takes_pinned
    if usage is not None and stays:
        report.pinned_threads = usage.pinned_threads
    if is_dry_run and usage is not None:
        report.threads = usage.threads - stays * usage.pinned_threads
        report.checkpoints = usage.checkpoints - stays * usage.pinned_checkpoints
        report.bytes = usage.bytes - stays * usage.pinned_bytes
        return report
    began_at = start.began_at
    rows = await database.fetch("threads_to_purge", takes_pinned, began_at, PAGE, timeout=timeout)
    for row in rows:
        began_at = row["o_before"]
        await _purge(database, row["o_thread"], report, takes_pinned=takes_pinned, timeout=timeout)
        if monotonic() > end:
            break
    if rows:
        report.next = PurgePosition(began_at=began_at or datetime.now(UTC))
    return report


async def purge_rest(database: Database, report: PurgeReport, *, timeout: float | None) -> None:
    """Purges what a tenant has besides threads: items, quotas, and its registration."""
    while rows := await database.fetch_value("purge_items", _ITEMS, timeout=timeout):
        report.rows["items"] += rows
    _count(await database.fetch_row("purge_tenant", timeout=timeout), report)


async def _purge(
    database: Database, thread: UUID, report: PurgeReport, *, takes_pinned: bool, timeout: float | None
) -> None:
    row = await database.fetch_row("purge_thread", thread, takes_pinned, timeout=timeout)
    if row["o_is_pinned"]:
        report.pinned_threads += 1
        return
    if row["o_is_listed"]:
        report.threads += 1
        report.checkpoints += row["o_checkpoints"]
        report.bytes += row["o_bytes"]
    _count(row, report)


def _count(row: Row, report: PurgeReport) -> None:
    for table, rows in zip(row["o_tables"], row["o_rows"], strict=True):
        report.rows[table] += rows
