"""Pieces that were sent ahead, and a crash before the put, or right after it.

The commit of an upload doesn't wait for the disk. A put can't be acknowledged without the pieces that it refers to: it
sees them only once they are committed, so that their record lies before its own in the log, and its own commit waits
until all up to there is on the disk.
"""

from __future__ import annotations

import asyncio
import operator
import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.domain.errors import SetupError
from checkpointd_server.store import StoreOptions, migrate, open_store
from tests.faults.postgres import IMMEDIATE, FaultyPostgres
from tests.support.server_process import ServerProcess
from tests.support.tenant import TIMEOUT, Tenant, in_pieces, piece
from tests.support.until import auntil

pytestmark = pytest.mark.long

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def checkpoint(value: bytes, version: int) -> Checkpoint:
    return {**empty_checkpoint(), "channel_values": {"blob": value}, "channel_versions": {"blob": version}}


@pytest.fixture
async def forgetful(tmp_path: Path) -> AsyncIterator[FaultyPostgres]:
    """A PostgreSQL that loses what need not be on the disk: nothing writes the log but commits that wait for it."""
    settings = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
    async with FaultyPostgres(tmp_path / "postgres", settings=settings) as postgres:
        yield postgres


async def crash(postgres: FaultyPostgres) -> None:
    """Stops it in the middle of everything, and starts it again, once its last session has seen that it is gone."""
    await postgres.stop(IMMEDIATE)

    async def start() -> SetupError | None:
        try:
            await postgres.start()
        except SetupError as error:
            return error
        return None

    await auntil(start, lambda error: error is None, pause=0.1)


async def test_a_put_that_was_acknowledged_has_all_its_pieces_after_a_crash(forgetful: FaultyPostgres) -> None:
    options = StoreOptions(dsn=forgetful.dsn)
    await migrate(options)
    lost = 0
    async with open_store(options) as store:
        tenant = Tenant(store, "tenant")
        for number in range(6):
            ahead, alone = [b"%d-%d" % (number, part) for part in range(50)], b"alone %d" % number
            await store.put_pieces("tenant", "t", [piece(part) for part in ahead], timeout=TIMEOUT)
            await tenant.put(
                f"{number}",
                versions={"a": f"{number}"},
                values={"a": in_pieces(*ahead, b"along %d" % number)},
                pieces=[piece(b"along %d" % number)],
            )
            await store.put_pieces("tenant", "t", [piece(alone)], timeout=TIMEOUT)
            await crash(forgetful)
            for kept in range(number + 1):
                (entry,) = (await tenant.read(f"{kept}")).values
                assert entry.value is not None
                assert entry.value.pieces is not None
                found = await store.get_pieces("tenant", "t", entry.value.pieces.names, timeout=TIMEOUT)
                assert found.missing == []
                assert len(found.pieces) == 51
            lost += len((await store.get_pieces("tenant", "t", [piece(alone).name], timeout=TIMEOUT)).missing)
    # Otherwise the database has kept what it need not, and nothing was shown.
    assert lost > 0


async def count_pieces(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM checkpointd.piece_contents"))


@pytest.mark.parametrize("what", ["the server", "the database"])
async def test_what_dies_while_pieces_are_sent_ahead_is_not_noticed(
    postgres: FaultyPostgres, server: ServerProcess, what: str
) -> None:
    dice = random.Random(1)
    values: list[bytes] = []
    disturbed = 0
    async with GrpcSaver(server.target, timeout=60) as saver:
        config = CONFIG
        while disturbed < 3:
            assert len(values) < 20
            values.append(dice.randbytes(20_000_000))
            connection = await asyncpg.connect(postgres.dsn)
            before = await count_pieces(connection)
            number = len(values)
            putting = asyncio.ensure_future(saver.aput(config, checkpoint(values[-1], number), {}, {"blob": number}))
            enough = before + 50
            await auntil(partial(count_pieces, connection), partial(operator.le, enough), pause=0.005)
            await connection.close()
            if not putting.done():  # else whoever looked was held up for longer than the put took
                disturbed += 1
                if what == "the server":
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                else:
                    await crash(postgres)
            config = await putting
    async with GrpcSaver(server.target) as fresh:
        found = [saved.checkpoint["channel_values"]["blob"] async for saved in fresh.alist(CONFIG)]
    assert found == values[::-1]
