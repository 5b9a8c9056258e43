"""The main table: throughput and latency beside the stock savers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

from tests.bench import graph
from tests.bench.savers import Kind, open_async, open_sync
from tests.bench.scene import Comparison, Pace, Scene
from tests.bench.stage import Stage, Workers


def scenes() -> list[Scene]:
    """The rows of the main table."""
    return [
        Comparison(
            name="processes",
            title="4 processes x 8 async agents",
            unit="calls/s",
            measure=_throughput(processes=4, agents=8),
            target=3.0,
            more_is_better=True,
            with_memory=True,
        ),
        Comparison(
            name="agents",
            title="1 process x 32 async agents",
            unit="calls/s",
            measure=_throughput(processes=1, agents=32),
            target=2.5,
            more_is_better=True,
            with_memory=True,
        ),
        Comparison(
            name="ainvoke",
            title="one agent alone: six-node ainvoke",
            unit="ms",
            measure=lambda stage, kind, pace: asyncio.run(_ainvoke(stage, kind, pace)),
            target=0.8,
            more_is_better=False,
            with_memory=True,
        ),
        Comparison(
            name="invoke",
            title="one thread alone: six-node invoke",
            unit="ms",
            measure=_invoke,
            target=1.0,
            more_is_better=False,
            with_memory=True,
        ),
    ]


def throughput(kind: Kind, address: str, *, processes: int, agents: int, seconds: float) -> float:
    """Lets processes of agents chat side by side. Returns their calls a second, all together."""
    workers = Workers.chatting(kind, address, processes=processes, agents=agents, seconds=seconds)
    workers.until_ready()
    return float(sum(result["calls_per_second"] for result in workers.work()))


def _throughput(*, processes: int, agents: int) -> Callable[[Stage, Kind, Pace], float]:
    def measure(stage: Stage, kind: Kind, pace: Pace) -> float:
        return throughput(kind, stage.address(kind), processes=processes, agents=agents, seconds=pace.seconds)

    return measure


async def _ainvoke(stage: Stage, kind: Kind, pace: Pace) -> float:
    async with open_async(kind, stage.address(kind), pool_size=4) as saver:
        agent, times = graph.build(saver), []
        for _ in range(pace.warm_up + pace.runs):
            started = time.perf_counter()
            await agent.ainvoke(graph.first_input(), graph.new_thread())
            times.append(time.perf_counter() - started)
        return statistics.median(times[pace.warm_up :]) * 1000


def _invoke(stage: Stage, kind: Kind, pace: Pace) -> float:
    with open_sync(kind, stage.address(kind)) as saver:
        agent, times = graph.build(saver), []
        for _ in range(pace.warm_up + pace.runs):
            started = time.perf_counter()
            agent.invoke(graph.first_input(), graph.new_thread())
            times.append(time.perf_counter() - started)
        return statistics.median(times[pace.warm_up :]) * 1000
