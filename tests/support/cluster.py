"""One real PostgreSQL for a whole run of tests."""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
import subprocess
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg

from checkpointd_server.embedded import MAJOR_VERSION, EmbeddedPostgres
from checkpointd_server.store import StoreOptions, migrate

T = TypeVar("T")

SUPERUSER = "postgres"
ORDINARY = "ordinary"
"""A role that is nobody in particular: row-level security binds it."""

_FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
"""For what needn't outlive a power cut."""


def access_file(data_dir: Path) -> Path:
    """Returns the file that says who may connect, where `for_everybody` has made it."""
    return data_dir.with_name(f"{data_dir.name}.pg_hba.conf")


def for_everybody(data_dir: Path) -> dict[str, str]:
    """Returns the setting that lets every user of the system in, as any role: some servers under test have their own.
    Where `listen_addresses` is set it lets in over TCP too.

    Args:
        data_dir: The data folder. The file that says so lies beside it.
    """
    access = access_file(data_dir)
    access.parent.mkdir(exist_ok=True)
    access.write_text("local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 trust\n")
    return {"hba_file": str(access)}


class PostgresCluster:
    """A PostgreSQL that many tests use, each its own database. Usable from sync and async tests alike.

    It lives on an event loop in a thread of its own, since each async test has a loop that ends with it.

    Args:
        data_dir: Where it keeps its data.
        durable: Whether what was committed must outlive a power cut. In tests nothing outlives the run.
        settings: More settings of the server, as postgresql.conf names them.
        binaries: The folder of its programs, where they aren't the wheel's.
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
        """Makes an empty database and returns its name."""
        return self.copy_database("template0")

    def create_migrated_database(self, *, role: str = SUPERUSER) -> str:
        """Makes a database with the schema in it, all a role's own, and returns its name.

        Migrations run once in a cluster's life: it is a copy of a database that they were run in.
        """
        if (template := self._templates.get(role)) is None:
            template = self._templates[role] = self.create_database()
            if role != SUPERUSER:
                self.execute(f"CREATE ROLE {role} LOGIN")
                self.execute(f"ALTER DATABASE {template} OWNER TO {role}")
            self._run(migrate(StoreOptions(dsn=self.dsn(template, role=role))))
        return self.copy_database(template, role=role)

    def drop_database(self, name: str) -> None:
        """Drops a database, ending the sessions on it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def copy_database(self, template: str, *, role: str = SUPERUSER) -> str:
        """Copies a database that nobody is connected to, and returns the copy's name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {role} TEMPLATE {template} {self._strategy}")
        return name

    @functools.cached_property
    def _strategy(self) -> str:
        """How to copy a database: file by file.

        To write its pages to the log, as PostgreSQL does unless told, takes three times as long where nothing waits for
        the disk. Before PostgreSQL 15 there was one way, and no word for it.
        """
        return "STRATEGY file_copy" if int(self.fetch_value("SHOW server_version_num")) >= 150000 else ""

    async def _execute(self, sql: str, database: str) -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _major_version(binaries: Path) -> int:
    """Asks PostgreSQL's programs which one they are of."""
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r" (\d+)", version)
    assert number is not None, version
    return int(number[1])
