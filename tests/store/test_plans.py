"""The rows that verbs read, as PostgreSQL counts them: only those that they need, found by index, whatever the planner
knew of the tables when it made the plans that a connection keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from checkpointd_server.store import StoreOptions, open_store
from tests.support.long_history import fill
from tests.support.plans import VERBS, Meter, prepare
from tests.support.tenant import Tenant

LONG = 10_000
"""The number of checkpoints, of values and of task writes in another thread, and the number of other threads."""


@pytest.fixture
async def admin(own_options: StoreOptions) -> AsyncIterator[Any]:
    """A connection besides the store's."""
    connection = await asyncpg.connect(own_options.dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def meter(own_options: StoreOptions, admin: Any) -> AsyncIterator[Meter]:
    """A store with one connection, which keeps its plans."""
    async with open_store(replace(own_options, pool_max_size=1)) as store:
        yield Meter(Tenant(store, "t"), admin)


@pytest.mark.parametrize("knowledge", ["of nothing", "of empty tables", "of tiny tables", "of full tables"])
async def test_every_verb_finds_its_rows_by_index(knowledge: str, meter: Meter, admin: Any) -> None:
    """Plans are made at first use and kept until the tables are analyzed, which a young database hasn't done yet."""
    tenant = meter.tenant
    if knowledge == "of empty tables":
        await admin.execute("ANALYZE")
    await prepare(tenant, "first")
    if knowledge == "of tiny tables":
        await admin.execute("ANALYZE")
    for verb, _ in VERBS.values():
        await verb(tenant, "first")
    await admin.execute(fill("long", LONG))
    if knowledge == "of full tables":
        await admin.execute("ANALYZE")
    await prepare(tenant, "second")
    for name, (verb, most) in VERBS.items():
        walked, found = await meter.cost(verb(tenant, "second"))
        assert walked == 0, name
        assert found <= most, (name, found)


async def test_reading_costs_the_same_after_ten_thousand_checkpoints_as_after_ten(meter: Meter, admin: Any) -> None:
    await admin.execute(fill("short", 10))
    await admin.execute(fill("long", LONG))
    for read in (
        lambda thread: meter.tenant.get(thread=thread),
        lambda thread: meter.tenant.get("00000005", thread=thread),
        lambda thread: meter.tenant.page(thread_id=thread, checkpoint_ns="", page_size=5),
        lambda thread: meter.tenant.history("a", thread=thread, at="00000009"),
    ):
        await read("short")
        assert await meter.cost(read("long")) == await meter.cost(read("short"))


async def test_a_list_reads_no_more_than_its_page(meter: Meter, admin: Any) -> None:
    await admin.execute(fill("long", LONG))
    queries: list[dict[str, Any]] = [{"thread_id": "long", "checkpoint_ns": ""}, {"thread_id": "long"}, {}]
    for query in queries:
        for more in ({}, {"before_checkpoint_id": "00005000"}):
            walked, found = await meter.cost(meter.tenant.page(**query, **more, page_size=10))
            assert walked == 0
            # Ten checkpoints, each with three values and three task writes, and the rows that tell whether there are
            # more.
            assert found <= 10 * 10 + 10, (query, found)
