"""The schema, in numbered migrations.

A migration is a folder, `migrations/0001_name`, whose files run in the order of their names. It is never changed once
released. The database stores the checksums of its migrations: one that was changed nevertheless, as happens between
releases, is reported at startup. Missing migrations run in one transaction under an advisory lock, so any number of
servers may start at once, even through a transaction pooler.

The first line of its first file says what a migration means for servers of the previous release. It is stored in the
database, where they find it:

    -- compatibility: additive      they start and serve as before
    -- compatibility: breaking      they refuse to start
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import asyncpg

from checkpointd_server.domain.errors import SchemaChanged, SchemaTooNew, SetupError
from checkpointd_server.domain.items import DEFAULT_INDEXES
from checkpointd_server.store.connections.connector import Connector
from checkpointd_server.store.connections.database import keep_trying
from checkpointd_server.store.errors import explain_setup, lacking_rights, read_only
from checkpointd_server.store.items.vectors import install, installed_functions, vector_sql
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.statements import load_statements, quote_identifier, quote_literal, with_schema

_OLDEST_SERVER = 14

_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS __schema__.migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    additive boolean NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    -- Of its statements. Null: not known.
    checksum text
);
"""

_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)

_PSQL_HEAD = """\
-- The schema of checkpointd, for psql:  psql --no-psqlrc --file this.sql DATABASE
-- It brings an empty database, or one of an older checkpointd, up to migration {last}, and may be run again.
\\set ON_ERROR_STOP on
BEGIN;
DO $$ BEGIN PERFORM pg_advisory_xact_lock({lock}); END $$;
CREATE SCHEMA IF NOT EXISTS {schema};
{table}
"""

# As text, because tables from before checksums lack the column.
_PSQL_CHECK = """
DO $checkpointd$ BEGIN
    IF EXISTS (
        SELECT FROM {schema}.migrations AS m
        WHERE number = {number} AND to_jsonb(m) ->> 'checksum' IS DISTINCT FROM {checksum}
    ) THEN
        RAISE EXCEPTION 'migration {number} of this schema was made by another build of checkpointd';
    END IF;
END $checkpointd$;
"""

_PSQL_MIGRATION = """
SELECT NOT EXISTS (SELECT FROM {schema}.migrations WHERE number = {number}) AS pending \\gset
\\if :pending
{sql}
INSERT INTO {schema}.migrations (number, name, additive, checksum) VALUES ({number}, {name}, {additive}, {checksum});
\\endif
"""


_PSQL_VECTORS = """
SELECT to_regtype('vector') IS NOT NULL AS vectors \\gset
\\if :vectors
{sql}
\\endif
"""


@cache
def _checksum(sql: str) -> str:
    statements = " ".join(_COMMENT.sub("", sql).split())
    return hashlib.sha256(statements.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A migration."""

    number: int
    """From 1. There may be gaps: features have their own ranges."""
    name: str
    """Its subject, in a word or two."""
    additive: bool
    """True if servers that don't know it work on a database that has it."""
    sql: str = field(repr=False)
    """Its statements, with `__schema__` for the schema."""

    @property
    def checksum(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of its statements.

        Comments and white space don't count.
        """
        return _checksum(self.sql)

    def __str__(self) -> str:
        return f"{self.number:04} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedMigration:
    """A migration that a database has."""

    number: int
    """1 and up."""
    name: str
    """Its subject."""
    additive: bool
    """True if servers that don't know it work on the database."""
    applied_at: datetime
    """The time at which it was run."""
    checksum: str | None
    """The checksum of its statements (`Migration.checksum`). None: applied by a checkpointd without checksums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaStatus:
    """The migrations of a database, compared with those of this checkpointd."""

    applied: tuple[AppliedMigration, ...]
    """The migrations that it has, oldest first."""
    pending: tuple[Migration, ...]
    """The migrations that it lacks."""
    unknown: tuple[AppliedMigration, ...]
    """Those of a newer checkpointd: the last ones of `applied`."""
    changed: tuple[AppliedMigration, ...]
    """Those with other statements than this checkpointd's: some of `applied`."""

    @property
    def too_new(self) -> bool:
        """True if this checkpointd can't serve on it, because an unknown migration is breaking."""
        return not all(migration.additive for migration in self.unknown)

    @property
    def can_serve(self) -> bool:
        """True if this checkpointd serves on it as it is."""
        return not self.pending and not self.too_new and not self.changed


@cache
def load_migrations() -> tuple[Migration, ...]:
    """Returns all migrations that this checkpointd knows, oldest first. Raises ValueError if one is malformed."""
    migrations = []
    for folder in sorted(files(__package__).joinpath("migrations").iterdir(), key=lambda folder: folder.name):
        number, _, name = folder.name.partition("_")
        parts = sorted(folder.iterdir(), key=lambda file: file.name)
        sql = "\n".join(part.read_text(encoding="utf-8") for part in parts)
        migrations.append(Migration(number=int(number), name=name, additive=_is_additive(folder.name, sql), sql=sql))
    return tuple(migrations)


def _is_additive(folder: str, sql: str) -> bool:
    match sql.partition("\n")[0].removeprefix("-- compatibility: "):
        case "additive":
            return True
        case "breaking":
            return False
    raise ValueError(f"migration {folder} must begin with '-- compatibility: additive' or '-- compatibility: breaking'")


async def migrate(options: StoreOptions, *, known: Sequence[Migration] | None = None) -> list[Migration]:
    """Brings the schema up to date and returns the migrations that ran: none if it was.

    Args:
        options: The database.
        known: All migrations, oldest first. None: those of this checkpointd.

    Raises:
        SchemaTooNew: A newer checkpointd migrated the database, not only by additive migrations.
        SchemaChanged: Another build of checkpointd migrated the database, with other statements.
        SetupError: The database can't be reached or doesn't allow it.
    """
    known = load_migrations() if known is None else known
    async with _connect(options) as connection, connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({_lock(options.schema)})")
        # In a statement after the lock, which sees what was committed while this one waited. CREATE ... IF NOT
        # EXISTS asks for rights that a server on a ready database need not have.
        status = _compare(await _applied(connection, options.schema), known)
        _check_compatible(status, known, options.schema)
        if status.pending and not status.applied:
            exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
            if not await connection.fetchval(exists, options.schema):
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(options.schema)}")
            await connection.execute(with_schema(_MIGRATIONS_TABLE, options.schema))
        insert = with_schema(
            "INSERT INTO __schema__.migrations (number, name, additive, checksum) VALUES ($1, $2, $3, $4)",
            options.schema,
        )
        for migration in status.pending:
            await connection.execute(with_schema(migration.sql, options.schema))
            await connection.execute(insert, migration.number, migration.name, migration.additive, migration.checksum)
        await install(connection, options.schema, options.vector_indexes)
        return list(status.pending)


async def schema_status(options: StoreOptions) -> SchemaStatus:
    """Returns which migrations the database has and lacks, without changing anything. Raises SetupError."""
    async with _connect(options) as connection:
        return _compare(await _applied(connection, options.schema), load_migrations())


async def schema_version(options: StoreOptions) -> int:
    """Returns the number of the last migration that the database has; 0: none. Raises SetupError."""
    async with _connect(options) as connection:
        return max((migration.number for migration in await _applied(connection, options.schema)), default=0)


async def check_schema(options: StoreOptions) -> tuple[str, ...]:
    """Returns the functions that search vectors, or none without pgvector.

    Raises:
        SchemaTooNew: A newer checkpointd migrated the database, not only by additive migrations.
        SchemaChanged: Another build of checkpointd migrated the database, with other statements.
        SetupError: It lacks migrations, or can't be used.
    """
    known = load_migrations()
    async with _connect(options) as connection:
        if await connection.fetchval("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"):
            raise read_only()
        status = _compare(await _applied(connection, options.schema), known)
        lacking = await connection.fetchval(load_statements(options.schema)["check"]) if status.can_serve else None
        functions = await installed_functions(connection, options.schema)
    _check_compatible(status, known, options.schema)
    if lacking:
        raise SetupError(lacking_rights(str(lacking)))
    if status.pending:
        missing = [migration.number for migration in status.pending]
        problem = "is not set up for checkpointd" if not status.applied else f"lacks the migrations {missing}"
        raise SetupError(f"schema {options.schema!r} of the database {problem}: run `checkpointd migrate`")
    return functions


def print_sql(schema: str, vector_indexes: Sequence[str] = DEFAULT_INDEXES) -> str:
    """Returns all migrations as one script for psql, for when checkpointd may not change the schema itself.

    Args:
        schema: The schema.
        vector_indexes: The indexes on vectors to create if the database has pgvector.
    """
    known = load_migrations()
    quoted = quote_identifier(schema)
    head = _PSQL_HEAD.format(
        last=known[-1].number, lock=_lock(schema), schema=quoted, table=with_schema(_MIGRATIONS_TABLE, schema).strip()
    )
    steps = [
        template.format(
            schema=quoted,
            number=migration.number,
            name=quote_literal(migration.name),
            additive="true" if migration.additive else "false",
            checksum=quote_literal(migration.checksum),
            sql=with_schema(migration.sql, schema).strip(),
        )
        for template in (_PSQL_CHECK, _PSQL_MIGRATION)
        for migration in known
    ]
    vectors = _PSQL_VECTORS.format(sql=with_schema(vector_sql(vector_indexes), schema).strip())
    return head + "".join(steps) + vectors + "\nCOMMIT;\n"


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


async def _applied(connection: Any, schema: str) -> list[AppliedMigration]:
    table = f"{quote_identifier(schema)}.migrations"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return []
    # As JSON, because tables from before checksums lack the column.
    columns = "number, name, additive, applied_at, to_jsonb(m) ->> 'checksum' AS checksum"
    # Only the schema's name comes from outside, and it is quoted.
    rows = await connection.fetch(f"SELECT {columns} FROM {table} AS m ORDER BY number")  # noqa: S608
    return [AppliedMigration(**row) for row in rows]


def _compare(applied: Sequence[AppliedMigration], known: Sequence[Migration]) -> SchemaStatus:
    numbers = {migration.number for migration in applied}
    checksums = {migration.number: migration.checksum for migration in known}
    return SchemaStatus(
        applied=tuple(applied),
        pending=tuple(migration for migration in known if migration.number not in numbers),
        unknown=tuple(migration for migration in applied if migration.number > known[-1].number),
        changed=tuple(
            migration
            for migration in applied
            if migration.number in checksums and migration.checksum != checksums[migration.number]
        ),
    )


def _check_compatible(status: SchemaStatus, known: Sequence[Migration], schema: str) -> None:
    """Raises SchemaTooNew, or SchemaChanged, if this checkpointd can't work on what the database has."""
    if status.too_new:
        breaking = next(migration for migration in status.unknown if not migration.additive)
        raise SchemaTooNew(breaking.number, known[-1].number)
    if status.changed:
        raise SchemaChanged(schema, status.changed[0].number)


def _lock(schema: str) -> int:
    """The advisory lock under which a schema is changed."""
    digest = hashlib.sha256(f"checkpointd schema {schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
