"""`checkpointd threads`: modules for lists, views and changes."""

from __future__ import annotations

import click

from checkpointd_server.cli.threads.changes import archive, copy, delete, fork, tag, unarchive
from checkpointd_server.cli.threads.lists import count, list_threads
from checkpointd_server.cli.threads.views import diff, get, tree


@click.group()
def threads() -> None:
    """List, inspect, tag, archive, copy and delete threads.

    \b
    Examples:
        checkpointd threads list --status interrupted
        checkpointd threads list --prefix user-7: --metadata assistant=support --json
        checkpointd threads get support-42
    """


for command in (list_threads, count, get, tree, diff, tag, archive, unarchive, copy, fork, delete):
    threads.add_command(command)
