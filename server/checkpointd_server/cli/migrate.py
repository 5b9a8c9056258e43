"""`checkpointd migrate`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from checkpointd_server.cli.option_types import json_option
from checkpointd_server.cli.rendering.json import print_json
from checkpointd_server.cli.rendering.tables import printable, table
from checkpointd_server.cli.server_options import database_settings, read_database
from checkpointd_server.cli.unknown_env import known_variables, warn_of_unknown
from checkpointd_server.process.logging import LogLevel, configure_logs

if TYPE_CHECKING:
    from checkpointd_server.store import SchemaStatus


@click.command()
@click.option("--print-sql", is_flag=True, help="Print the SQL without connecting to a database.")
@click.option(
    "--status", is_flag=True, help="Print which migrations the database has and lacks, without changing anything."
)
@json_option
@database_settings
def migrate(
    print_sql: bool,
    status: bool,
    as_json: bool,
    database_url: str | None,
    data_dir: Path | None,
    schema: str,
    database_wait: float,
    vector_index: tuple[str, ...],
) -> None:
    """Update the database's schema, and print which database that was.

    `checkpointd serve` does this at startup; run it yourself if the server's database user may not change the schema.
    It is safe to run from several places at once. Without --database-url it updates the embedded PostgreSQL.

    With --status, it exits with 0 if this release can serve on the database as it is, else with 1.

    \b
    Examples:
        CHECKPOINTD_DATABASE_URL=postgresql://owner:secret@db/agents checkpointd migrate
        checkpointd migrate --status
        checkpointd migrate --print-sql | psql --set ON_ERROR_STOP=1 agents
    """
    from checkpointd_server import app, store

    if print_sql and (status or as_json):
        raise click.UsageError("--print-sql can't be combined with --status or --json.")
    if as_json and not status:
        raise click.UsageError("--json goes with --status.")
    if print_sql:
        click.echo(store.print_sql(schema, vector_index), nl=False)
        return
    configure_logs(LogLevel.WARNING)
    warn_of_unknown(os.environ, known_variables())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM, too, must stop an embedded PostgreSQL
    database = read_database(database_url, data_dir, schema, database_wait, vector_index)
    if status:
        found = asyncio.run(app.schema_status(database))
        if as_json:
            print_json(_as_json(found))
        else:
            _print_status(found, f"schema {schema} in {app.describe_database(database)}")
        sys.exit(0 if found.can_serve else 1)
    applied = asyncio.run(app.migrate(database))
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    state = "is up to date" if applied else "was already up to date"
    click.echo(f"schema {schema} {state}, in {app.describe_database(database)}")


def _rows(status: SchemaStatus) -> list[dict[str, str | int | None]]:
    """Returns the migrations as JSON has them, oldest first."""
    states = {migration.number: "unknown" for migration in status.unknown}
    states |= {migration.number: "changed" for migration in status.changed}
    rows: list[dict[str, str | int | None]] = [
        {
            "number": migration.number,
            "name": migration.name,
            "compatibility": "additive" if migration.additive else "breaking",
            "state": states.get(migration.number, "applied"),
            "applied_at": migration.applied_at.isoformat(timespec="seconds"),
        }
        for migration in status.applied
    ]
    rows += [
        {
            "number": migration.number,
            "name": migration.name,
            "compatibility": "additive" if migration.additive else "breaking",
            "state": "pending",
            "applied_at": None,
        }
        for migration in status.pending
    ]
    return sorted(rows, key=lambda row: row["number"] or 0)


def _as_json(status: SchemaStatus) -> dict[str, object]:
    return {"can_serve": status.can_serve, "migrations": _rows(status)}


def _print_status(status: SchemaStatus, where: str) -> None:
    cells = [
        (
            f"{row['number']:04}",
            printable(str(row["name"])),
            str(row["compatibility"]),
            str(row["state"]),
            str(row["applied_at"] or ""),
        )
        for row in _rows(status)
    ]
    for line in table(("number", "name", "compatibility", "state", "applied at"), cells):
        click.echo(line)
    if status.too_new:
        outcome = "was migrated by a newer checkpointd in an incompatible way: run the newer one"
    elif status.changed:
        outcome = "was made by another build of checkpointd, with an incompatible schema: run that build"
    elif status.pending:
        outcome = f"lacks {len(status.pending)} of {len(cells)} migrations: run `checkpointd migrate`"
    elif status.unknown:
        outcome = "was migrated by a newer checkpointd in a compatible way: this release can serve on it"
    else:
        outcome = "is up to date"
    click.echo(f"{where} {outcome}")
