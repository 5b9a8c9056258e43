"""Parts that are sent ahead of a put, while a server or a database crashes."""

from __future__ import annotations

import asyncio
import operator
import random
from functools import partial

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.domain.errors import SetupError
from tests.faults.postgres import IMMEDIATE, FaultyPostgres
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

pytestmark = pytest.mark.long

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def checkpoint(value: bytes, version: int) -> Checkpoint:
    return {**empty_checkpoint(), "channel_values": {"blob": value}, "channel_versions": {"blob": version}}


async def crash(postgres: FaultyPostgres) -> None:
    """Stops it in the middle of its work, and restarts it once its last session has noticed."""
    await postgres.stop(IMMEDIATE)

    async def start() -> SetupError | None:
        try:
            await postgres.start()
        except SetupError as error:
            return error
        return None

    await auntil(start, lambda error: error is None, pause=0.1)


async def count_parts(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM checkpointd.value_parts"))


@pytest.mark.parametrize("what", ["the server", "the database"])
async def test_what_dies_while_parts_are_sent_ahead_is_not_noticed(
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
            before = await count_parts(connection)
            number = len(values)
            putting = asyncio.ensure_future(saver.aput(config, checkpoint(values[-1], number), {}, {"blob": number}))
            enough = before + 5
            await auntil(partial(count_parts, connection), partial(operator.le, enough), pause=0.005)
            await connection.close()
            if not putting.done():  # else the query was delayed for longer than the put took
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
