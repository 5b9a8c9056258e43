"""`checkpointd threads`: a module for each kind of what can be done with threads."""

from __future__ import annotations

import click

from checkpointd_server.cli.threads.changes import archive, copy, delete, fork, tag, unarchive
from checkpointd_server.cli.threads.lists import count, list_threads
from checkpointd_server.cli.threads.views import diff, get, tree


@click.group()
def threads() -> None:
    """Find threads, look at them, and keep them in order.

    \b
    Examples:
        checkpointd threads list --status interrupted
        checkpointd threads list --prefix user-7: --metadata assistant=support --json
        checkpointd threads get support-42
    """


for command in (list_threads, count, get, tree, diff, tag, archive, unarchive, copy, fork, delete):
    threads.add_command(command)
