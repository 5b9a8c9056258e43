"""The command line: `checkpointd serve | migrate | keys | health | show | info`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from checkpointd_server import __version__
from checkpointd_server.access_settings import read_access
from checkpointd_server.config import DatabaseConfig, ServeConfig
from checkpointd_server.console import health, info, show
from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.domain.limits import Limits
from checkpointd_server.environment import variables_of, warn_of_unknown
from checkpointd_server.keys import keys
from checkpointd_server.logs import LogFormat, LogLevel, configure_logs, flush_logs
from checkpointd_server.settings import database_settings, serve_settings


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


@main.command()
@serve_settings
def serve(
    listen: tuple[str, ...],
    database_url: str | None,
    data_dir: Path | None,
    schema: str,
    database_wait: float,
    workers: int,
    pool_max_size: int,
    max_concurrent_calls: int,
    max_bytes_in_flight: int,
    max_connections: int,
    max_wasted_calls: int,
    max_queue: int,
    max_queue_seconds: float,
    statement_cache_size: int,
    migrate: bool,
    drain_seconds: float,
    default_timeout: float,
    max_timeout: float,
    max_message_bytes: int,
    max_value_bytes: int,
    max_page_bytes: int,
    reflection: bool,
    log_level: LogLevel,
    log_format: LogFormat,
    health_listen: tuple[str, ...],
    **access: Any,
) -> None:
    """Serve checkpoints until SIGTERM or Ctrl-C.

    When it serves, it prints one line on standard output: "checkpointd ready on HOST:PORT". On the first signal it lets
    calls in flight finish, on the second it stops at once.

    Without --database-url it runs an embedded PostgreSQL (from checkpointd[embedded]) in --data-dir. Where other
    machines can reach it, it wants TLS and tokens.

    \b
    Examples:
        checkpointd serve --data-dir ./checkpoints
        CHECKPOINTD_DATABASE_URL=postgresql://agents:secret@db/agents checkpointd serve --listen 0.0.0.0:50051 \\
            --tls-cert tls.crt --tls-key tls.key --keys-file keys.toml
    """
    _exit_on_signals()
    configure_logs(log_level, log_format)
    run: Callable[[ServeConfig], None] | None = click.get_current_context().obj  # a worker does it its own way
    if run is None:
        warn_of_unknown(os.environ, variables_of(main.commands.values()))
    if workers > pool_max_size:
        raise click.UsageError(
            f"--workers {workers} needs a --pool-max-size of {workers} at the least: the workers share its connections"
        )
    config = ServeConfig(
        database=_database(database_url, data_dir, schema, database_wait),
        listen=listen,
        health_listen=health_listen,
        access=read_access(**access),
        limits=Limits(
            max_message_bytes=max_message_bytes, max_value_bytes=max_value_bytes, max_page_bytes=max_page_bytes
        ),
        workers=workers,
        pool_max_size=pool_max_size,
        max_concurrent_calls=max_concurrent_calls,
        max_bytes_in_flight=max_bytes_in_flight,
        max_connections=max_connections,
        max_wasted_calls=max_wasted_calls,
        max_queue=max_queue,
        max_queue_seconds=max_queue_seconds,
        statement_cache_size=statement_cache_size,
        migrate=migrate,
        drain_seconds=drain_seconds,
        default_timeout=default_timeout,
        max_timeout=max_timeout,
        reflection=reflection,
        log_level=log_level,
        log_format=log_format,
    )
    try:
        (run or _serve)(config)
    finally:
        flush_logs()  # before the error that ends it is written


def _serve(config: ServeConfig) -> None:
    """Serves in this process, or in several that this one looks after."""
    # Imported here, for grpc and asyncpg take their time: --help needs neither.
    if config.workers == 1:
        from checkpointd_server.app import serve as run

        asyncio.run(run(config, announce=_announce))
        return
    from checkpointd_server.supervisor import supervise
    from checkpointd_server.worker_process import as_arguments

    context = click.get_current_context()

    def arguments(changes: Mapping[str, Any]) -> list[str]:
        return as_arguments(context.command, {**context.params, **changes})

    asyncio.run(supervise(config, arguments, announce=_announce))


@main.command()
@click.option("--print-sql", is_flag=True, help="Print the SQL and connect to nothing.")
@database_settings
def migrate(
    print_sql: bool, database_url: str | None, data_dir: Path | None, schema: str, database_wait: float
) -> None:
    """Bring the database's schema up to date, and say which database that was.

    `checkpointd serve` does it at its start; this is for those who keep that right for themselves. Safe to run from
    several places at once. Without --database-url it is the embedded PostgreSQL's.

    \b
    Examples:
        CHECKPOINTD_DATABASE_URL=postgresql://owner:secret@db/agents checkpointd migrate
        checkpointd migrate --print-sql | psql --set ON_ERROR_STOP=1 agents
    """
    from checkpointd_server import app, store

    if print_sql:
        click.echo(store.print_sql(schema), nl=False)
        return
    configure_logs(LogLevel.WARNING)
    warn_of_unknown(os.environ, variables_of(main.commands.values()))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also this way out stops an embedded PostgreSQL
    database = _database(database_url, data_dir, schema, database_wait)
    applied = asyncio.run(app.migrate(database))
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    state = "is up to date" if applied else "was up to date already"
    click.echo(f"schema {schema} {state}, in {app.describe_database(database)}")


main.add_command(keys)
main.add_command(health)
main.add_command(show)
main.add_command(info)


def _database(url: str | None, data_dir: Path | None, schema: str, wait_seconds: float) -> DatabaseConfig:
    if url is not None and data_dir is not None:
        raise click.UsageError(
            "--data-dir is the embedded PostgreSQL's folder and can't go together with --database-url "
            "(they may come from CHECKPOINTD_DATA_DIR and CHECKPOINTD_DATABASE_URL)"
        )
    return DatabaseConfig(url=url, data_dir=data_dir, schema=schema, wait_seconds=wait_seconds)


def _announce(addresses: Sequence[str]) -> None:
    click.echo(f"checkpointd ready on {' '.join(addresses)}")
    sys.stdout.flush()


def _exit_on_signals() -> None:
    """Until the event loop takes them over there is nothing to finish: a signal ends the process, and that is fine."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


if __name__ == "__main__":
    main()
