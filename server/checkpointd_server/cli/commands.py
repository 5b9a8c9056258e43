"""`checkpointd` and its commands."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import Any

import click
import structlog

from checkpointd_server import __version__
from checkpointd_server.cli.context import context
from checkpointd_server.cli.export_threads import export_threads
from checkpointd_server.cli.health import health
from checkpointd_server.cli.import_threads import import_threads
from checkpointd_server.cli.info import info
from checkpointd_server.cli.keys import keys
from checkpointd_server.cli.migrate import migrate
from checkpointd_server.cli.option_types import check_texts
from checkpointd_server.cli.retention import retention
from checkpointd_server.cli.serve import serve
from checkpointd_server.cli.show import show
from checkpointd_server.cli.tenants.purge import purge
from checkpointd_server.cli.tenants.quotas import quotas
from checkpointd_server.cli.tenants.stats import stats
from checkpointd_server.cli.tenants.top import top
from checkpointd_server.cli.threads import threads
from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.process.logging import LogFormat, configure_logs, flush_logs

_COMMAND = "checkpointd.command"
"""Key of the named command and its arguments in click's context."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes of a full disk, quota or file."""


class Commands(click.Group):
    """The commands. An error of checkpointd is one line on standard error and exit code 1.

    If the log is JSON, so is that line, and so is any other error that keeps the server from starting.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that was named."""
        name, command, rest = super().resolve_command(ctx, args)
        ctx.meta[_COMMAND] = (name, command, tuple(rest))  # click empties the list
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was named."""
        try:
            return super().invoke(ctx)
        except (CheckpointdError, click.ClickException, OSError) as error:
            _give_up_output()
            shown = error if isinstance(error, click.ClickException) else click.ClickException(_problem_of(error))
            if not _logs_json(ctx):
                raise shown from error
            _log_failure(reason=shown.format_message())
            code = shown.exit_code
        except Exception:
            if not _logs_json(ctx):
                raise
            _log_failure(reason="an internal error", exc_info=True)
            code = 1
        raise click.exceptions.Exit(code)


def _problem_of(error: CheckpointdError | OSError) -> str:
    """Describes the error, with the name of its file. Raises it again if it isn't the user's concern."""
    if not isinstance(error, OSError):
        return str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)!r}: {error.strerror}"
    if error.errno not in _NO_ROOM:
        raise error
    return f"the output is cut off: {error.strerror}"


def _give_up_output() -> None:
    """Drops output that can't be written: Python would try again at exit, and fail with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _logs_json(ctx: click.Context) -> bool:
    """Returns whether the named command writes its log as JSON, even if its other options are invalid."""
    name, command, arguments = ctx.meta.get(_COMMAND, (None, None, ()))
    if command is None or all(option.name != "log_format" for option in command.params):
        return False
    with command.make_context(name, list(arguments), parent=ctx, resilient_parsing=True) as context:
        return bool(context.params.get("log_format") == LogFormat.JSON)


def _log_failure(**fields: Any) -> None:
    """Logs why the command failed."""
    configure_logs(format=LogFormat.JSON)
    structlog.get_logger(__name__).error("failed", **fields)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="checkpointd", message="%(prog)s %(version)s")
def main() -> None:
    """The checkpoint server for LangGraph agents: one gRPC service in front of PostgreSQL.

    Try it without a database of your own:

    \b
        checkpointd serve
    """
    # gRPC's C core would report the same errors again. It reads this when grpc is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    click.get_current_context().call_on_close(flush_logs)


for command in (
    *(serve, migrate, context, health, info, show, threads, retention, stats, top, quotas, purge),
    *(export_threads, import_threads, keys),
):
    main.add_command(command)
check_texts(main)
