"""A remote round trip that does nothing, and a commit that stores little: the floor for any checkpoint server here.

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

from tests.bench.case import Fact, Facts, Pace
from tests.bench.environment import ROOT, Environment, cpu_seconds

CALL, STREAM = "/echo.Echo/Call", "/echo.Echo/Stream"
BYTES = 300
"""The size of requests and answers."""
CALLS = 20
"""The number of timed calls for each run of the pace."""


def cases() -> list[Facts]:
    """Returns the floor."""
    return [Facts(name="round-trip", title="a round trip and a commit that do nothing", tell=_tell)]


def _tell(environment: Environment, pace: Pace) -> list[Fact]:
    command = [sys.executable, "-m", "tests.bench.round_trip"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            round_trips = asyncio.run(_round_trips(f"127.0.0.1:{int(server.stdout.readline())}", server.pid, pace))
        finally:
            server.kill()
    commit = asyncio.run(_commit(environment, pace))
    return [
        *round_trips,
        Fact(title="a row of 300 bytes stored by asyncpg and committed, one caller", value=commit * 1e6, unit="us"),
    ]


async def _round_trips(target: str, server: int, pace: Pace) -> list[Fact]:
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(CALL)
        stream: Any = channel.stream_stream(STREAM)()

        async def exchange() -> None:
            await stream.write(bytes(BYTES))
            await stream.read()

        return [
            await _round_trip("a bare grpc.aio call", lambda: call(bytes(BYTES)), server, pace),
            await _round_trip("a bare message on an open grpc.aio call", exchange, server, pace),
        ]


async def _round_trip(what: str, make: Callable[[], Awaitable[Any]], server: int, pace: Pace) -> Fact:
    await _median(make, pace.warm_up * CALLS)
    times = pace.runs * CALLS
    near, far = time.process_time(), cpu_seconds(server)
    median = await _median(make, times)
    client, other = (time.process_time() - near) / times, (cpu_seconds(server) - far) / times
    return Fact(
        title=f"{what} there and back, one caller",
        value=median * 1e6,
        unit="us",
        beside=f"CPU time of the client {client * 1e6:,.0f} us, of the server {other * 1e6:,.0f} us",
    )


async def _commit(environment: Environment, pace: Pace) -> float:
    """Measures how long a durable insert of a row takes (median), in seconds."""
    database = environment.cluster.create_database()
    connection = await asyncpg.connect(environment.cluster.dsn(database))
    try:
        await connection.execute("CREATE TABLE rows (data bytea)")

        async def store() -> None:
            await connection.execute("INSERT INTO rows VALUES ($1)", bytes(BYTES))

        await _median(store, pace.warm_up * CALLS)
        return await _median(store, pace.runs * CALLS)
    finally:
        await connection.close()
        await asyncio.to_thread(environment.cluster.drop_database, database)


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

    async def answers(requests: object, context: grpc.aio.ServicerContext) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(bytes(BYTES))

    server = grpc.aio.server()
    handlers = {
        CALL: grpc.unary_unary_rpc_method_handler(answer),
        STREAM: grpc.stream_stream_rpc_method_handler(answers),
    }
    for path, handler in handlers.items():
        service, method = path.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
