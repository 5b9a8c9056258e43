"""Threads that another transaction has locked hold up nobody else's writes."""

from __future__ import annotations

import asyncio

from checkpointd_server.domain.checkpoints import PendingWrite
from checkpointd_server.domain.errors import DeadlineExceeded
from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.writes.group_commit import MAX_SLOW
from checkpointd_server.store.writes.merge import Group
from tests.support.blocker import blocked
from tests.support.tenant import TIMEOUT, Tenant, write


async def test_a_locked_thread_does_not_hold_up_the_others(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0", thread="locked", writer=b"w")
        async with blocked(own_options.dsn):
            others = [asyncio.create_task(tenant.put("c1", thread=f"t{i}")) for i in range(20)]
            stuck = [
                asyncio.create_task(tenant.put("c1", thread="locked", parent="c0", expect_writer=b"w", writer=b"w")),
                asyncio.create_task(
                    tenant.writes("c1", write("task", 0, "a", b"1"), thread="locked", expect_writer=b"w")
                ),
            ]
            others += [asyncio.create_task(tenant.put("c1", thread=f"u{i}")) for i in range(20)]
            await asyncio.wait_for(asyncio.gather(*others), 30)
            assert not any(task.done() for task in stuck)
        await asyncio.gather(*stuck)
        assert await tenant.ids(thread="locked") == ["c0", "c1"]


async def test_locked_threads_each_in_a_commit_of_its_own_do_not_hold_up_the_others(own_options: StoreOptions) -> None:
    """The first attempt doesn't wait for a locked thread; of the later ones, only a few wait at once."""
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        threads = [f"locked{i}" for i in range(6)]
        await asyncio.gather(*(tenant.put("c0", thread=thread) for thread in threads))
        async with blocked(own_options.dsn) as blocker:
            stuck = []
            for thread in threads:
                stuck.append(asyncio.create_task(tenant.put("c1", thread=thread)))
                await tenant.put("c0", thread=f"free beside {thread}")
                assert await blocker.waiting() <= MAX_SLOW
            await blocker.until_waiting(MAX_SLOW)
            assert not any(task.done() for task in stuck)
        assert all(isinstance(result, int) for result in await asyncio.wait_for(asyncio.gather(*stuck), TIMEOUT))
        assert [await tenant.ids(thread=thread) for thread in threads] == [["c0", "c1"]] * len(threads)


async def test_many_locked_threads_leave_connections_for_others(own_options: StoreOptions) -> None:
    """More threads than connections, locked for longer than a single wait for a lock."""
    async with open_store(own_options) as store:
        tenant, other = Tenant(store, "tenant"), Tenant(store, "other")
        threads = [f"locked{i}" for i in range(20)]
        await asyncio.gather(*(tenant.put("c0", thread=thread) for thread in threads))
        async with blocked(own_options.dsn):
            stuck = [asyncio.create_task(tenant.put("c1", thread=thread)) for thread in threads]
            for n in range(30):
                await asyncio.wait_for(tenant.put("c0", thread=f"free{n}"), 20)
                await asyncio.wait_for(other.put("c0", thread=f"free{n}"), 20)
                await asyncio.wait_for(other.acquire("me", thread=f"free{n}"), 20)
                await asyncio.sleep(0.05)
            assert not any(task.done() for task in stuck)
        assert all(isinstance(result, int) for result in await asyncio.wait_for(asyncio.gather(*stuck), TIMEOUT))


async def test_one_by_one_a_locked_thread_takes_nobody_along(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0", thread="locked")
        now, delivered = asyncio.get_running_loop().time(), list[PendingWrite]()
        locked = PendingWrite(tenant.a_put("c1", thread="locked"), 10, now + 0.5, delivered.extend)
        others = [
            PendingWrite(tenant.a_put(f"c{n}", thread="free"), 10, now + TIMEOUT, delivered.extend) for n in range(2)
        ]
        group = Group(others[0])
        group.add(others[1])
        async with blocked(own_options.dsn):
            # One of them may be locked after their commit was refused.
            await store._of("tenant").commits._calls.store_in_turns([Group(locked), group])
        assert isinstance(locked.result, DeadlineExceeded)
        assert all(isinstance(other.result, int) for other in others)
        assert len(delivered) == 3
        assert await tenant.ids(thread="free") == ["c0", "c1"]
