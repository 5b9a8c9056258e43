"""Networks that lose answers, drop all data or break, on either side of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.postgres import FaultyPostgres
from tests.support.flaky_link import FlakyLink
from tests.support.server_process import ServerProcess
from tests.support.storm import Storm

pytestmark = pytest.mark.long


@pytest.fixture
def behind(postgres: FaultyPostgres) -> Iterator[FlakyLink]:
    """The network between the server and the database."""
    with FlakyLink(f"unix:{postgres.socket}") as link:
        yield link


@pytest.fixture
async def linked_server(behind: FlakyLink, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that reaches its database over that network."""
    process = ServerProcess("--database-url", f"postgresql://postgres@{behind.target}/postgres", log_dir=tmp_path)
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.stop)


@pytest.fixture
def before(server: ServerProcess) -> Iterator[FlakyLink]:
    """The network between the agents and the server."""
    with FlakyLink(server.target) as link:
        yield link


async def test_a_database_whose_answers_are_lost_after_the_commit(
    postgres: FaultyPostgres, behind: FlakyLink, linked_server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(linked_server.target, tmp_path) as storm:
        for _ in range(4):
            behind.hold_answers()
            await storm.for_seconds(0.3)
            behind.cut()
            await storm.progress()
    await storm.check(target=linked_server.target, dsn=postgres.dsn)


async def test_a_database_that_falls_silent(
    postgres: FaultyPostgres, behind: FlakyLink, linked_server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(linked_server.target, tmp_path) as storm:
        behind.stall()
        await asyncio.to_thread(linked_server.await_log, "giving up")
        behind.resume()
        await storm.progress()
        # Old connections hang for good, new ones are fine.
        behind.forget()
        await storm.progress()
    await storm.check(target=linked_server.target, dsn=postgres.dsn)


async def test_a_server_whose_answers_are_lost(
    postgres: FaultyPostgres, before: FlakyLink, server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(before.target, tmp_path) as storm:
        for _ in range(4):
            before.hold_answers()
            await storm.for_seconds(0.3)
            before.cut()
            await storm.progress()
    await storm.check(target=server.target, dsn=postgres.dsn)


async def test_a_server_that_falls_silent(
    postgres: FaultyPostgres, before: FlakyLink, server: ServerProcess, tmp_path: Path
) -> None:
    async with Storm(before.target, tmp_path, timeout=2) as storm:
        before.stall()
        await storm.for_seconds(3)
        before.resume()
        await storm.progress()
        before.stall()
        await storm.for_seconds(1)
        before.cut()
        await storm.progress()
    await storm.check(target=server.target, dsn=postgres.dsn)
