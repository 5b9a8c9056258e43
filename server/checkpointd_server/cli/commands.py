"""The command line: `checkpointd serve | migrate | context | health | info | show | keys`."""

from __future__ import annotations

import os
from typing import Any

import click

from checkpointd_server import __version__
from checkpointd_server.cli.context import context
from checkpointd_server.cli.health import health
from checkpointd_server.cli.info import info
from checkpointd_server.cli.keys import keys
from checkpointd_server.cli.migrate import migrate
from checkpointd_server.cli.serve import serve
from checkpointd_server.cli.show import show
from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.logs import flush_logs


class Commands(click.Group):
    """The commands. What checkpointd says no to is one line on standard error and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was named."""
        try:
            return super().invoke(ctx)
        except CheckpointdError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="checkpointd", message="%(prog)s %(version)s")
def main() -> None:
    """The checkpoint server for LangGraph agents: one gRPC service in front of PostgreSQL.

    Try it without a database of your own:

    \b
        checkpointd serve
    """
    # The C core's own complaints would stand beside ours about the same thing. Read when grpc is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    click.get_current_context().call_on_close(flush_logs)


for command in (serve, migrate, context, health, info, show, keys):
    main.add_command(command)
