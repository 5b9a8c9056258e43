"""`checkpointd top`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from checkpointd_server.cli.option_types import Seconds, Whole, json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import printable, table


@click.command()
@click.option("--all-tenants", is_flag=True, help='Show calls of all tenants. Needs the scope "operator".')
@click.option("--once", is_flag=True, help="Print once and exit; implied if the output is not a terminal.")
@click.option(
    "--interval", type=Seconds(zero=False), default=2.0, show_default=True, help="Time between updates, in seconds."
)
@click.option(
    "--limit", type=Whole(min=1, max=1000), default=10, show_default=True, help="Maximum number of lines in each table."
)
@json_option
@remote_options()
def top(remote: Remote, all_tenants: bool, once: bool, interval: float, limit: int, as_json: bool) -> None:
    """Watch calls: those in flight, the slowest of the last minute, the busiest threads. Ctrl-C ends it.

    The figures come from the memory of the process that answers, not from the database. Each server, and each worker of
    a server, has its own.

    \b
    Examples:
        checkpointd top
        checkpointd top --all-tenants --interval 5
        checkpointd top --once --json
    """
    from checkpointd.v1 import stats_service_pb2 as pb
    from checkpointd.v1.stats_service_pb2_grpc import StatsServiceStub

    def ask(channel: Any) -> Any:
        stub = StatsServiceStub(channel)
        if all_tenants:
            return stub.GetServerActivity(pb.GetServerActivityRequest(limit=limit), timeout=remote.timeout).activity
        return stub.GetActivity(pb.GetActivityRequest(limit=limit), timeout=remote.timeout).activity

    if as_json:
        print_json(_json(remote.ask(ask), all_tenants))
        return
    if once or not sys.stdout.isatty():
        click.echo("\n".join(_lines(remote.ask(ask), all_tenants)))
        return
    try:
        while True:
            lines = "\n".join(_lines(remote.ask(ask), all_tenants))
            click.clear()
            click.echo(f"{remote.where}, every {interval:g} s\n\n{lines}")
            time.sleep(interval)
    except KeyboardInterrupt:
        pass


def _json(activity: Any, named: bool) -> dict[str, Any]:
    def named_row(one: Any, **fields: Any) -> dict[str, Any]:
        return {**({"tenant": one.tenant_name} if named else {}), **fields}

    return {
        "live_calls": activity.live_calls,
        "calls_per_second": round(activity.calls_per_second, 3),
        "window_seconds": round(activity.window_seconds, 3),
        "live": [
            named_row(
                one,
                method=one.method,
                pipelined=one.pipelined,
                thread_id=one.thread_id or None,
                seconds=round(one.seconds, 6),
            )
            for one in activity.live
        ],
        "slowest": [
            named_row(
                one,
                method=one.method,
                thread_id=one.thread_id or None,
                seconds=round(one.seconds, 6),
                ago_seconds=round(one.ago_seconds, 3),
            )
            for one in activity.slowest
        ],
        "busiest": [named_row(one, thread_id=one.thread_id, calls=one.calls) for one in activity.busiest],
    }


def _lines(activity: Any, named: bool) -> Iterator[str]:
    yield f"{activity.live_calls} calls in flight, {activity.calls_per_second:.1f} a second"

    def rows(entries: Any, *columns: Any) -> list[tuple[str, ...]]:
        return [
            (*((printable(one.tenant_name),) if named else ()), *(column(one) for column in columns)) for one in entries
        ]

    def thread(one: Any) -> str:
        return printable(one.thread_id) or "-"

    tenant = ("TENANT",) if named else ()
    for title, entries, header, columns in (
        (
            "in flight",
            activity.live,
            ("SECONDS", "METHOD", "THREAD"),
            (lambda one: f"{one.seconds:.3f}", lambda one: one.method, thread),
        ),
        (
            "slowest of the last minute",
            activity.slowest,
            ("SECONDS", "AGO", "METHOD", "THREAD"),
            (lambda one: f"{one.seconds:.3f}", lambda one: f"{one.ago_seconds:.0f} s", lambda one: one.method, thread),
        ),
        ("busiest threads", activity.busiest, ("CALLS", "THREAD"), (lambda one: str(one.calls), thread)),
    ):
        if entries:
            yield ""
            yield title
            found = rows(entries, *columns)
            yield from (f"  {line}" for line in table((*tenant, *header), found, right=["SECONDS", "AGO", "CALLS"]))
