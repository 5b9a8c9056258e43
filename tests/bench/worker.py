"""One process of agents. Usage: python -m tests.bench.worker KIND ADDRESS WORK AGENTS SECONDS

WORK is "calls": agents that make a saver's calls without a graph (see `agents`), or "runs": six-node graphs (see
`graph`). The process prints "ready", starts when its standard input ends, and prints its results as JSON: the rate
per second; the median and the 99th percentile of each kind in milliseconds; its own CPU time for each in
microseconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from langgraph.checkpoint.base import BaseCheckpointSaver

from tests.bench import graph
from tests.bench.agents import chat_for
from tests.bench.savers import Kind, open_async

Latencies = dict[str, list[float]]
Work = Callable[[BaseCheckpointSaver[Any], int, float], Awaitable[tuple[float, Latencies]]]


def _percentile(seconds: list[float], percent: int) -> float | None:
    """Returns a percentile in milliseconds; None if a busy machine left too few samples."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000 if len(seconds) > 1 else None


async def run_for(saver: BaseCheckpointSaver[Any], agents: int, seconds: float) -> tuple[float, Latencies]:
    """Runs graphs with concurrent agents for a while, each on a new thread. Returns runs per second and their times."""
    compiled, taken = graph.build(saver), list[float]()
    await compiled.ainvoke(graph.first_input(), graph.new_thread())
    begun = time.perf_counter()

    async def keep_running() -> None:
        while time.perf_counter() < begun + seconds:
            started = time.perf_counter()
            await compiled.ainvoke(graph.first_input(), graph.new_thread())
            taken.append(time.perf_counter() - started)

    await asyncio.gather(*(keep_running() for _ in range(agents)))
    return len(taken) / (time.perf_counter() - begun), {"run": taken}


WORK: dict[str, Work] = {"calls": chat_for, "runs": run_for}


async def work(kind: Kind, address: str, work: Work, agents: int, seconds: float) -> None:
    """Warms up, waits for the start, works, and prints the result."""
    async with open_async(kind, address, pool_size=agents) as saver:
        await work(saver, agents, min(seconds / 4, 1.0))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        before = time.process_time()
        rate, latencies = await work(saver, agents, seconds)
        cpu = time.process_time() - before
    done = sum(map(len, latencies.values()))
    print(
        json.dumps(
            {
                "per_second": rate,
                "done": done,
                "p50_ms": {call: _percentile(values, 50) for call, values in latencies.items()},
                "p99_ms": {call: _percentile(values, 99) for call, values in latencies.items()},
                "cpu_us": cpu / max(done, 1) * 1e6,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    kind, address, what, agents, seconds = sys.argv[1:]
    asyncio.run(work(cast(Kind, kind), address, WORK[what], int(agents), float(seconds)))
