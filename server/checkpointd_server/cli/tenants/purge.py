"""`checkpointd purge`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import byte_size, table
from checkpointd_server.cli.tenants.stats import list_tenants, unknown_tenant
from checkpointd_server.cli.threads.filters import filter_options

_PAGE_TIMEOUT = 300.0
"""The minimum timeout of a page, in seconds: a thread is deleted in one step, however large it is."""

_pinned_option = click.option("--include-pinned", is_flag=True, help="Purge pinned threads (legal hold), too.")


@click.group()
def purge() -> None:
    """Delete threads or tenants so that nothing is left in the database: no row, no part of an upload, no name.

    Backups are not affected.

    Archived and leased threads are deleted, too. Pinned ones are kept unless --include-pinned is given.

    \b
    Examples:
        checkpointd purge threads --metadata user=ann --dry-run
        checkpointd purge tenant acme
    """


@purge.command()
@filter_options(archived="Only archived threads.  [default: archived or not]")
@click.option(
    "--all", "every", is_flag=True, help="All threads of the tenant, instead of those that the filters match."
)
@_pinned_option
@destructive
@json_option
@remote_options()
def threads(
    remote: Remote, wanted: Any, every: bool, include_pinned: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Purge the threads of your tenant that match all filters, archived or not.

    --metadata matches the metadata of a thread's latest checkpoint.

    \b
    Examples:
        checkpointd purge threads --prefix user-7: --dry-run
        checkpointd purge threads --metadata user=ann --yes --json
        checkpointd purge threads --all
    """
    from checkpointd.v1 import thread_service_pb2 as pb
    from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub

    is_empty = wanted == pb.ThreadFilter()
    if every != is_empty:
        raise click.UsageError("give filters, or --all" if is_empty else "--all can't be combined with filters")
    request = pb.PurgeThreadsRequest(all_threads=every, include_pinned=include_pinned)
    if not every:
        request.filter.CopyFrom(wanted)

    def ask(channel: Any, request: Any) -> Any:
        return ThreadServiceStub(channel).PurgeThreads(request, timeout=max(remote.timeout, _PAGE_TIMEOUT))

    _purge(remote, request, ask, "", dry_run=dry_run, yes=yes, as_json=as_json)


@purge.command()
@click.argument("name")
@_pinned_option
@destructive
@json_option
@remote_options()
def tenant(remote: Remote, name: str, include_pinned: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Purge everything of a tenant, including its quotas. Needs the scope "operator".

    Revoke its keys first: a tenant that keeps calling is created again.

    \b
    Examples:
        checkpointd purge tenant acme --dry-run
        checkpointd purge tenant acme --include-pinned --yes
    """
    from checkpointd.v1 import tenant_service_pb2 as pb
    from checkpointd.v1.tenant_service_pb2_grpc import TenantServiceStub

    request = pb.PurgeTenantRequest(tenant_name=name, include_pinned=include_pinned)

    def ask(channel: Any, request: Any) -> Any:
        return TenantServiceStub(channel).PurgeTenant(request, timeout=max(remote.timeout, _PAGE_TIMEOUT))

    if not remote.ask(lambda channel: any(list_tenants(channel, remote, name))):
        raise click.ClickException(f"{unknown_tenant(name)}: there is nothing to purge")
    whose = f" of tenant {name!r}, and everything else of it,"
    _purge(remote, request, ask, whose, dry_run=dry_run, yes=yes, as_json=as_json)


class _Total:
    """The sum of all pages."""

    def __init__(self) -> None:
        self.threads = self.checkpoints = self.bytes = self.pinned = 0
        self.rows: Counter[str] = Counter()

    def add(self, page: Any) -> None:
        self.threads += page.purged_threads
        self.checkpoints += page.purged_checkpoints
        self.bytes += page.purged_bytes
        self.pinned += page.pinned_threads
        for one in page.rows:
            self.rows[one.table] += one.rows

    def __str__(self) -> str:
        return f"{self.threads} threads with {self.checkpoints} checkpoints, {byte_size(self.bytes)}"

    def json(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "checkpoints": self.checkpoints,
            "bytes": self.bytes,
            "pinned_threads": self.pinned,
            "rows": dict(sorted(self.rows.items())),
        }


def _purge(
    remote: Remote,
    request: Any,
    ask: Callable[[Any, Any], Any],
    whose: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Shows what would be deleted, asks for confirmation, and purges page by page."""

    def run(channel: Any, *, is_dry_run: bool, total: int | None) -> _Total:
        done = _Total()
        request.dry_run, request.page_token = is_dry_run, ""
        with counting("looking" if is_dry_run else "purging", total) as bar:
            while True:
                page = ask(channel, request)
                done.add(page)
                bar.update(page.purged_threads)
                if not page.next_page_token:
                    return done
                request.page_token = page.next_page_token

    would = remote.ask(lambda channel: run(channel, is_dry_run=True, total=None))
    stays = f"; {would.pinned} pinned threads are kept" if would.pinned else ""
    if dry_run:
        if as_json:
            print_json({"would_purge": {key: value for key, value in would.json().items() if key != "rows"}})
        else:
            click.echo(f"would purge {would}{whose} at {remote.where}{stays}")
        return
    confirm(f"Purge {would}{whose} at {remote.where}{stays}? This can't be undone.", yes=yes)
    done = remote.ask(lambda channel: run(channel, is_dry_run=False, total=would.threads))
    if as_json:
        print_json({"purged": done.json()})
        return
    click.echo(f"purged {done}{f'; {done.pinned} pinned threads are kept' if done.pinned else ''}")
    for line in table(("table", "rows"), sorted(done.rows.items()), right=["rows"]):
        click.echo(f"  {line}")
