"""The queue in front of the database: bounded, in order, and with bounded waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from checkpointd_server.domain.errors import Overloaded
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.connections.queue import ConnectionQueue
from tests.support.blocker import blocked
from tests.support.tenant import TIMEOUT, Tenant
from tests.support.until import auntil


def queue(**options: Any) -> ConnectionQueue:
    return ConnectionQueue(**{"permits": 1, "limit": 3, "timeout": 20.0, **options})


async def test_permits_come_in_order() -> None:
    one = queue()
    await one.acquire()
    order: list[int] = []

    async def wait(number: int, ahead: float | None = None) -> None:
        await one.acquire(ahead=ahead)
        order.append(number)
        one.release()

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(wait(9, ahead=20)))  # exceeds the limit, but goes ahead
    await asyncio.sleep(0)
    one.release()
    await asyncio.gather(*tasks)
    assert order == [9, 0, 1, 2]


async def test_the_queue_has_an_end() -> None:
    one = queue(limit=1)
    await one.acquire()
    waiting = asyncio.create_task(one.acquire())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await one.acquire()
    assert (refused.value.bound, refused.value.limit) == ("queue", 1)
    one.release()
    await waiting


async def test_tenants_take_turns() -> None:
    one = queue(limit=100)
    await one.acquire("greedy")
    order: list[str] = []

    async def wait(tenant: str, number: int) -> None:
        await one.acquire(tenant)
        order.append(f"{tenant} {number}")
        one.release()

    tasks = [asyncio.create_task(wait("greedy", number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(wait("small", number)) for number in range(2)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert one.waiting == 5
    one.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["greedy 0", "small 0", "greedy 2", "small 1", "greedy 3"]
    assert one.waiting == 0


async def test_who_has_its_share_of_a_queue_that_is_nearly_full_is_refused_first() -> None:
    now = [1000.0]
    one = queue(limit=10, clock=lambda: now[0])
    await one.acquire("small")
    tasks = [asyncio.create_task(one.acquire("greedy")) for _ in range(9)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="its tenant's share") as refused:
        await one.acquire("greedy")
    assert (refused.value.limit, one.share_refusals) == (5, 1)
    tasks.append(asyncio.create_task(one.acquire("small")))
    await asyncio.sleep(0)
    assert one.waiting == 10
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # The same goes for writes that wait for a commit.
    one.queued_writes = 9
    assert one.refuse_write("small", 0) is None
    assert one.refuse_write("greedy", 9) is not None
    # A single tenant may use all of it.
    now[0] += 60
    assert one.refuse_write("greedy", 9) is None
    one.queued_writes = 10
    assert one.refuse_write("small", 0) is not None
    assert one.waiting == 0


async def test_nobody_waits_for_too_long() -> None:
    one = queue(timeout=0.05)
    await one.acquire()
    with pytest.raises(Overloaded):
        await one.acquire()
    with pytest.raises(Overloaded):
        await one.acquire(ahead=0.01)
    one.release()
    await one.acquire()


async def test_who_gives_up_passes_the_permit_on() -> None:
    for moment in ("before", "at once", "after"):
        one = queue()
        await one.acquire()
        tasks = [asyncio.create_task(one.acquire()) for _ in range(2)]
        await asyncio.sleep(0)
        if moment == "before":
            tasks[0].cancel()
            await asyncio.sleep(0)
            one.release()
        elif moment == "at once":
            tasks[0].cancel()
            one.release()
        else:
            one.release()
            tasks[0].cancel()
        await asyncio.wait_for(tasks[1], 5)
        one.release()
        await asyncio.wait_for(one.acquire(), 5)


@asynccontextmanager
async def no_free_connection(store: PostgresStore) -> AsyncIterator[None]:
    """Occupies the store's only connection: a statement would do so for a second at most."""
    await store.connections.queue.acquire()
    try:
        yield
    finally:
        store.connections.queue.release()


async def test_reads_and_writes_that_find_no_room_are_refused(own_options: StoreOptions) -> None:
    options = replace(own_options, pool_max_size=1, max_queue=2, max_queue_seconds=60.0)
    async with open_store(options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("0")
        async with no_free_connection(store):
            at_work = asyncio.create_task(tenant.put("1"))
            await auntil(lambda: store.connections.queue.waiting, lambda waiting: waiting == 1)
            writes = [asyncio.create_task(tenant.put(str(number))) for number in (2, 3)]
            read = asyncio.create_task(tenant.get())
            await asyncio.sleep(0)
            for call in (tenant.put("4"), tenant.get()):
                with pytest.raises(Overloaded):
                    await call
            # The health check goes ahead of all others.
            check = asyncio.create_task(store.check(timeout=TIMEOUT))
            await auntil(lambda: store.connections.queue.waiting, lambda waiting: waiting == 3)
        await asyncio.wait([check, at_work, read], return_when=asyncio.FIRST_COMPLETED)
        assert check.done()
        await asyncio.gather(check, at_work, *writes, read)
        assert await tenant.ids() == ["0", "1", "2", "3"]
        await store.check(timeout=TIMEOUT)


async def test_what_waits_for_a_lock_lets_others_go_first(own_options: StoreOptions) -> None:
    async with open_store(replace(own_options, pool_max_size=1)) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("0")
        async with blocked(own_options.dsn) as blocker:
            at_work = asyncio.create_task(tenant.put("1"))
            await blocker.until_waiting(1)
            await store.check(timeout=TIMEOUT)
            assert await tenant.get() is not None
            assert not at_work.done()
        await at_work
        assert await tenant.ids() == ["0", "1"]


async def test_reads_and_writes_that_wait_for_too_long_are_refused(own_options: StoreOptions) -> None:
    options = replace(own_options, pool_max_size=1, max_queue_seconds=0.3)
    async with open_store(options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("0")
        async with no_free_connection(store):
            at_work = asyncio.create_task(tenant.put("1"))
            await auntil(lambda: store.connections.queue.waiting, lambda waiting: waiting == 1)
            refused = await asyncio.gather(
                at_work, tenant.put("2"), tenant.get(), tenant.put("3"), return_exceptions=True
            )
            assert [type(error) for error in refused] == [Overloaded] * 4
        # Refused writes aren't stored, now or later.
        await asyncio.sleep(0.2)
        assert await tenant.ids() == ["0"]
