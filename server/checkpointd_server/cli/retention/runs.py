"""`checkpointd retention preview` and `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from checkpointd_server.cli.destruction import confirm, destructive
from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.progress import counting
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json

if TYPE_CHECKING:
    from checkpointd.v1 import retention_service_pb2 as pb


_DELETING_SECONDS = 60.0
"""The minimum timeout of a call that deletes, in seconds."""


def look(remote: Remote, policy: pb.RetentionPolicy | None, bar: Any) -> list[pb.RetentionEffect]:
    """Returns what would be deleted.

    Args:
        remote: The server.
        policy: The policy to try. None: the stored ones.
        bar: Shows how many threads were found.
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub

    def ask(channel: Any) -> list[pb.RetentionEffect]:
        stub = RetentionServiceStub(channel)
        request = pb.PreviewRetentionRequest(policy=policy)
        found: list[pb.RetentionEffect] = []
        while True:
            page = stub.PreviewRetention(request, timeout=remote.timeout)
            found += page.effects
            bar.update(len(page.effects))
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    return remote.ask(ask)


@click.command()
@json_option
@remote_options()
def preview(remote: Remote, as_json: bool) -> None:
    """Show what the policies would delete now, and why.

    \b
    Example:
        checkpointd retention preview
    """
    _show(remote, as_json)


@click.command()
@destructive
@json_option
@remote_options()
def run(remote: Remote, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Apply the policies now, without waiting for the next sweep. Deletions with a hold are announced.

    \b
    Examples:
        checkpointd retention run --dry-run
        checkpointd retention run --yes
    """
    from checkpointd.v1 import retention_service_pb2 as pb
    from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
    from checkpointd_server.cli.rendering.retention import summary_of

    if dry_run:
        _show(remote, as_json)
        return
    if not yes:
        with counting("looking at threads") as bar:
            effects = look(remote, None, bar)
        confirm(f"Apply the policies at {remote.where}? They would delete {summary_of(effects)} now.", yes=yes)

    def ask(channel: Any) -> list[pb.RetentionEffect]:
        stub = RetentionServiceStub(channel)
        request = pb.RunRetentionRequest()
        done: list[pb.RetentionEffect] = []
        with counting("deleting") as bar:
            while True:
                page = stub.RunRetention(request, timeout=max(remote.timeout, _DELETING_SECONDS))
                done += page.effects
                bar.update(len(page.effects))
                if not page.next_page_token:
                    return done
                request.page_token = page.next_page_token

    _print(remote.ask(ask), as_json)


def _show(remote: Remote, as_json: bool) -> None:
    from checkpointd_server.cli.rendering.retention import summary_of

    with counting("looking at threads") as bar:
        effects = look(remote, None, bar)
    _print(effects, as_json)
    if not as_json:
        click.echo(f"would delete {summary_of(effects)}")


def _print(effects: list[pb.RetentionEffect], as_json: bool) -> None:
    from checkpointd_server.cli.rendering.retention import effect_json, tables_of

    if as_json:
        print_json([effect_json(effect) for effect in effects])
        return
    for line in tables_of(effects):
        click.echo(line)
