"""What is measured. Each scene measures one thing with one saver, once; the rounds take turns."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint

from tests.bench import graph
from tests.bench.savers import Kind, open_async, open_sync
from tests.bench.stage import Stage, Workers

Measure = Callable[[Stage, Kind], float]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One row of the table."""

    name: str
    """A short name, for the command line and the JSON."""
    title: str
    """What it is, for people."""
    unit: str
    """The unit of a figure."""
    measure: Measure
    """Measures one saver, once."""
    target: float
    """The ratio of our figure to the stock saver's that is wanted."""
    more_is_better: bool
    """Whether a greater figure is better."""

    def reached(self, ratio: float) -> bool:
        """Whether a ratio reaches the target."""
        return ratio >= self.target if self.more_is_better else ratio <= self.target


def scenes(seconds: float) -> list[Scene]:
    """All scenes. Those of throughput take so many seconds each."""
    return [
        Scene(
            name="processes",
            title="4 processes x 8 async agents",
            unit="calls/s",
            measure=_throughput(processes=4, agents=8, seconds=seconds),
            target=3.0,
            more_is_better=True,
        ),
        Scene(
            name="agents",
            title="1 process x 32 async agents",
            unit="calls/s",
            measure=_throughput(processes=1, agents=32, seconds=seconds),
            target=2.5,
            more_is_better=True,
        ),
        Scene(
            name="ainvoke",
            title="one agent alone: six-node ainvoke",
            unit="ms",
            measure=lambda stage, kind: asyncio.run(_ainvoke(stage, kind)),
            target=0.8,
            more_is_better=False,
        ),
        Scene(
            name="invoke",
            title="one thread alone: six-node invoke",
            unit="ms",
            measure=_invoke,
            target=1.0,
            more_is_better=False,
        ),
    ]


def _throughput(*, processes: int, agents: int, seconds: float) -> Measure:
    def measure(stage: Stage, kind: Kind) -> float:
        workers = Workers(kind, stage.address(kind), processes=processes, agents=agents, seconds=seconds)
        workers.until_ready()
        return float(sum(result["calls_per_second"] for result in workers.work()))

    return measure


RUNS, WARM_UP = 60, 8
"""How many runs of the graph a figure is the median of, and how many go before."""


async def _ainvoke(stage: Stage, kind: Kind) -> float:
    async with open_async(kind, stage.address(kind), pool_size=4) as saver:
        agent, times = graph.build(saver), []
        for _ in range(WARM_UP + RUNS):
            started = time.perf_counter()
            await agent.ainvoke(graph.first_input(), graph.new_thread())
            times.append(time.perf_counter() - started)
        return statistics.median(times[WARM_UP:]) * 1000


def _invoke(stage: Stage, kind: Kind) -> float:
    with open_sync(kind, stage.address(kind)) as saver:
        agent, times = graph.build(saver), []
        for _ in range(WARM_UP + RUNS):
            started = time.perf_counter()
            agent.invoke(graph.first_input(), graph.new_thread())
            times.append(time.perf_counter() - started)
        return statistics.median(times[WARM_UP:]) * 1000


def connections(stage: Stage, kind: Kind, *, processes: int) -> int:
    """How many connections to PostgreSQL so many agent processes need, one agent each."""
    workers = Workers(kind, stage.address(kind), processes=processes, agents=1, seconds=0.5)
    workers.until_ready()
    count = stage.connections(stage.database if kind == "checkpointd" else stage.stock_database)
    workers.work()
    return count


def history(stage: Stage, lengths: tuple[int, int]) -> dict[int, float]:
    """How long reading the latest takes on a short thread and on a long one: medians in milliseconds, by length.

    The two threads are read in turn, so that a machine that drifts does it for both.
    """
    return asyncio.run(_history(stage, lengths))


async def _history(stage: Stage, lengths: tuple[int, int]) -> dict[int, float]:
    async with open_async("checkpointd", stage.address("checkpointd"), pool_size=1) as saver:
        threads = {length: await _thread_of(saver, length) for length in lengths}
        times: dict[int, list[float]] = {length: [] for length in lengths}
        for _ in range(500):
            for length, config in threads.items():
                started = time.perf_counter()
                await saver.aget_tuple(config)
                times[length].append(time.perf_counter() - started)
    return {length: statistics.median(values) * 1000 for length, values in times.items()}


async def _thread_of(saver: BaseCheckpointSaver[Any], length: int) -> RunnableConfig:
    thread: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}
    config = thread
    for number in range(length):
        checkpoint = cast(Checkpoint, {**empty_checkpoint(), "channel_values": {"a": number}})
        checkpoint["channel_versions"] = {"a": f"{number + 1:032}.0"}
        config = await saver.aput(config, checkpoint, {"step": number}, checkpoint["channel_versions"])
    return thread


def server_cpu(stage: Stage, *, agents: int, seconds: float) -> dict[str, float]:
    """What a call costs each side in CPU time, in microseconds, with so many agents in one process."""
    workers = Workers("checkpointd", stage.address("checkpointd"), processes=1, agents=agents, seconds=seconds)
    workers.until_ready()
    before = stage.server_cpu_seconds()
    (result,) = workers.work()
    used = stage.server_cpu_seconds() - before
    return {
        "server": used / (result["calls_per_second"] * seconds) * 1e6,
        "client": result["cpu_us_per_call"],
    }
