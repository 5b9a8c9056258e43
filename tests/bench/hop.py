"""What a remote hop costs that does nothing, and a commit that stores nothing: what no checkpoint server here can beat.

As a program it is the other end: a bare grpc.aio server that answers every call with a few bytes. It prints its port.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import grpc
import grpc.aio

from tests.bench.scene import Fact, Facts, Pace
from tests.bench.stage import ROOT, Stage, cpu_seconds

METHOD = "/echo.Echo/Call"
BYTES = 300
"""How large requests and answers are."""
CALLS = 20
"""How many calls are timed for each run of the pace."""


def scenes() -> list[Facts]:
    """The floor."""
    return [Facts(name="hop", title="a hop and a commit that do nothing", tell=_tell)]


def _tell(stage: Stage, pace: Pace) -> list[Fact]:
    command = [sys.executable, "-m", "tests.bench.hop"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            hop, client, far = asyncio.run(_hop(f"127.0.0.1:{int(server.stdout.readline())}", server.pid, pace))
        finally:
            server.kill()
    commit = asyncio.run(_commit(stage, pace))
    return [
        Fact(
            title="a bare grpc.aio call there and back, one caller",
            value=hop * 1e6,
            unit="us",
            beside=f"CPU time of the client {client * 1e6:,.0f} us, of the server {far * 1e6:,.0f} us",
        ),
        Fact(title="a row of 300 bytes stored by asyncpg and committed, one caller", value=commit * 1e6, unit="us"),
    ]


async def _hop(target: str, server: int, pace: Pace) -> tuple[float, float, float]:
    """How long a call takes (median), and the CPU time of both ends, in seconds."""
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(METHOD)
        await _median(lambda: call(bytes(BYTES)), pace.warm_up * CALLS)
        times = pace.runs * CALLS
        near, far = time.process_time(), cpu_seconds(server)
        median = await _median(lambda: call(bytes(BYTES)), times)
        return median, (time.process_time() - near) / times, (cpu_seconds(server) - far) / times


async def _commit(stage: Stage, pace: Pace) -> float:
    """How long it takes to store a row for good (median), in seconds."""
    database = stage.cluster.create_database()
    connection = await asyncpg.connect(stage.cluster.dsn(database))
    try:
        await connection.execute("CREATE TABLE rows (data bytea)")

        async def store() -> None:
            await connection.execute("INSERT INTO rows VALUES ($1)", bytes(BYTES))

        await _median(store, pace.warm_up * CALLS)
        return await _median(store, pace.runs * CALLS)
    finally:
        await connection.close()
        await asyncio.to_thread(stage.cluster.drop_database, database)


async def _median(call: Callable[[], Awaitable[Any]], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def _serve() -> None:
    async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return bytes(BYTES)

    service, method = METHOD.strip("/").split("/")
    server = grpc.aio.server()
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
