"""Long-term memory: GrpcStore compared with LangGraph's AsyncPostgresStore, on one PostgreSQL.

Both have the same items, with vectors that cost nothing to compute, and serve 32 callers of one process, or one alone.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langgraph.checkpoint.grpc import GrpcStore
from langgraph.store.base import BaseStore, PutOp

from tests.bench.case import Case, Comparison, Pace
from tests.bench.environment import Environment
from tests.bench.savers import Kind

STORES = "Long-term memory"
"""The heading of these figures."""
CALLERS = 32
DIMS = 384
MAX_ITEMS = 5_000
KINDS = 20
"""One in this many items matches a filter."""
PLACE = ("bench", "facts")
_TEXT = (
    "the customer asked about the delivery of an order, which was due on Tuesday, and was told that it is late. " * 4
)

Call = Callable[[BaseStore, int], Awaitable[Any]]
"""The call in a caller's n-th turn."""


def cases() -> list[Case]:
    """Returns the cases of calls, alone and concurrent."""
    return [
        case
        for name, title, call in (
            ("put", "a put", _put),
            ("get", "a get", _get),
            ("filter", "a search by a filter", _filter),
            ("vector", "a search by a vector", _vector),
        )
        for case in (
            _row(f"store-{name}", f"store: {title}, {CALLERS} callers", "calls/s", _many(call), 1.5, more=True),
            _row(f"store-{name}-alone", f"store: {title}, alone", "ms", _alone(call), 1.0, more=False),
        )
    ]


def _row(
    name: str, title: str, unit: str, measure: Callable[[Environment, Kind, Pace], float], target: float, *, more: bool
) -> Comparison:
    return Comparison(
        name=name, title=title, unit=unit, measure=measure, target=target, more_is_better=more, group=STORES
    )


async def _put(store: BaseStore, turn: int) -> None:
    await store.aput(("bench", "put"), str(turn % 1000), {"text": _TEXT, "turn": turn}, index=False)


async def _get(store: BaseStore, turn: int) -> None:
    assert await store.aget(PLACE, str(turn % 100)) is not None


async def _filter(store: BaseStore, turn: int) -> None:
    assert await store.asearch(PLACE, filter={"kind": turn % KINDS}, limit=5)


async def _vector(store: BaseStore, turn: int) -> None:
    assert len(await store.asearch(PLACE, query=f"q{turn % 100}", limit=5)) == 5


def _many(call: Call) -> Callable[[Environment, Kind, Pace], float]:
    async def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        async with _open(environment, kind, pace) as store:
            turns = itertools.count()
            await asyncio.gather(*(call(store, next(turns)) for _ in range(CALLERS)))
            started, first = time.perf_counter(), next(turns)

            async def keep_going() -> None:
                while time.perf_counter() < started + pace.seconds:
                    await call(store, next(turns))

            await asyncio.gather(*(keep_going() for _ in range(CALLERS)))
            return (next(turns) - first - 1) / (time.perf_counter() - started)

    return lambda environment, kind, pace: asyncio.run(measure(environment, kind, pace))


def _alone(call: Call) -> Callable[[Environment, Kind, Pace], float]:
    async def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        async with _open(environment, kind, pace) as store:
            times = []
            for turn in range(pace.warm_up + 4 * pace.runs):
                started = time.perf_counter()
                await call(store, turn)
                times.append(time.perf_counter() - started)
            return statistics.median(times[pace.warm_up :]) * 1000

    return lambda environment, kind, pace: asyncio.run(measure(environment, kind, pace))


@asynccontextmanager
async def _open(environment: Environment, kind: Kind, pace: Pace) -> AsyncIterator[BaseStore]:
    """Opens a store that holds the items."""
    index: Any = {"dims": DIMS, "embed": _Embedder().embed, "fields": ["text"]}
    address = environment.address(kind)
    if kind == "checkpointd":
        async with GrpcStore(address, index=index) as ours:
            await _fill(ours, pace)
            yield ours
        return
    from langgraph.store.postgres import AsyncPostgresStore

    pool: Any = {"min_size": 10, "max_size": 10}
    async with AsyncPostgresStore.from_conn_string(address, pool_config=pool, index=index) as theirs:
        await theirs.setup()
        await _fill(theirs, pace)
        yield theirs


async def _fill(store: BaseStore, pace: Pace) -> None:
    """Puts the items, unless they exist."""
    if await store.aget(PLACE, "0") is not None:
        return
    numbers = range(min(pace.items, MAX_ITEMS))
    for first in range(0, len(numbers), 100):
        await store.abatch(
            [
                PutOp(PLACE, str(number), {"text": f"fact {number}: {_TEXT}", "kind": number % KINDS})
                for number in reversed(numbers[first : first + 100])
            ]
        )


class _Embedder:
    """Creates vectors and caches them: a text always has the same one."""

    def __init__(self) -> None:
        self._known: dict[str, list[float]] = {}

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Returns a vector for each text."""
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> list[float]:
        if text not in self._known:
            dice = random.Random(text)
            self._known[text] = [dice.gauss(0, 1) for _ in range(DIMS)]
        return self._known[text]
