"""One real PostgreSQL for a whole test run."""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import subprocess
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg

from checkpointd_server.embedded_postgres.server import MAJOR_VERSION, EmbeddedPostgres
from checkpointd_server.store import StoreOptions, migrate

T = TypeVar("T")

SUPERUSER = "postgres"
ORDINARY = "ordinary"
"""An ordinary role, to which row-level security applies."""

_LARGEST_REUSED_BYTES = 50 * 1024 * 1024
"""Maximum size of a database that is reused, in bytes. Deleted rows count until PostgreSQL vacuums them."""

_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_TABLES = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'checkpointd'"
_FIRST_OWN_OID = 16384
"""Built-in objects have smaller ones (PostgreSQL's FirstNormalObjectId). There are thousands of them."""
_CATALOGS = (
    *("pg_namespace", "pg_policy", "pg_trigger", "pg_constraint"),
    *(f"pg_{name} WHERE oid >= {_FIRST_OWN_OID}" for name in ("class", "proc")),
    *(f"pg_{name} >= {_FIRST_OWN_OID}" for name in ("attribute WHERE attrelid", "statistic WHERE starelid")),
)
_OBJECTS = f"""
SELECT count(*), max(changed)
FROM ({" UNION ALL ".join(f"SELECT xmin::text::bigint AS changed FROM {name}" for name in _CATALOGS)}) AS c
"""
"""The number of objects, and the last transaction that changed one."""
_SETTINGS = """
SELECT count(*)
FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
WHERE d.datname = current_database()
"""
_FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
"""Settings for data that needn't survive a power failure."""


def access_file(data_dir: Path) -> Path:
    """Returns the path of the file that `for_everybody` creates."""
    return data_dir.with_name(f"{data_dir.name}.pg_hba.conf")


def for_everybody(data_dir: Path) -> dict[str, str]:
    """Returns the setting that lets every user of the system connect, as any role: some tested servers run as others.
    If `listen_addresses` is set, it also lets them connect over TCP.

    Args:
        data_dir: The data folder. The access file lies beside it.
    """
    access = access_file(data_dir)
    access.parent.mkdir(exist_ok=True)
    access.write_text("local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 trust\n")
    return {"hba_file": str(access)}


@dataclass(frozen=True, kw_only=True)
class _NewDatabase:
    """The state of an unused database."""

    empty: Sequence[str]
    """The tables without rows."""
    filled: Sequence[str]
    """The tables with rows."""
    state: list[object]


class PostgresCluster:
    """A PostgreSQL that many tests share, each with its own database. Usable from sync and async tests.

    It runs on an event loop in its own thread, since each async test has a loop that ends with it.

    Args:
        data_dir: The data folder.
        durable: Whether commits must survive a power failure. In tests nothing outlives the run.
        settings: Additional settings of postgresql.conf.
        binaries: The folder of PostgreSQL's programs. Default: the wheel's.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        own = {"max_connections": "300", **({} if durable else _FORGETFUL)}
        self._postgres = EmbeddedPostgres(
            data_dir,
            settings={**own, **for_everybody(data_dir), **(settings or {})},
            binaries=binaries,
            major_version=_major_version(binaries) if binaries else MAJOR_VERSION,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres-cluster", daemon=True)
        self._numbers = itertools.count(1)
        self._templates: dict[str, str] = {}
        self._reusable: list[str] = []
        self._new: _NewDatabase | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._postgres.__aenter__())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self._postgres.__aexit__(*exc_info))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def binaries(self) -> Path:
        """The folder of psql and the other programs."""
        return self._postgres.binaries

    def dsn(self, database: str = "postgres", *, role: str = SUPERUSER) -> str:
        """The URL of a database on the cluster, for a role."""
        return self._postgres.dsn.replace("//postgres@/postgres?", f"//{role}@/{database}?")

    def execute(self, sql: str, *, database: str = "postgres") -> None:
        """Runs statements that return nothing, each in its own transaction, as the superuser."""
        self._run(self._execute(sql, database))

    def fetch_value(self, sql: str, *args: object) -> Any:
        """Runs a query as the superuser, and returns the first column of its first row."""
        return self.fetch_row(sql, *args)[0]

    def fetch_row(self, sql: str, *args: object) -> Any:
        """Runs a query as the superuser, and returns its first row."""

        async def fetch() -> Any:
            connection = await asyncpg.connect(self.dsn())
            try:
                return await connection.fetchrow(sql, *args)
            finally:
                await connection.close()

        return self._run(fetch())

    def create_database(self) -> str:
        """Creates an empty database and returns its name."""
        return self.copy_database("template0")

    def create_migrated_database(self, *, role: str = SUPERUSER) -> str:
        """Creates a database with the schema, owned by a role, and returns its name.

        It is a copy of a template: migrations run only once per cluster.
        """
        if (template := self._templates.get(role)) is None:
            template = self._templates[role] = self.create_database()
            if role != SUPERUSER:
                self.execute(f"CREATE ROLE {role} LOGIN")
                self.execute(f"ALTER DATABASE {template} OWNER TO {role}")
            # Only a superuser may create the extension, if it is installed.
            if self.fetch_value("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"):
                self.execute("CREATE EXTENSION vector", database=template)
            self._run(migrate(StoreOptions(dsn=self.dsn(template, role=role))))
        return self.copy_database(template, role=role)

    @contextmanager
    def borrowed_database(self) -> Iterator[str]:
        """Lends an empty migrated database, by name, for exclusive use until the block ends.

        Rows are deleted for the next borrower, which takes a fifth of the time of a new database. A database with other
        changes (tables, settings, size) is dropped.
        """
        name = self._reusable.pop() if self._reusable else self.create_migrated_database()
        try:
            yield name
        finally:
            if self._run(self._emptied(name)):
                self._reusable.append(name)
            else:
                self.drop_database(name)

    def drop_database(self, name: str) -> None:
        """Drops a database, ending the sessions on it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def copy_database(self, template: str, *, role: str = SUPERUSER) -> str:
        """Copies a database without connections, and returns the copy's name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {role} TEMPLATE {template} {self._strategy}")
        return name

    @functools.cached_property
    def _strategy(self) -> str:
        """The way to copy a database: file by file.

        PostgreSQL writes pages to the log by default, which takes three times as long if nothing waits for the disk.
        Before PostgreSQL 15 there was only one way, without an option.
        """
        return "STRATEGY file_copy" if int(self.fetch_value("SHOW server_version_num")) >= 150000 else ""

    async def _emptied(self, name: str) -> bool:
        """Deletes all rows. Returns whether the database is as good as new."""
        try:
            connection = await asyncpg.connect(self.dsn(name))
        except (OSError, asyncpg.PostgresError):
            return False
        try:
            await connection.execute(_END_OTHERS)
            new = await self._when_new()
            deletes = "".join(f"DELETE FROM {table};" for table in new.empty)
            await connection.execute(f"BEGIN; SET LOCAL lock_timeout = '5s'; {deletes} COMMIT")
            size = await connection.fetchval("SELECT pg_database_size(current_database())")
            if await _state(connection, new.filled) != new.state:
                self._new = None  # the template may have changed: PostgreSQL also analyzes it
                return False
            return bool(size < _LARGEST_REUSED_BYTES)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        finally:
            await connection.close()

    async def _when_new(self) -> _NewDatabase:
        """Records the state of a new database."""
        if self._new is None:
            connection = await asyncpg.connect(self.dsn(self._templates[SUPERUSER]))
            try:
                tables: dict[bool, list[str]] = {True: [], False: []}
                for (table,) in await connection.fetch(_TABLES):
                    is_filled = await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})")
                    tables[is_filled].append(table)
                state = await _state(connection, tables[True])
                self._new = _NewDatabase(empty=tables[False], filled=tables[True], state=state)
            finally:
                await connection.close()
        return self._new

    async def _execute(self, sql: str, database: str) -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def _state(connection: Any, filled: Sequence[str]) -> list[object]:
    """Returns the changes of a database, except rows in tables that were empty at first."""
    rows = [f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} AS t" for table in filled]
    return [tuple(await connection.fetchrow(query)) for query in (_OBJECTS, _SETTINGS, *rows)]


def _major_version(binaries: Path) -> int:
    """Returns the major version of PostgreSQL's programs."""
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r" (\d+)", version)
    assert number is not None, version
    return int(number[1])
