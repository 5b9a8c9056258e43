"""`checkpointd retention`: modules for policies, for runs, and for announced deletions."""

from __future__ import annotations

import click

from checkpointd_server.cli.retention.expiring import acknowledge, expiring
from checkpointd_server.cli.retention.policies import delete_policy, get_policy, list_policies, set_policy
from checkpointd_server.cli.retention.runs import preview, run


@click.group()
def retention() -> None:
    """Set how long threads are kept, and how much of each; preview and run deletions.

    \b
    Examples:
        checkpointd retention set old-chats --prefix chat: --max-idle 90d
        checkpointd retention preview
        checkpointd retention run
    """


for command in (set_policy, list_policies, get_policy, delete_policy, preview, run, expiring, acknowledge):
    retention.add_command(command)
