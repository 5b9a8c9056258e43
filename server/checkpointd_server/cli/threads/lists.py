"""`checkpointd threads list` and `count`."""

from __future__ import annotations

from typing import Any

import click

from checkpointd_server.cli.option_types import Whole, json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import table
from checkpointd_server.cli.threads.filters import filter_options

_MAX_PAGE = 1000


@click.command("list")
@filter_options()
@click.option("--limit", type=Whole(min=1), default=50, show_default=True, help="Maximum number of threads.")
@click.option("--all", "every", is_flag=True, help="List all of them, however many there are.")
@json_option
@remote_options()
def list_threads(remote: Remote, wanted: Any, limit: int, every: bool, as_json: bool) -> None:
    """List the threads that match all filters, latest activity first.

    With --json, each thread is one line of JSON, printed as soon as it arrives.

    \b
    Examples:
        checkpointd threads list --status interrupted
        checkpointd threads list --prefix user-7: --active-from 7d
        checkpointd threads list --metadata assistant=support --tag customer=acme --all --json | jq .thread_id
    """
    import json

    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
    from checkpointd_server.cli.rendering.threads import json_of, row_of

    def ask(channel: Any) -> tuple[list[pb.Thread], bool]:
        stub = ThreadServiceStub(channel)
        request = pb.ListThreadsRequest(filter=wanted)
        found: list[pb.Thread] = []
        remaining = None if every else limit
        while True:
            request.page_size = _MAX_PAGE if remaining is None else min(remaining, _MAX_PAGE)
            page = stub.ListThreads(request, timeout=remote.timeout)
            if as_json:
                for thread in page.threads:
                    click.echo(json.dumps(json_of(thread)))
            else:
                found += page.threads
            request.page_token = page.next_page_token
            if remaining is not None:
                remaining -= len(page.threads)
            if not page.next_page_token or remaining == 0:
                return found, bool(page.next_page_token)

    found, more = remote.ask(ask)
    if as_json:
        return
    header = ("THREAD", "STATUS", "CHECKPOINTS", "SIZE", "CREATED", "ACTIVE", "NOTE")
    for line in table(header, map(row_of, found), right=("CHECKPOINTS", "SIZE")):
        click.echo(line)
    if more:
        click.echo(f"... and more (--limit {2 * limit}, or --all)")


@click.command()
@filter_options()
@json_option
@remote_options()
def count(remote: Remote, wanted: Any, as_json: bool) -> None:
    """Count the threads that match all filters, up to ten thousand; up to a million without filters.

    \b
    Example:
        checkpointd threads count --status failed --active-from 24h
    """
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub

    def ask(channel: Any) -> Any:
        return ThreadServiceStub(channel).CountThreads(pb.CountThreadsRequest(filter=wanted), timeout=remote.timeout)

    found = remote.ask(ask)
    if as_json:
        print_json({"count": found.count, "at_least": found.at_least})
    else:
        click.echo(f"{'at least ' if found.at_least else ''}{found.count}")
