"""Tenants, their statistics, and purges: protobuf to domain and back."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from checkpointd.v1 import stats_service_pb2 as stats_pb
from checkpointd.v1 import tenant_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.tenants import PurgePosition, PurgeReport, Quotas, Statistics, TenantQuotas, Usage
from checkpointd_server.domain.thread_lists import ThreadPosition
from checkpointd_server.rpc.conversion.page_tokens import read_position, write_position

_MAX_QUOTA = 2**53
_QUOTAS = ("max_bytes", "max_threads", "max_calls_per_second")


def read_purge_token(request: threads_pb.PurgeThreadsRequest | pb.PurgeTenantRequest, tenant: str) -> PurgePosition:
    """Returns where the request's page starts. Raises InvalidArgument."""
    found = read_position(request, tenant, _read_purge_position)
    return PurgePosition() if found is None else found


def _read_purge_position(content: list[str]) -> PurgePosition:
    archived, active_at, thread, began_at = content
    after = ThreadPosition(_time(active_at), UUID(thread)) if thread else None
    return PurgePosition(
        is_archived=archived == "archived", after=after, began_at=_time(began_at) if began_at else None
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.utcoffset() != timedelta():
        raise ValueError
    return time


def write_report(
    report: PurgeReport,
    response: threads_pb.PurgeThreadsResponse | pb.PurgeTenantResponse,
    request: threads_pb.PurgeThreadsRequest | pb.PurgeTenantRequest,
    tenant: str,
) -> None:
    """Fills in what a page of a purge deleted."""
    response.purged_threads = report.threads
    response.purged_checkpoints = report.checkpoints
    response.purged_bytes = report.bytes
    response.pinned_threads = report.pinned_threads
    for table, rows in sorted(report.rows.items()):
        if rows:
            response.rows.add(table=table, rows=rows)
    if (position := report.next) is not None:
        after = position.after
        content = [
            "archived" if position.is_archived else "",
            "" if after is None else after.active_at.isoformat(),
            "" if after is None else str(after.thread),
            "" if position.began_at is None else position.began_at.isoformat(),
        ]
        response.next_page_token = write_position(content, request, tenant)


def read_quotas(message: pb.Quotas) -> Quotas:
    """Returns the quotas that a request sets. Raises InvalidArgument."""
    for name in _QUOTAS:
        if not 0 <= getattr(message, name) <= _MAX_QUOTA:
            problem = f"is {getattr(message, name)}, must be from 0 to {_MAX_QUOTA}"
            raise InvalidArgument(f"quotas.{name}", problem, limit=_MAX_QUOTA)
    return Quotas(**{name: getattr(message, name) for name in _QUOTAS if message.HasField(name)})


def write_quotas(quotas: Quotas, message: pb.Quotas) -> None:
    """Fills in a tenant's quotas."""
    message.SetInParent()
    for name in _QUOTAS:
        limit = getattr(quotas, name)
        if limit is not None:
            setattr(message, name, limit)


def write_tenant(tenant: TenantQuotas, usage: Usage, defaults: Quotas, message: pb.Tenant) -> None:
    """Fills in a tenant."""
    message.tenant_name = tenant.tenant
    message.threads, message.checkpoints, message.bytes = usage.threads, usage.checkpoints, usage.bytes
    message.items, message.item_bytes = usage.items, usage.item_bytes
    write_quotas(tenant.quotas, message.quotas)
    write_quotas(tenant.quotas.over(defaults), message.effective_quotas)
    message.noted_at.FromDatetime(tenant.noted_at)


def write_statistics(statistics: Statistics, message: stats_pb.GetStatsResponse) -> None:
    """Fills in a tenant's statistics."""
    message.measured_at.FromDatetime(statistics.measured_at)
    message.threads = statistics.threads
    counts = message.by_status
    counts.idle, counts.running = statistics.idle, statistics.running
    counts.interrupted, counts.failed = statistics.interrupted, statistics.failed
    counts.archived = statistics.archived
    message.pinned_threads = statistics.pinned
    message.checkpoints = statistics.checkpoints
    message.writes, message.writes_is_estimate = statistics.writes, statistics.is_estimate
    message.stored_bytes, message.logical_bytes = statistics.bytes, statistics.logical_bytes
    message.items, message.item_bytes = statistics.items, statistics.item_bytes
    message.mean_session_seconds = statistics.mean_session_seconds
    if statistics.oldest_at is not None:
        message.oldest_at.FromDatetime(statistics.oldest_at)
    for size in statistics.largest:
        message.largest.add(thread_id=size.thread_id, checkpoints=size.checkpoints, bytes=size.bytes)
    for day in statistics.days:
        message.days.add(day=day.day.isoformat(), threads=day.threads, checkpoints=day.checkpoints, bytes=day.bytes)
