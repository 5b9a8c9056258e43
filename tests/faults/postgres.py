"""A PostgreSQL that tests can stop, kill and restart, with or without a network in between."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from checkpointd_server.embedded_postgres.server import EmbeddedPostgres

FAST, IMMEDIATE, KILL = signal.SIGINT, signal.SIGQUIT, signal.SIGKILL


class FaultyPostgres(EmbeddedPostgres):
    """An embedded PostgreSQL whose process can be replaced."""

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        # Unsynced data outlives the process in the kernel's page cache: only a power failure would need fsync.
        super().__init__(data_dir, settings={"fsync": "off", **(settings or {})})
        self.data_dir = data_dir

    async def __aexit__(self, *exc_info: Any) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            await self.stop(FAST)
        await super().__aexit__(*exc_info)

    async def stop(self, how: signal.Signals) -> None:
        """Stops it with this signal, and waits until it has ended."""
        assert self._process is not None
        self._process.send_signal(how)
        await self._process.wait()

    async def start(self) -> None:
        """Starts it again."""
        assert self._socket_dir is not None
        await self._run(self.binaries, self._socket_dir, self._stack)

    async def let_in(self, user: str) -> None:
        """Lets another operating system user connect, as any role."""
        with (self.data_dir / "postgres" / "pg_ident.conf").open("a") as file:
            file.write(f'checkpointd "{user}" all\n')
        await self.execute("SELECT pg_reload_conf()")

    @property
    def socket(self) -> str:
        """The path of its socket."""
        where = parse_qs(urlsplit(self.dsn).query)
        return f"{where['host'][0]}/.s.PGSQL.{where['port'][0]}"

    async def execute(self, sql: str) -> None:
        """Runs statements as the superuser."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()
