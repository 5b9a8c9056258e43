"""A PostgreSQL and a server that tests may break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.postgres import FaultyPostgres
from tests.support.server_process import ServerProcess


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[FaultyPostgres]:
    """A PostgreSQL for this test alone."""
    async with FaultyPostgres(tmp_path / "postgres") as postgres:
        yield postgres


@pytest.fixture
async def server(postgres: FaultyPostgres, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server on that PostgreSQL."""
    process = ServerProcess("--database-url", postgres.dsn, log_dir=tmp_path, env={"CHECKPOINTD_LOG_LEVEL": "info"})
    await asyncio.to_thread(process.start)
    yield process
    if process.process.poll() is None:
        await asyncio.to_thread(process.stop)
