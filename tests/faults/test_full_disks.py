"""A database with a full disk reports it, stores nothing partially, and works again when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from langgraph.checkpoint.grpc import GrpcSaver, ServerUnavailableError

from checkpointd.v1 import info_service_pb2, info_service_pb2_grpc
from tests.faults.small_disk import SmallDisk
from tests.support.calls import checkpoint, config_of
from tests.support.commands import assert_one_clear_line, run
from tests.support.server_process import ServerProcess
from tests.support.storm import Storm
from tests.support.until import auntil

pytestmark = pytest.mark.long


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A disk with room for little more than a database."""
    with SmallDisk(300) as disk:
        yield disk


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose database is on the disk."""
    options = ("--data-dir", str(disk.path / "data"))
    with ServerProcess(*options, log_dir=tmp_path, prefix=disk.prefix, env={"CHECKPOINTD_LOG_LEVEL": "info"}) as server:
        yield server


def dsn(disk: SmallDisk) -> str:
    return f"postgresql://postgres@/postgres?host={disk.from_outside}/data/socket&port=5432"


async def execute(disk: SmallDisk, *statements: str) -> None:
    connection = await asyncpg.connect(dsn(disk))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        connection.terminate()


async def until_full(target: str) -> None:
    """Waits until a put is refused because the disk is full."""
    async with GrpcSaver(target, retry_budget=0) as saver:
        for number in range(1000):
            big = checkpoint(f"{number:04}", {"a": os.urandom(100_000)})
            try:
                await saver.aput(config_of("big"), big, {}, {"a": str(number)})
            except ServerUnavailableError:
                break
        with pytest.raises(ServerUnavailableError, match="the database's disk is full") as failed:
            await saver.aput(config_of("big"), big, {}, {"a": str(number)})
        assert "Is it running" not in str(failed.value)  # it did answer
        # Nothing of the put is stored, and stored data can be read.
        found = await saver.aget_tuple(config_of("big"))
        assert (found and found.checkpoint["id"]) == (f"{number - 1:04}" if number else None)


async def test_a_disk_that_has_no_room_for_data(disk: SmallDisk, server: ServerProcess, tmp_path: Path) -> None:
    # Allocates log segments in advance, so that only the tables run out of room.
    await execute(disk, *["SELECT pg_logical_emit_message(true, 'x', 'x')", "SELECT pg_switch_wal()"] * 5, "CHECKPOINT")
    async with Storm(server.target, tmp_path) as storm:
        disk.fill()
        await until_full(server.target)
        await storm.for_seconds(1)
        disk.free()
        await storm.progress()
    await storm.check(target=server.target, dsn=dsn(disk))
    assert "PANIC" not in (disk.from_outside / "data" / "postgres.log").read_text()


async def test_health_tells_of_it_until_there_is_room(disk: SmallDisk, server: ServerProcess) -> None:
    config = config_of("small")
    async with GrpcSaver(server.target, retry_budget=0) as saver, grpc.aio.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        info = info_service_pb2_grpc.InfoServiceStub(channel)

        async def seen() -> tuple[bool, str]:
            """Returns whether the health check succeeds, and the reason from GetServerInfo if not."""
            request = health_pb2.HealthCheckRequest(service="checkpointd.v1.CheckpointService")
            status = (await health.Check(request)).status
            reason = (await info.GetServerInfo(info_service_pb2.GetServerInfoRequest())).not_serving_reason
            return status == health_pb2.HealthCheckResponse.SERVING, reason

        await saver.aput(config, checkpoint("1", {"a": 1}), {}, {"a": "1"})
        assert await seen() == (True, "")
        disk.fill()
        await until_full(server.target)
        assert await auntil(seen, lambda told: not told[0]) == (False, "the database's disk is full")
        result = await asyncio.to_thread(run, "info", "--target", server.target)
        assert "not serving   the database's disk is full" in result.stdout
        # It stays that way while nobody writes, and stored data can be read.
        await asyncio.sleep(8)
        assert await seen() == (False, "the database's disk is full")
        assert await saver.aget_tuple(config)
        disk.free()
        assert await auntil(seen, lambda told: told[0]) == (True, "")
        await saver.aput(config, checkpoint("2", {"a": os.urandom(1_000_000)}), {}, {"a": "2"})
    assert server.stderr.count("not serving") == server.stderr.count("serving again") == 1


async def test_a_schema_that_finds_no_room(disk: SmallDisk, server: ServerProcess) -> None:
    disk.fill()
    result = run("migrate", "--schema", "other", env={"CHECKPOINTD_DATABASE_URL": dsn(disk)})
    assert_one_clear_line(result, "the database's disk is full: make room, as docs/faults.md says")


async def test_a_disk_that_has_no_room_for_the_log(disk: SmallDisk, server: ServerProcess, tmp_path: Path) -> None:
    """PostgreSQL panics. The log contains everything acknowledged."""
    async with Storm(server.target, tmp_path, retry_budget=60) as storm:
        disk.fill()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            while True:
                await execute(disk, "SELECT pg_logical_emit_message(true, 'x', 'x')", "SELECT pg_switch_wal()")
        assert "PANIC" in (disk.from_outside / "data" / "postgres.log").read_text()
        disk.free()
        # PostgreSQL may have stopped, and the server with it, or be stuck in recovery for lack of room.
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await storm.progress()
    await storm.check(target=server.target, dsn=dsn(disk))
