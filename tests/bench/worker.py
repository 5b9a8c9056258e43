"""One process of agents. Usage: python -m tests.bench.worker KIND ADDRESS AGENTS SECONDS

It prints "ready", begins at the end of its standard input, and prints what it measured as JSON: calls a second, each
call's median and 99th percentile in milliseconds, and its own CPU time per call in microseconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import cast

from tests.bench.agents import chat_for
from tests.bench.savers import Kind, open_async


def _percentile(seconds: list[float], percent: int) -> float | None:
    """A percentile in milliseconds; None where a busy machine left too little to tell."""
    return statistics.quantiles(seconds, n=100)[percent - 1] * 1000 if len(seconds) > 1 else None


async def work(kind: Kind, address: str, agents: int, seconds: float) -> None:
    """Waits for the start, works, and prints the result."""
    async with open_async(kind, address, pool_size=agents) as saver:
        await chat_for(saver, agents, 0)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        before = time.process_time()
        rate, latencies = await chat_for(saver, agents, seconds)
        cpu = time.process_time() - before
    calls = sum(map(len, latencies.values()))
    print(
        json.dumps(
            {
                "calls_per_second": rate,
                "calls": calls,
                "p50_ms": {call: _percentile(values, 50) for call, values in latencies.items()},
                "p99_ms": {call: _percentile(values, 99) for call, values in latencies.items()},
                "cpu_us_per_call": cpu / calls * 1e6,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    kind, address, agents, seconds = sys.argv[1:]
    asyncio.run(work(cast(Kind, kind), address, int(agents), float(seconds)))
