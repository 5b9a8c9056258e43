"""Vector searches in very many items: their duration, and the share of the nearest items that they find."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
from langgraph.checkpoint.grpc import GrpcStore

from checkpointd_server.domain.access import DEFAULT_TENANT
from tests.bench.case import Case, Fact, Facts, Pace
from tests.bench.environment import Environment
from tests.support.many_vectors import DIMS, PREFIX, Embeddings, load
from tests.support.server_process import ServerProcess

ITEMS_TIMES = 10
"""The number of items as a multiple of the large list's strings: 100,000 items."""
QUERIES = 100
NEAREST = 10


def cases() -> list[Case]:
    """Returns the cases below the main table."""
    return [Facts(name="vector-search", title="searches by vectors among many items", tell=_tell)]


def _tell(environment: Environment, pace: Pace) -> list[Fact]:
    count = pace.items * ITEMS_TIMES
    database = environment.cluster.create_migrated_database()
    try:
        made = Embeddings(1)
        asyncio.run(_load(environment.cluster.dsn(database), made, count))
        with tempfile.TemporaryDirectory(prefix="checkpointd-bench-") as folder:
            options = ("--database-url", environment.cluster.dsn(database))
            env = {"CHECKPOINTD_LOG_LEVEL": "info"}
            with ServerProcess(*options, log_dir=Path(folder), env=env) as server:
                seconds, exact_seconds, recall = _search(server.target, made)
    finally:
        environment.cluster.drop_database(database)
    among = f"among {count:,} items of {DIMS} dimensions"
    return [
        Fact(
            title=f"a search for the {NEAREST} nearest {among}, one caller, median",
            value=statistics.median(seconds) * 1000,
            target=20,
            unit="ms",
            digits=1,
            beside=f"{statistics.median(exact_seconds) * 1000:.1f} ms where all are compared",
        ),
        Fact(
            title=f"share of the {NEAREST} nearest that it misses",
            value=1 - recall,
            target=0.05,
            digits=3,
            beside=f"recall at {NEAREST} {recall:.3f}, over {QUERIES} searches",
        ),
    ]


async def _load(dsn: str, made: Embeddings, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await load(connection, DEFAULT_TENANT, made.make(count))
    finally:
        await connection.close()


def _search(target: str, made: Embeddings) -> tuple[list[float], list[float], float]:
    """Searches with and without the index. Returns the seconds of both, and the share of the nearest that it finds."""
    queries: list[list[float]] = made.make(QUERIES).tolist()

    def embed(texts: Sequence[str]) -> list[list[float]]:
        return [queries[int(text)] for text in texts]

    index: Any = {"dims": DIMS, "embed": embed}
    times: dict[bool, list[float]] = {False: [], True: []}
    recalls = []
    with GrpcStore(target, index=index) as store:
        for exact in times:
            store.search(PREFIX, query="0", limit=NEAREST, exact=exact)
        for query in range(QUERIES):
            found = {}
            for exact, seconds in times.items():
                begun = time.perf_counter()
                answer = store.search(PREFIX, query=f"{query}", limit=NEAREST, exact=exact)
                seconds.append(time.perf_counter() - begun)
                found[exact] = {item.key for item in answer}
            recalls.append(len(found[False] & found[True]) / NEAREST)
    return times[False], times[True], statistics.mean(recalls)
