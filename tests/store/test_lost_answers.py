"""The connection to the database breaks between a commit and its answer: the store asks again and finds out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from checkpointd_server.store import StoreOptions, open_store
from tests.support.flaky_link import FlakyLink
from tests.support.tenant import Tenant, write
from tests.support.until import auntil


@pytest.fixture
def link(own_options: StoreOptions) -> Iterator[FlakyLink]:
    """The network between a store and its database."""
    where = parse_qs(urlsplit(own_options.dsn).query)
    with FlakyLink(f"unix:{where['host'][0]}/.s.PGSQL.{where['port'][0]}") as link:
        yield link


@pytest.fixture
async def behind(own_options: StoreOptions, link: FlakyLink) -> AsyncIterator[Tenant]:
    """A tenant of a store that loses its database's answers."""
    url = urlsplit(own_options.dsn)
    async with open_store(replace(own_options, dsn=f"postgresql://postgres@{link.target}{url.path}")) as store:
        yield Tenant(store, "tenant")


@pytest.fixture
async def beside(own_options: StoreOptions) -> AsyncIterator[Tenant]:
    """The same tenant on another server."""
    async with open_store(own_options) as store:
        yield Tenant(store, "tenant")


IN_THE_WAY = """
    INSERT INTO checkpointd.task_writes (
        tenant, thread, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data
    ) SELECT 'tenant', t.thread, '', '1', 'task', -3, '', 'a', 'msgpack', '' FROM checkpointd.threads AS t
"""
# Otherwise PostgreSQL refuses what waits for a second: where the test is slower, nothing is stored.
WAIT_FOR_LONG = """
    ALTER FUNCTION checkpointd.commit_group SET lock_timeout = 0;
    ALTER FUNCTION checkpointd.commit_writes SET lock_timeout = 0;
"""
BLOCKED = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@asynccontextmanager
async def held_up(options: StoreOptions, beside: Tenant, link: FlakyLink, commits: int) -> AsyncIterator[None]:
    """Task writes that are sent in this context wait. When it ends they are stored, and their answers are lost."""
    connection = await asyncpg.connect(options.dsn)
    try:
        await connection.execute(WAIT_FOR_LONG)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(IN_THE_WAY)
        yield

        await auntil(lambda: beside.select(BLOCKED), lambda rows: rows[0]["n"] == commits)
        link.hold_answers()
        await asyncio.sleep(0.1)
        await transaction.rollback()
    finally:
        await connection.close()


@pytest.mark.parametrize("request_id", [b"", b"named"], ids=["nameless", "named"])
@pytest.mark.parametrize(("count", "commits"), [(1, 1), (6, 1)], ids=["alone", "some-that-share-a-commit"])
async def test_task_writes_that_another_put_followed(
    own_options: StoreOptions,
    behind: Tenant,
    beside: Tenant,
    link: FlakyLink,
    request_id: bytes,
    count: int,
    commits: int,
) -> None:
    threads = [f"t{n}" for n in range(count)]
    for thread in threads:
        await behind.put("1", thread=thread, writer=b"me")
    sent = [write("task", -3, "__interrupt__", b"i"), write("task", 0, "a", b"A")]
    async with held_up(own_options, beside, link, commits):
        writing = [
            asyncio.ensure_future(behind.writes("1", *sent, thread=thread, expect_writer=b"me", request_id=request_id))
            for thread in threads
        ]
    for thread in threads:
        await auntil(partial(beside.read, "1", thread=thread), lambda stored: stored.pending_writes == sent)
        await beside.put("2", thread=thread, parent="1", writer=b"you")
    link.cut()
    assert await asyncio.gather(*writing) == [0] * count
    for thread in threads:
        assert (await beside.read("1", thread=thread)).pending_writes == sent
        assert await beside.ids(thread=thread) == ["1", "2"]


async def test_a_put_and_the_writes_that_went_with_it(
    own_options: StoreOptions, behind: Tenant, beside: Tenant, link: FlakyLink
) -> None:
    threads = ["t0", "t1", "t2"]
    for thread in threads:
        await behind.put("1", thread=thread, writer=b"me")
    sent = write("task", -3, "__interrupt__", b"i")
    async with held_up(own_options, beside, link, commits=1):
        calls = [behind.writes("1", sent, thread=thread, expect_writer=b"me") for thread in threads]
        calls.append(behind.put("2", thread="t2", parent="1", writer=b"me", expect_writer=b"me"))
        writing = [asyncio.ensure_future(call) for call in calls]

    async def stored() -> bool:
        return [await beside.ids(thread=thread) for thread in threads] == [["1"], ["1"], ["1", "2"]]

    await auntil(stored)
    link.cut()
    versions = await asyncio.gather(*writing)
    assert versions == [await beside.version(thread=thread) for thread in (*threads, "t2")]
    assert (await beside.read("1", thread="t2")).pending_writes == [sent]
    assert await beside.ids(thread="t2") == ["1", "2"]
