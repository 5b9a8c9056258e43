"""A PostgreSQL with a synchronous standby, for failover."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg

from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from tests.support.cluster import for_everybody
from tests.support.pauses import own_pauses
from tests.support.until import auntil

_SETTINGS = {
    # Nothing here outlives the run. Acknowledged commits of a killed primary are on the standby.
    "fsync": "off",
    "synchronous_commit": "remote_apply",
    # How long a standby that has lost its primary retries before it can be promoted.
    "wal_retrieve_retry_interval": "100ms",
    # In files of the data folder: nothing else would remove what a killed server leaves.
    "dynamic_shared_memory_type": "mmap",
}


class ReplicatedPostgres:
    """A primary and its synchronous standby. What the primary has acknowledged is on both.

    Args:
        data_dir: Where their data folders go.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(exist_ok=True)
        folder = data_dir / "primary"
        # The standby's user differs from the server's, and may connect too.
        self._primary = _Primary(folder, settings={**_SETTINGS, **for_everybody(folder)})
        self._standby = _Standby(data_dir / "standby", self._primary)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._primary)
            await stack.enter_async_context(self._standby)
            # A frozen primary can't be shut down, nor one whose commits wait for a lost standby.
            stack.callback(self._primary.kill)
            async with _connected(self._primary.dsn) as connection:
                await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                await connection.execute("SELECT pg_reload_conf()")
                in_sync = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')"
                await auntil(lambda: connection.fetchval(in_sync))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    @property
    def dsn(self) -> str:
        """The database's URL. It names both hosts, the original primary first, and selects the primary."""
        addresses = [_address(postgres.dsn) for postgres in (self._primary, self._standby)]
        query = {
            "host": ",".join(address["host"] for address in addresses),
            "port": ",".join(address["port"] for address in addresses),
            "target_session_attrs": "primary",
        }
        return f"postgresql://postgres@/postgres?{urlencode(query, safe='/,')}"

    @property
    def standby_dsn(self) -> str:
        """The URL of the standby alone."""
        return self._standby.dsn

    def kill_primary(self) -> None:
        """Ends the primary with SIGKILL. Its sessions end with it, and connections are refused."""
        self._primary.kill()

    async def freeze_primary(self) -> None:
        """Stops the primary and its sessions as if its machine were cut off: it neither refuses nor answers."""
        self._stack.enter_context(own_pauses())
        await self._primary.freeze()

    async def promote(self) -> None:
        """Makes the standby the primary, and waits until it accepts writes."""
        async with _connected(self._standby.dsn) as connection:
            assert await connection.fetchval("SELECT pg_promote(wait_seconds => 60)")


class _Primary(EmbeddedPostgres):
    """A PostgreSQL that can be killed and frozen."""

    _frozen: tuple[int, ...] = ()

    def kill(self) -> None:
        assert self._process is not None
        _signal_all((self._process.pid, *self._frozen), signal.SIGKILL)
        self._frozen = ()

    async def freeze(self) -> None:
        assert self._process is not None
        connection = await asyncpg.connect(self.dsn)
        # The postmaster first: then no new session starts while they are listed.
        _signal_all((self._process.pid,), signal.SIGSTOP)
        self._frozen = tuple(row["pid"] for row in await connection.fetch("SELECT pid FROM pg_stat_activity"))
        _signal_all(self._frozen, signal.SIGSTOP)
        connection.terminate()


class _Standby(EmbeddedPostgres):
    """A PostgreSQL that starts as a copy of another, and follows it."""

    def __init__(self, data_dir: Path, primary: EmbeddedPostgres) -> None:
        super().__init__(data_dir, settings=_SETTINGS)
        self._primary = primary

    async def _initialize(self, binaries: Path) -> None:
        address = _address(self._primary.dsn)
        command = self._folder.command(
            binaries / "pg_basebackup",
            *("--pgdata", self._folder.make_partial()),
            *("--dbname", "user=postgres host={host} port={port}".format(**address)),
            *("--checkpoint=fast", "--no-sync", "--write-recovery-conf"),
        )
        process = await asyncio.create_subprocess_exec(*command, **self._folder.process_options())
        assert await process.wait() == 0
        self._folder.adopt_partial()

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        # The standard check for "ready" would wait until promotion.
        async def follows() -> bool:
            assert process.returncode is None, self._folder.log_end()
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
                async with _connected(self.dsn) as connection:
                    return bool(await connection.fetchval("SELECT pg_is_in_recovery()"))
            return False

        await auntil(follows, timeout=60)


@contextlib.asynccontextmanager
async def _connected(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


def _address(dsn: str) -> dict[str, str]:
    """Returns the host and the port of an embedded PostgreSQL."""
    return {name: values[0] for name, values in parse_qs(urlsplit(dsn).query).items()}


def _signal_all(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
