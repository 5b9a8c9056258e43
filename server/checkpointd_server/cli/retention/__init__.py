"""`checkpointd retention`: a module for policies, one for their runs, and one for what is about to go."""

from __future__ import annotations

import click

from checkpointd_server.cli.retention.expiring import acknowledge, expiring
from checkpointd_server.cli.retention.policies import delete_policy, get_policy, list_policies, set_policy
from checkpointd_server.cli.retention.runs import preview, run


@click.group()
def retention() -> None:
    """Say how long threads are kept, and how much of each; try it; see what is about to go.

    \b
    Examples:
        checkpointd retention set old-chats --prefix chat: --max-idle 90d
        checkpointd retention preview
        checkpointd retention run
    """


for command in (set_policy, list_policies, get_policy, delete_policy, preview, run, expiring, acknowledge):
    retention.add_command(command)
