"""The schema, in numbered steps.

A migration is a folder, `migrations/0001_name`, whose files run in the order of their names; it is never changed once
released. Those that a database lacks run in one transaction under an advisory lock, so that any number of servers may
start at once, also through a transaction pooler.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import asyncpg

from checkpointd_server.domain.errors import SchemaTooNew, SetupError
from checkpointd_server.store.connections.connector import Connector
from checkpointd_server.store.connections.database import keep_trying
from checkpointd_server.store.errors import explain_setup, lacking_rights, read_only
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.statements import load_statements, quote_identifier, quote_literal, with_schema

_OLDEST_SERVER = 14

_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS __schema__.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""

_PSQL_HEAD = """\
-- The schema of checkpointd, for psql:  psql --no-psqlrc --file this.sql DATABASE
-- It brings an empty database, or one of an older checkpointd, up to migration {last}, and may be run again.
\\set ON_ERROR_STOP on
BEGIN;
DO $$ BEGIN PERFORM pg_advisory_xact_lock({lock}); END $$;
CREATE SCHEMA IF NOT EXISTS {schema};
{table}
"""

_PSQL_MIGRATION = """
SELECT NOT EXISTS (SELECT FROM {schema}.migrations WHERE number = {number}) AS pending \\gset
\\if :pending
{sql}
INSERT INTO {schema}.migrations (number, name) VALUES ({number}, {name});
\\endif
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A step of the schema."""

    number: int
    """1 and up, without gaps."""
    name: str
    """What it is about, in a word or two."""
    sql: str = field(repr=False)
    """Its statements, with `__schema__` for the schema."""

    def __str__(self) -> str:
        return f"{self.number:04} {self.name}"


def load_migrations() -> list[Migration]:
    """Returns all migrations that this checkpointd knows, oldest first."""
    migrations = []
    for folder in sorted(files(__package__).joinpath("migrations").iterdir(), key=lambda folder: folder.name):
        number, _, name = folder.name.partition("_")
        parts = sorted(folder.iterdir(), key=lambda file: file.name)
        sql = "\n".join(part.read_text(encoding="utf-8") for part in parts)
        migrations.append(Migration(number=int(number), name=name, sql=sql))
    return migrations


async def migrate(options: StoreOptions) -> list[Migration]:
    """Brings the schema up to date and returns the migrations that ran: none if it was.

    Raises:
        SchemaTooNew: A newer checkpointd migrated the database.
        SetupError: The database can't be reached or doesn't allow it.
    """
    known = load_migrations()
    async with _connect(options) as connection, connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_lock(options.schema)})")
        # In a statement after the lock, so that it sees what was committed while this one waited. CREATE ... IF NOT
        # EXISTS asks for rights that a server on a ready database need not have.
        applied = await _applied(connection, options.schema)
        _check_known(applied, known)
        pending = [migration for migration in known if migration.number not in applied]
        if pending and not applied:
            exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
            if not await connection.fetchval(exists, options.schema):
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(options.schema)}")
            await connection.execute(with_schema(_MIGRATIONS_TABLE, options.schema))
        insert = with_schema("INSERT INTO __schema__.migrations (number, name) VALUES ($1, $2)", options.schema)
        for migration in pending:
            await connection.execute(with_schema(migration.sql, options.schema))
            await connection.execute(insert, migration.number, migration.name)
        return pending


async def schema_version(options: StoreOptions) -> int:
    """Returns the number of the last migration that the database has; 0: none. Raises SetupError."""
    async with _connect(options) as connection:
        return max(await _applied(connection, options.schema), default=0)


async def check_schema(options: StoreOptions) -> None:
    """Raises SchemaTooNew if a newer checkpointd migrated the database, SetupError if it can't be used as it is."""
    known = load_migrations()
    async with _connect(options) as connection:
        if await connection.fetchval("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"):
            raise read_only()
        applied = await _applied(connection, options.schema)
        complete = all(migration.number in applied for migration in known)
        lacking = await connection.fetchval(load_statements(options.schema)["check"]) if complete else None
    _check_known(applied, known)
    if lacking:
        raise SetupError(lacking_rights(str(lacking)))
    missing = [migration.number for migration in known if migration.number not in applied]
    if missing:
        problem = "is not set up for checkpointd" if not applied else f"lacks the migrations {missing}"
        raise SetupError(f"schema {options.schema!r} of the database {problem}: run `checkpointd migrate`")


def print_sql(schema: str) -> str:
    """Returns all migrations as one script for psql, for where checkpointd may not change the schema itself."""
    known = load_migrations()
    quoted = quote_identifier(schema)
    head = _PSQL_HEAD.format(
        last=known[-1].number, lock=_lock(schema), schema=quoted, table=with_schema(_MIGRATIONS_TABLE, schema).strip()
    )
    steps = [
        _PSQL_MIGRATION.format(
            schema=quoted,
            number=migration.number,
            name=quote_literal(migration.name),
            sql=with_schema(migration.sql, schema).strip(),
        )
        for migration in known
    ]
    return head + "".join(steps) + "\nCOMMIT;\n"


@asynccontextmanager
async def _connect(options: StoreOptions) -> AsyncIterator[Any]:
    connection = await keep_trying(options, Connector(options, tells=False).connect)
    try:
        server = connection.get_server_version()
        if server.major < _OLDEST_SERVER:
            raise SetupError(f"the database is PostgreSQL {server.major}: checkpointd needs {_OLDEST_SERVER} or newer")
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise explain_setup(error, options) from error
    finally:
        await connection.close()


async def _applied(connection: Any, schema: str) -> set[int]:
    table = f"{quote_identifier(schema)}.migrations"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return set()
    rows = await connection.fetch(f"SELECT number FROM {table}")  # noqa: S608  # only the schema's quoted name
    return {row["number"] for row in rows}


def _check_known(applied: set[int], known: list[Migration]) -> None:
    found = max(applied, default=0)
    if found > known[-1].number:
        raise SchemaTooNew(found, known[-1].number)


def _lock(schema: str) -> int:
    """The advisory lock under which a schema is changed."""
    digest = hashlib.sha256(f"checkpointd schema {schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
