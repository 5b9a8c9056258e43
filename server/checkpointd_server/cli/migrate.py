"""`checkpointd migrate`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click

from checkpointd_server.cli.server_options import database_settings, read_database
from checkpointd_server.cli.unknown_env import known_variables, warn_of_unknown
from checkpointd_server.logs import LogLevel, configure_logs


@click.command()
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
    warn_of_unknown(os.environ, known_variables())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also this way out stops an embedded PostgreSQL
    database = read_database(database_url, data_dir, schema, database_wait)
    applied = asyncio.run(app.migrate(database))
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    state = "is up to date" if applied else "was up to date already"
    click.echo(f"schema {schema} {state}, in {app.describe_database(database)}")
