"""Figures that aren't ratios to the stock saver: connections, the cost of a long thread, CPU time per call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.bench.case import Case, Fact, Facts, Pace
from tests.bench.environment import Environment, Workers
from tests.bench.savers import Kind, open_async
from tests.bench.threads import thread_of, time_reads


def cases() -> list[Case]:
    """Returns the cases below the main table."""
    return [
        Facts(name="connections", title="connections to PostgreSQL", tell=_connections),
        Facts(name="long-thread", title="reading the latest of a long thread", tell=_long_thread),
        Facts(name="cpu-alone", title="CPU time a call, one agent", tell=_cpu(1)),
        Facts(name="cpu-loaded", title="CPU time a call, 32 agents", tell=_cpu(32)),
    ]


def _connections(environment: Environment, pace: Pace) -> list[Fact]:
    def count(kind: Kind) -> int:
        workers = Workers.working(kind, environment.address(kind), processes=pace.processes, agents=1, seconds=0.5)
        workers.until_ready()
        found = environment.connections(environment.database if kind == "checkpointd" else environment.stock_database)
        workers.work()
        return found

    return [
        Fact(
            title=f"connections to PostgreSQL with {pace.processes} agent processes",
            value=count("checkpointd"),
            target=16,
            beside=f"with the stock saver {count('postgres')}",
        )
    ]


def _long_thread(environment: Environment, pace: Pace) -> list[Fact]:
    async def read() -> dict[int, float]:
        async with open_async("checkpointd", environment.address("checkpointd"), pool_size=1) as saver:
            threads = {length: await thread_of(saver, length) for length in (pace.history[0], pace.history[-1])}
            return await time_reads(saver, threads, pace.runs * 8)

    (short, quickly), (long, slowly) = asyncio.run(read()).items()
    return [
        Fact(
            title=f"reading the latest of {long:,} checkpoints takes so many times as long as of {short}",
            value=slowly / quickly,
            target=1.1,
            digits=2,
            beside=f"{slowly:.2f} ms against {quickly:.2f} ms",
        )
    ]


def _cpu(agents: int) -> Callable[[Environment, Pace], list[Fact]]:
    def tell(environment: Environment, pace: Pace) -> list[Fact]:
        workers = Workers.working(
            "checkpointd", environment.address("checkpointd"), processes=1, agents=agents, seconds=pace.seconds
        )
        workers.until_ready()
        before = environment.server_cpu_seconds()
        (result,) = workers.work()
        used = environment.server_cpu_seconds() - before
        who = "agent" if agents == 1 else "agents"
        return [
            Fact(
                title=f"CPU time of the server a call, {agents} {who} in one process",
                value=used / result["done"] * 1e6,
                unit="us",
            ),
            Fact(
                title=f"CPU time of the client a call, {agents} {who} in one process",
                value=result["cpu_us"],
                unit="us",
                beside="with serialization",
            ),
        ]

    return tell
