"""`checkpointd retention expiring` and `acknowledge`."""

from __future__ import annotations

from typing import Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import printable, table


def _ask_all(remote: Remote) -> list[Any]:
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub

    def ask(channel: Any) -> list[pb.ExpiringThread]:
        stub = RetentionServiceStub(channel)
        request = pb.ListExpiringRequest(page_size=1000)
        found: list[pb.ExpiringThread] = []
        while True:
            page = stub.ListExpiring(request, timeout=remote.timeout)
            found += page.threads
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    return remote.ask(ask)


@click.command()
@json_option
@remote_options()
def expiring(remote: Remote, as_json: bool) -> None:
    """List announced deletions (of policies with a hold) that aren't acknowledged yet, earliest deadline first.

    \b
    Example:
        checkpointd retention expiring
    """
    from checkpointd_server.cli.rendering.retention import action_of, expiring_json
    from checkpointd_server.cli.rendering.threads import when

    found = _ask_all(remote)
    if as_json:
        print_json([expiring_json(entry) for entry in found])
        return
    rows = [
        (
            printable(entry.thread_id),
            action_of(entry),
            entry.checkpoints,
            entry.reason,
            printable(entry.policy) or "-",
            printable(entry.hold_policy),
            when(entry.deadline_at),
        )
        for entry in found
    ]
    header = ("THREAD", "ACTION", "CHECKPOINTS", "REASON", "POLICY", "HELD BY", "DELETED AFTER")
    for line in table(header, rows, right=("CHECKPOINTS",)):
        click.echo(line)


@click.command()
@click.argument("thread_ids", nargs=-1, required=True)
@destructive
@json_option
@remote_options()
def acknowledge(remote: Remote, thread_ids: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Acknowledge announced deletions of threads: the next sweep deletes them, before their deadline.

    \b
    Example:
        checkpointd retention acknowledge chat:42
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub

    found = {entry.thread_id: entry for entry in _ask_all(remote) if entry.thread_id in thread_ids}
    missing = [name for name in dict.fromkeys(thread_ids) if name not in found]
    for name in missing:
        click.echo(f"no deletion is announced for {name!r}", err=True)
    if not found:
        raise click.ClickException("nothing to acknowledge")
    if dry_run:
        if as_json:
            print_json({"would_acknowledge": list(found), "missing": missing})
        else:
            click.echo(f"would acknowledge {len(found)} threads at {remote.where}")
        return
    confirm(f"Acknowledge the announced deletions of {len(found)} threads at {remote.where}?", yes=yes)

    def ask(channel: Any) -> list[str]:
        stub = RetentionServiceStub(channel)
        done = []
        for entry in found.values():
            request = pb.AcknowledgeExpiringRequest(
                thread_id=entry.thread_id, below_checkpoint_id=entry.below_checkpoint_id
            )
            if stub.AcknowledgeExpiring(request, timeout=remote.timeout).acknowledged:
                done.append(entry.thread_id)
        return done

    done = remote.ask(ask)
    if as_json:
        print_json({"acknowledged": done, "missing": missing})
        return
    for name in done:
        click.echo(f"{printable(name)}: acknowledged")
