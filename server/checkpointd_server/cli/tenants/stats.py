"""`checkpointd stats`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import click

from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import byte_size, printable, table

_PAGE_SIZE = 50
_SLOW_TIMEOUT = 60.0
"""The minimum timeout of a call, in seconds: the rows of all threads are summed."""
_QUOTAS = ("max_bytes", "max_threads", "max_calls_per_second")
_COLUMNS = ("tenant", "threads", "checkpoints", "items", "bytes", "item_bytes", *_QUOTAS, "noted_at")


@click.command()
@click.option("--by-tenant", is_flag=True, help='Print a usage report of all tenants. Needs the scope "operator".')
@click.option("--csv", "as_csv", is_flag=True, help="With --by-tenant: print CSV.")
@json_option
@remote_options()
def stats(remote: Remote, by_tenant: bool, as_csv: bool, as_json: bool) -> None:
    """Print statistics of your tenant: threads by status, sizes, growth, the largest threads.

    They are summed from the rows of threads. Estimates have a ~.

    \b
    Examples:
        checkpointd stats
        checkpointd stats --json
        checkpointd stats --by-tenant --csv > usage.csv
    """
    if as_csv and not by_tenant:
        raise click.UsageError("--csv needs --by-tenant")
    if as_csv and as_json:
        raise click.UsageError("give either --csv or --json")
    if by_tenant:
        _report(remote, as_csv=as_csv, as_json=as_json)
        return
    from checkpointd.v1 import stats_service_pb2 as pb
    from checkpointd.v1.stats_service_pb2_grpc import StatsServiceStub

    def ask(channel: Any) -> Any:
        timeout = max(remote.timeout, _SLOW_TIMEOUT)
        return StatsServiceStub(channel).GetStats(pb.GetStatsRequest(), timeout=timeout)

    found = remote.ask(ask)
    if as_json:
        print_json(_json(found))
    else:
        click.echo("\n".join(_lines(found)))


def _json(found: Any) -> dict[str, Any]:
    return {
        "measured_at": _iso(found.measured_at),
        "threads": found.threads,
        "threads_by_status": {field.name: getattr(found.by_status, field.name) for field in _statuses(found)},
        "pinned_threads": found.pinned_threads,
        "checkpoints": found.checkpoints,
        "writes": found.writes,
        "stored_bytes": found.stored_bytes,
        "logical_bytes": found.logical_bytes,
        "saved_bytes": max(found.logical_bytes - found.stored_bytes, 0),
        "items": found.items,
        "item_bytes": found.item_bytes,
        "mean_session_seconds": round(found.mean_session_seconds, 3),
        "oldest_at": _iso(found.oldest_at) if found.HasField("oldest_at") else None,
        "quotas": {name: getattr(found.quotas, name) or None for name in _QUOTAS},
        "largest": [
            {"thread_id": one.thread_id, "checkpoints": one.checkpoints, "bytes": one.bytes} for one in found.largest
        ],
        "days": [
            {"day": one.day, "threads": one.threads, "checkpoints": one.checkpoints, "bytes": one.bytes}
            for one in found.days
        ],
        "estimates": [
            *("threads_by_status.running", "threads_by_status.idle", "logical_bytes", "saved_bytes"),
            *("days.checkpoints", "days.bytes"),
            *(["writes"] if found.writes_is_estimate else []),
        ],
    }


def _statuses(found: Any) -> Any:
    return found.by_status.DESCRIPTOR.fields


def _lines(found: Any) -> Iterator[str]:
    saved = max(found.logical_bytes - found.stored_bytes, 0)
    share = f" ({saved / found.logical_bytes:.0%})" if saved else ""
    yield f"threads       {found.threads}"
    for field in _statuses(found):
        mark = "~" if field.name in ("idle", "running") else ""
        yield f"  {field.name:<12}{mark}{getattr(found.by_status, field.name)}"
    yield f"pinned        {found.pinned_threads}"
    yield f"checkpoints   {found.checkpoints}"
    yield f"task writes   {'~' if found.writes_is_estimate else ''}{found.writes}"
    yield f"stored        {byte_size(found.stored_bytes)}"
    yield f"logical       ~{byte_size(found.logical_bytes)}"
    yield f"saved         ~{byte_size(saved)}{share} by shared values and patches"
    yield f"items         {found.items}, {byte_size(found.item_bytes)}"
    yield f"mean session  {_duration(found.mean_session_seconds)}"
    yield f"quotas        {', '.join(_quotas(found.quotas)) or 'none'}"
    yield f"oldest        {_when(found.oldest_at) if found.HasField('oldest_at') else '-'}"
    yield ""
    days = [(one.day, one.threads, f"~{one.checkpoints}", f"~{byte_size(one.bytes)}") for one in found.days]
    yield from table(("DAY", "THREADS", "CHECKPOINTS", "BYTES"), days, right=["THREADS", "CHECKPOINTS", "BYTES"])
    if found.largest:
        yield ""
        rows = [(printable(one.thread_id), one.checkpoints, byte_size(one.bytes)) for one in found.largest]
        yield from table(("LARGEST THREADS", "CHECKPOINTS", "BYTES"), rows, right=["CHECKPOINTS", "BYTES"])


def _quotas(quotas: Any) -> Iterator[str]:
    """Yields the quotas as text."""
    if quotas.max_bytes:
        yield byte_size(quotas.max_bytes)
    if quotas.max_threads:
        yield f"{quotas.max_threads} threads"
    if quotas.max_calls_per_second:
        yield f"{quotas.max_calls_per_second} calls a second in each process"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _report(remote: Remote, *, as_csv: bool, as_json: bool) -> None:
    tenants = remote.ask(lambda channel: [row_of(one) for one in list_tenants(channel, remote)])
    if as_json:
        print_json({"tenants": tenants})
    elif as_csv:
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS)
        writer.writeheader()
        writer.writerows(tenants)
        click.echo(text.getvalue(), nl=False)
    else:
        rows = [
            (
                printable(one["tenant"]),
                one["threads"],
                one["checkpoints"],
                one["items"],
                byte_size(one["bytes"]),
                byte_size(one["max_bytes"]) if one["max_bytes"] else "-",
                one["max_threads"] or "-",
                one["max_calls_per_second"] or "-",
            )
            for one in tenants
        ]
        header = ("TENANT", "THREADS", "CHECKPOINTS", "ITEMS", "BYTES", "MAX BYTES", "MAX THREADS", "MAX CALLS/S")
        click.echo("\n".join(table(header, rows, right=header[1:])))


def row_of(tenant: Any) -> dict[str, Any]:
    """Returns a tenant as JSON and CSV have it, with its effective quotas; None: no limit."""
    return {
        "tenant": tenant.tenant_name,
        "threads": tenant.threads,
        "checkpoints": tenant.checkpoints,
        "items": tenant.items,
        "bytes": tenant.bytes,
        "item_bytes": tenant.item_bytes,
        **{name: getattr(tenant.effective_quotas, name) or None for name in _QUOTAS},
        "noted_at": _iso(tenant.noted_at),
    }


def list_tenants(channel: Any, remote: Remote, name: str = "") -> Iterator[Any]:
    """Yields all tenants that a server knows, or only the named one."""
    from checkpointd.v1 import tenant_service_pb2 as pb
    from checkpointd.v1.tenant_service_pb2_grpc import TenantServiceStub

    stub = TenantServiceStub(channel)
    request = pb.ListTenantsRequest(tenant_name=name, page_size=_PAGE_SIZE)
    while True:
        page = stub.ListTenants(request, timeout=max(remote.timeout, _SLOW_TIMEOUT))
        yield from page.tenants
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def unknown_tenant(name: str) -> str:
    """Returns the message that a tenant has never called and has no quotas."""
    return f"no tenant {name!r} was seen, and nothing was set for it"


def _iso(time: Any) -> str:
    return str(time.ToDatetime(tzinfo=UTC).isoformat())


def _when(time: Any) -> str:
    return str(time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S"))
