"""Several times the load that the server can handle: it does what it can, refuses the rest at once, stays healthy."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.config import ServeConfig
from checkpointd_server.rpc.calls.admission import CALM_SECONDS
from checkpointd_server.rpc.health import READINESS
from tests.load.flood import Plan
from tests.load.flooding import flooding
from tests.support.calls import checkpoint, config_of
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

pytestmark = pytest.mark.long

MEBIBYTE = 1024 * 1024
LONGEST_HEALTH_CHECK = 10.0
"""How long the server may take for a health check under load, in seconds, on a busy machine."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STORED = "SELECT thread_id FROM checkpointd.threads JOIN checkpointd.checkpoints USING (thread)"
OVERLOADED = "RESOURCE_EXHAUSTED OVERLOADED"
BOUNDS = ("--max-concurrent-calls", "16", "--pool-max-size", "2", "--max-queue", "8")


@contextmanager
def serving(*options: str, database_url: str, log_dir: Path) -> Iterator[ServerProcess]:
    """A server with small limits that logs little."""
    more = {"CHECKPOINTD_LOG_LEVEL": "info"}
    with ServerProcess("--database-url", database_url, *options, log_dir=log_dir, env=more) as server:
        yield server


@dataclass
class Seen:
    """An onlooker's observations of a server."""

    resident: list[int] = field(default_factory=list)
    """The server's memory, in bytes."""
    health: Counter[Any] = field(default_factory=Counter)
    """The health of the whole server."""
    readiness: Counter[Any] = field(default_factory=Counter)
    """The server's readiness."""


@asynccontextmanager
async def watched(server: ServerProcess) -> AsyncIterator[Seen]:
    """Watches a server's memory and its health."""
    seen, process = Seen(), psutil.Process(server.process.pid)

    async def watch_memory() -> None:
        while True:
            seen.resident.append(process.memory_info().rss)
            await asyncio.sleep(0.02)

    async def watch_health() -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                for service, told in (("", seen.health), (READINESS, seen.readiness)):
                    request = health_pb2.HealthCheckRequest(service=service)
                    answer = await stub.Check(request, timeout=LONGEST_HEALTH_CHECK)
                    told[answer.status] += 1
                await asyncio.sleep(0.05)

    watchers = [asyncio.create_task(watch_memory()), asyncio.create_task(watch_health())]
    try:
        yield seen
    finally:
        failed = [watcher for watcher in watchers if watcher.done()]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for watcher in failed:
            watcher.result()


@asynccontextmanager
async def puts_held_up(database_url: str) -> AsyncIterator[None]:
    """Holds up all puts while the context lasts."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE checkpointd.checkpoints IN SHARE ROW EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


def check_tallies(tallies: list[dict[str, Any]]) -> Counter[str]:
    """Checks that every call was served or refused properly. Returns the number of calls with each outcome."""
    codes: Counter[str] = Counter()
    for tally in tallies:
        codes.update(tally["codes"])
        assert set(tally["codes"]) <= {"OK", OVERLOADED}
        # Each refusal has a retry delay, and not all are the same.
        assert len(tally["hints"]) == tally["codes"].get(OVERLOADED, 0)
        assert all(0.05 <= hint <= 7.5 for hint in tally["hints"])
        assert tally["stored"]
    return codes


async def check_stored(database_url: str, tallies: list[dict[str, Any]]) -> None:
    """Checks that all acknowledged puts are stored."""
    connection = await asyncpg.connect(database_url)
    there = {row["thread_id"] for row in await connection.fetch(STORED)}
    await connection.close()
    assert {thread_id for tally in tallies for thread_id in tally["stored"]} <= there


@pytest.mark.timeout(240)
async def test_too_many_calls(database_url: str, tmp_path: Path) -> None:
    steps = range(10)
    with serving(*BOUNDS, database_url=database_url, log_dir=tmp_path) as server:

        async def run(number: int, saver: GrpcSaver) -> None:
            for step in steps:
                await saver.aput(config_of(f"saver-{number}"), checkpoint(str(step)), {}, {})

        plans = [
            Plan(target=server.target, name=f"flood-{n}", callers=64, value_bytes=2000, enough={OVERLOADED: 50})
            for n in range(3)
        ]
        begun = time.monotonic()
        async with watched(server) as seen, GrpcSaver(server.target, retry_budget=60) as saver:
            runs = asyncio.gather(*(run(number, saver) for number in range(20)))
            async with flooding(*plans) as tallies:
                async with puts_held_up(database_url):
                    # However slow the floods are, they make more calls than the server admits, and go on for a while.
                    await auntil(lambda: seen.readiness[NOT_SERVING], timeout=60)
                    await asyncio.sleep(1)
                await asyncio.sleep(2)
            await runs
            codes = check_tallies(tallies)
            assert codes[OVERLOADED] > 100
            refusals = sorted(seconds for tally in tallies for seconds in tally["refusal_seconds"])
            # Most are refused at once, and not because they have waited.
            assert refusals[len(refusals) // 2] < ServeConfig().max_queue_seconds / 2
            # Retries succeed, despite the other calls.
            for number in range(20):
                found = await saver.aget_tuple(config_of(f"saver-{number}"))
                assert found is not None
                assert found.checkpoint["id"] == str(steps[-1])
            told = seen.readiness[SERVING]
            await auntil(lambda: seen.readiness[SERVING], lambda times: times > told)
        # An overloaded server is healthy; it only isn't ready for more.
        assert set(seen.health) == {SERVING}
        assert seen.readiness[NOT_SERVING] > 0
        assert max(seen.resident) - seen.resident[0] < 100 * MEBIBYTE
        await check_stored(database_url, tallies)
        # A line when it begins, and none while it lasts.
        assert server.stderr.count("overloaded: refusing calls") <= 1 + (time.monotonic() - begun) / CALM_SECONDS


@pytest.mark.timeout(240)
async def test_too_many_bytes(database_url: str, tmp_path: Path) -> None:
    options = ("--max-bytes-in-flight", str(16 * MEBIBYTE), "--pool-max-size", "2")
    with serving(*options, database_url=database_url, log_dir=tmp_path) as server:
        plans = [
            Plan(target=server.target, name=f"f{n}", callers=80, value_bytes=4 * MEBIBYTE, enough={OVERLOADED: 1})
            for n in range(2)
        ]
        async with watched(server) as seen, flooding(*plans) as tallies:
            await asyncio.sleep(3)
        codes = check_tallies(tallies)
        assert codes[OVERLOADED] > 0
        # 640 MiB are offered at any time. Without the limit the server grows by 1300 to 1400 MB, with it by 100 to 220.
        # It is the same with 320 or 960 MiB.
        assert max(seen.resident) - seen.resident[0] < 400 * MEBIBYTE
        assert set(seen.health) == {SERVING}
        await check_stored(database_url, tallies)
