"""The main table: real graphs, throughput, latency and CPU time compared with the stock savers."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from langgraph.checkpoint.base import BaseCheckpointSaver

from tests.bench import benchmark_graphs, graph
from tests.bench.agents import chat_for
from tests.bench.case import Case, Comparison, Pace
from tests.bench.environment import Environment, Workers
from tests.bench.savers import Kind, open_async, open_sync

ALONE = "One agent alone"
GRAPHS = "Benchmark graphs of LangGraph"
CPU = "CPU time"


def cases() -> list[Case]:
    """The rows of the main table, and those of the tables below it."""
    return [
        _row("graphs-processes", "six-node graphs, 4 processes x 8 agents", "runs/s", _graphs(4, 8), 2.5, more=True),
        _row("graphs-agents", "six-node graphs, 1 process x 4 agents", "runs/s", _graphs(1, 4), 2.0, more=True),
        _row("ainvoke", "one agent alone: six-node ainvoke", "ms", _ainvoke, 0.7),
        _row("invoke", "one thread alone: six-node invoke", "ms", _invoke, 0.85),
        _row("processes", "saver calls, 4 processes x 8 agents", "calls/s", _calls(4, 8), 2.5, more=True),
        _row("agents", "saver calls, 1 process x 32 agents", "calls/s", _calls(1, 32), 3.0, more=True),
        _row("put", "one put", "ms", _call("put"), 1.2, group=ALONE),
        _row("put-writes", "one put of task writes", "ms", _call("put_writes"), 1.2, group=ALONE),
        _row("get", "one read of the latest", "ms", _call("get_tuple"), 1.5, group=ALONE),
        *(
            _row(f"fan-out-{width}", f"fan-out to {width} subgraphs", "ms", _fan_out(width), 0.7, group=GRAPHS)
            for width in (10, 100)
        ),
        *(
            _row(f"react-{calls}", f"agent that calls {calls} tools", "ms", _react(calls), 0.7, group=GRAPHS)
            for calls in (10, 100)
        ),
        _row("cpu-postgres", "PostgreSQL, a put", "us", _postgres_cpu, 0.5, group=CPU, memory=False),
    ]


def _row(
    name: str,
    title: str,
    unit: str,
    measure: Callable[[Environment, Kind, Pace], float],
    target: float,
    *,
    more: bool = False,
    group: str | None = None,
    memory: bool = True,
) -> Comparison:
    named = {} if group is None else {"group": group}
    return Comparison(
        name=name,
        title=title,
        unit=unit,
        measure=measure,
        target=target,
        more_is_better=more,
        with_memory=memory,
        **named,
    )


def throughput(
    kind: Kind,
    address: str,
    *,
    processes: int,
    agents: int,
    seconds: float,
    work: Literal["calls", "runs"] = "calls",
) -> float:
    """Runs processes of agents concurrently. Returns their total throughput per second."""
    workers = Workers.working(kind, address, work=work, processes=processes, agents=agents, seconds=seconds)
    workers.until_ready()
    return float(sum(result["per_second"] for result in workers.work()))


def _calls(processes: int, agents: int) -> Callable[[Environment, Kind, Pace], float]:
    def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        address, spread = environment.address(kind), min(processes, pace.most_processes)
        return throughput(kind, address, processes=spread, agents=agents, seconds=pace.seconds)

    return measure


def _graphs(processes: int, agents: int) -> Callable[[Environment, Kind, Pace], float]:
    def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        address, spread = environment.address(kind), min(processes, pace.most_processes)
        return throughput(kind, address, processes=spread, agents=agents, seconds=pace.seconds, work="runs")

    return measure


def _ainvoke(environment: Environment, kind: Kind, pace: Pace) -> float:
    return _time_runs(environment, kind, pace, graph.build, lambda: (graph.first_input(), graph.new_thread()))


def _fan_out(width: int) -> Callable[[Environment, Kind, Pace], float]:
    def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        return _time_runs(
            environment,
            kind,
            pace,
            benchmark_graphs.fan_out,
            lambda: (benchmark_graphs.fan_out_input(width), benchmark_graphs.config(20)),
            shorter=width // 5,
        )

    return measure


def _react(calls: int) -> Callable[[Environment, Kind, Pace], float]:
    def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        return _time_runs(
            environment,
            kind,
            pace,
            lambda saver: benchmark_graphs.react_agent(saver, calls),
            lambda: (benchmark_graphs.react_input(), benchmark_graphs.config(2 * calls + 10)),
            shorter=calls // 5,
        )

    return measure


def _time_runs(
    environment: Environment,
    kind: Kind,
    pace: Pace,
    build: Callable[[BaseCheckpointSaver[Any]], Any],
    arguments: Callable[[], tuple[dict[str, Any], Any]],
    *,
    shorter: int = 1,
) -> float:
    """Times `ainvoke` of a graph on a thread of its own, one after another: the median, in milliseconds.

    Args:
        environment: The environment to run in.
        kind: The saver.
        pace: The number of runs.
        build: Builds the graph on a saver.
        arguments: Returns the input and the config of a run.
        shorter: Divides the number of runs, for a graph that takes longer.
    """

    async def measure() -> float:
        async with open_async(kind, environment.address(kind), pool_size=10) as saver:
            agent, times = build(saver), []
            warm_up, runs = max(pace.warm_up // shorter, 1), max(pace.runs // shorter, 3)
            for _ in range(warm_up + runs):
                given, config = arguments()
                started = time.perf_counter()
                await agent.ainvoke(given, config)
                times.append(time.perf_counter() - started)
            return statistics.median(times[warm_up:]) * 1000

    return asyncio.run(measure())


def _invoke(environment: Environment, kind: Kind, pace: Pace) -> float:
    with open_sync(kind, environment.address(kind)) as saver:
        agent, times = graph.build(saver), []
        for _ in range(pace.warm_up + pace.runs):
            started = time.perf_counter()
            agent.invoke(graph.first_input(), graph.new_thread())
            times.append(time.perf_counter() - started)
        return statistics.median(times[pace.warm_up :]) * 1000


def _call(name: str) -> Callable[[Environment, Kind, Pace], float]:
    """Measures one kind of call of an agent that makes calls sequentially: the median, in milliseconds."""

    async def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        async with open_async(kind, environment.address(kind), pool_size=1) as saver:
            _, latencies = await chat_for(saver, 1, pace.seconds / 2)
            return statistics.median(latencies[name]) * 1000

    return lambda environment, kind, pace: asyncio.run(measure(environment, kind, pace))


def _postgres_cpu(environment: Environment, kind: Kind, pace: Pace) -> float:
    """Measures PostgreSQL's CPU time for a put of one agent, without vacuum, in microseconds."""
    command = [sys.executable, "-m", "tests.bench.put_worker", kind, environment.address(kind), "1", str(pace.seconds)]
    workers = Workers(command)
    workers.until_ready()
    with environment.without_autovacuum():
        before = environment.postgres_cpu_seconds()
        (result,) = workers.work()
        return (environment.postgres_cpu_seconds() - before) / float(result["puts"]) * 1e6
