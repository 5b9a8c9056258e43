"""`checkpointd show`."""

from __future__ import annotations

from typing import Any

import click

from checkpointd_server.cli.option_types import Whole, json_option
from checkpointd_server.cli.remote import Remote, remote_options
from checkpointd_server.cli.rendering.json import print_json


@click.command()
@click.argument("thread_id")
@click.option("--ns", "checkpoint_ns", help="Only this namespace; '' is the root graph.  [default: all]")
@click.option("--checkpoint-id", help="Only this checkpoint.  [default: a list of all, and the latest in detail]")
@click.option(
    "--limit", type=Whole(min=1), default=20, show_default=True, help="Maximum number of checkpoints, newest first."
)
@json_option
@remote_options()
def show(
    remote: Remote,
    thread_id: str,
    checkpoint_ns: str | None,
    checkpoint_id: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print a thread's checkpoints, and the values of the latest one; with --json the values of each.

    No code of an agent is loaded: objects are shown as plain data with the names of their types, and encrypted and
    pickled values as their sizes.

    \b
    Examples:
        checkpointd show 42
        checkpointd show 42 --ns '' --json | jq '.checkpoints[0].values'
    """
    from checkpointd_server.cli.rendering.thread import ThreadView

    def read(channel: Any) -> ThreadView:
        return ThreadView.read(
            channel,
            thread_id=thread_id,
            checkpoint_ns=checkpoint_ns,
            checkpoint_id=checkpoint_id,
            limit=limit,
            values=as_json,
            timeout=remote.timeout,
        )

    view = remote.ask(read)
    if not view.checkpoints:
        where = "" if checkpoint_ns is None else f" in namespace {checkpoint_ns!r}"
        what = "checkpoint" if checkpoint_id is None else f"checkpoint {checkpoint_id!r}"
        raise click.ClickException(f"thread {thread_id!r} has no {what}{where}")
    if as_json:
        print_json(view.as_json())
    else:
        for line in view.as_text():
            click.echo(line)
