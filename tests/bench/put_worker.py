"""A process of agents that only put. Usage: python -m tests.bench.put_worker KIND ADDRESS AGENTS SECONDS

Like the other worker it prints "ready", starts when its standard input ends, and prints its results as JSON:
the number of puts, how long each took, and its own CPU time by layer.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import cast

from langchain_core.runnables import RunnableConfig

from tests.bench.agents import Chat, Runtime
from tests.bench.sampler import Sampler
from tests.bench.savers import Kind, open_async


class Putter(Chat):
    """An agent that puts checkpoint after checkpoint of a chat of 20 to 60 messages."""

    async def run(self, end: float) -> None:
        """Puts until the given time."""
        configurable = {"thread_id": self._thread_id, "checkpoint_ns": "", "__pregel_runtime": Runtime()}
        config: RunnableConfig = {"configurable": configurable}
        while time.perf_counter() < end:
            checkpoint, new_versions = self._step()
            started = time.perf_counter()
            stored = await self._saver.aput(config, checkpoint, {"source": "loop", "step": 1}, new_versions)
            self._note("put", started)
            config = {"configurable": {**configurable, **stored["configurable"]}}


async def work(kind: Kind, address: str, agents: int, seconds: float) -> None:
    """Warms up, waits for the start, works, and prints the result."""
    async with open_async(kind, address, pool_size=agents) as saver:

        async def put(seconds: float) -> list[float]:
            putters = [Putter(saver) for _ in range(agents)]
            end = time.perf_counter() + seconds
            await asyncio.gather(*(putter.run(end) for putter in putters))
            return [latency for putter in putters for latency in putter.latencies["put"]]

        await put(min(seconds, 1.0))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        sampler = Sampler()
        before = time.process_time()
        sampler.start()
        latencies = await put(seconds)
        sampler.stop()
        cpu = time.process_time() - before
    result = {
        "puts": len(latencies),
        "median_us": statistics.median(latencies) * 1e6,
        "cpu_us": cpu / len(latencies) * 1e6,
        "samples": sampler.counts,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    kind, address, agents, seconds = sys.argv[1:]
    asyncio.run(work(cast(Kind, kind), address, int(agents), float(seconds)))
