"""While a lease is held, only its holder writes; and nobody writes under a lease that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.errors import LeaseHeld, LeaseLost
from checkpointd_server.domain.threads import PruneStrategy
from checkpointd_server.store import StoreOptions, open_store
from tests.store.leases import pass_time
from tests.support.tenant import Tenant, write
from tests.support.until import auntil

NEW: dict[str, Any] = {"versions": {"a": "2"}, "values": {"a": b"new"}}
Write = Callable[[Tenant, int], Awaitable[Any]]


def pair(token: int) -> Mapping[str, int]:
    """Returns the leases for operations on whole threads; 0: none."""
    return {"t": token} if token else {}


async def fork_elsewhere(tenant: Tenant, token: int) -> int:
    """Copies "u" to "t", which is empty."""
    return await tenant.copy("u", "t", lease=token)


WRITES: dict[str, Write] = {
    "put": lambda tenant, token: tenant.put("2", lease=token, **NEW),
    "put into a new namespace": lambda tenant, token: tenant.put("1", ns="sub", expect=0, lease=token, **NEW),
    "put with a precondition": lambda tenant, token: tenant.put(
        "2", parent="1", expect_writer=b"me", writer=b"me", lease=token, **NEW
    ),
    "writes": lambda tenant, token: tenant.writes("1", write("task", 1, "a", b"new"), lease=token),
    "writes with a precondition": lambda tenant, token: tenant.writes(
        "1", write("task", 1, "a", b"new"), expect_writer=b"me", lease=token
    ),
    "writes into a new namespace": lambda tenant, token: tenant.writes(
        "1", write("task", 1, "a", b"new"), ns="sub", expect=0, lease=token
    ),
    "delete": lambda tenant, token: tenant.delete(leases=pair(token)),
    "delete runs": lambda tenant, token: tenant.delete_runs("run", leases=pair(token)),
    "prune": lambda tenant, token: tenant.prune("u", "t", leases=pair(token)),
    "prune all": lambda tenant, token: tenant.prune("t", strategy=PruneStrategy.DELETE, leases=pair(token)),
}
every_write = pytest.mark.parametrize("kind", [*WRITES, "copy"])


async def prepare(tenant: Tenant, kind: str) -> Write:
    """Fills the threads "t" and "u"; for a copy, "t" stays empty."""
    for thread in ("t", "u"):
        if not (kind == "copy" and thread == "t"):
            first = {"versions": {"a": "0"}, "values": {"a": b"older"}, "writer": b"me"}
            await tenant.put("0", thread=thread, **first)  # type: ignore[arg-type]
            await tenant.put(
                "1",
                thread=thread,
                parent="0",
                versions={"a": "1"},
                values={"a": b"old"},
                metadata={"run_id": "run" if thread == "t" else "another"},
                writer=b"me",
            )
            await tenant.writes("1", write("task", 0, "a", b"old"), thread=thread)
    return fork_elsewhere if kind == "copy" else WRITES[kind]


async def everything(tenant: Tenant) -> list[list[str]]:
    """All rows of a tenant except its leases."""
    tables = ("namespaces", "checkpoints", "channel_values", "task_writes")
    return [
        sorted(map(repr, await tenant.select(f"SELECT * FROM checkpointd.{table} WHERE tenant = $1", tenant.name)))
        for table in tables
    ]


@every_write
async def test_while_a_lease_is_held_only_its_token_writes(tenant: Tenant, kind: str) -> None:
    write_kind = await prepare(tenant, kind)
    old = (await tenant.acquire("old")).token
    await tenant.release("old")
    lease = await tenant.acquire("holder")
    before = await everything(tenant)
    with pytest.raises(LeaseHeld) as held:
        await write_kind(tenant, 0)
    assert held.value.thread_id == "t"
    assert held.value.remaining is not None
    assert held.value.remaining > 0
    for stale in (old, lease.token + 1):
        with pytest.raises(LeaseLost) as lost:
            await write_kind(tenant, stale)
        assert lost.value.thread_id == "t"
    assert await everything(tenant) == before
    await write_kind(tenant, lease.token)
    assert await everything(tenant) != before
    # The lease belongs to the thread's name: it outlives all operations on the thread.
    assert (await tenant.lease()).lease is not None


@every_write
async def test_a_holder_that_lost_its_lease_is_refused_although_nobody_took_it(tenant: Tenant, kind: str) -> None:
    write_kind = await prepare(tenant, kind)
    lease = await tenant.acquire("holder")
    await pass_time(tenant, 61)
    before = await everything(tenant)
    with pytest.raises(LeaseLost):
        await write_kind(tenant, lease.token)
    assert await everything(tenant) == before
    await write_kind(tenant, 0)
    assert await everything(tenant) != before


@every_write
async def test_a_lease_that_was_released_binds_nobody(tenant: Tenant, kind: str) -> None:
    write_kind = await prepare(tenant, kind)
    lease = await tenant.acquire("holder")
    await tenant.release("holder")
    with pytest.raises(LeaseLost):
        await write_kind(tenant, lease.token)
    await write_kind(tenant, 0)


async def test_work_on_many_threads_needs_the_lease_of_each(tenant: Tenant) -> None:
    await prepare(tenant, "prune")
    leases = {thread: (await tenant.acquire("me", thread=thread)).token for thread in ("t", "u")}
    for some in ({}, {"t": leases["t"]}):
        with pytest.raises(LeaseHeld):
            await tenant.prune("t", "u", leases=some)
    with pytest.raises(LeaseLost):
        await tenant.prune("t", "u", leases={"t": leases["t"], "u": leases["t"]})
    assert await tenant.ids() == ["0", "1"]
    assert await tenant.prune("t", "u", leases=leases) == 2


async def test_a_lease_on_the_source_of_a_copy_hinders_nobody(tenant: Tenant) -> None:
    write_kind = await prepare(tenant, "copy")
    await tenant.acquire("holder", thread="u")
    assert await write_kind(tenant, 0) == 2


async def test_a_put_sent_again_after_its_lease_has_ended_is_known(tenant: Tenant) -> None:
    lease = await tenant.acquire("holder")
    put: dict[str, Any] = {"request_id": b"once", "lease": lease.token}
    version = await tenant.put("1", **put)
    await tenant.release("holder")
    assert await tenant.put("1", **put) == version
    await tenant.acquire("other")
    assert await tenant.put("1", **put) == version


async def test_task_writes_sent_again_after_their_lease_has_ended_are_known(tenant: Tenant) -> None:
    await tenant.put("1")
    lease = await tenant.acquire("holder")
    sent = write("task", 0, "a", b"A")
    await tenant.writes("1", sent, lease=lease.token, request_id=b"once")
    await tenant.release("holder")
    assert await tenant.writes("1", sent, lease=lease.token, request_id=b"once") == 0
    await tenant.acquire("other")
    assert await tenant.writes("1", sent, lease=lease.token, request_id=b"once") == 0
    with pytest.raises(LeaseLost):
        await tenant.writes("1", sent, lease=lease.token, request_id=b"another")
    assert (await tenant.read("1")).pending_writes == [sent]


async def test_of_writes_that_share_a_commit_each_is_held_to_its_own_lease(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        tokens = {f"t{i}": (await tenant.acquire("me", thread=f"t{i}")).token for i in range(0, 30, 3)}
        gone = (await tenant.acquire("me", thread="gone")).token
        await tenant.release("me", thread="gone")
        results = await asyncio.gather(
            *(tenant.put("c", thread=f"t{i}", lease=tokens.get(f"t{i}", 0)) for i in range(30)),
            *(tenant.writes("c", write("task", 0, "a", b""), thread=f"t{i}") for i in range(30)),
            *(tenant.put("d", thread=f"t{i}", lease=gone) for i in range(30)),
            return_exceptions=True,
        )
        for i in range(30):
            assert isinstance(results[i], int)
            assert isinstance(results[30 + i], LeaseHeld if i % 3 == 0 else int)
            assert isinstance(results[60 + i], LeaseLost)
            assert await tenant.ids(thread=f"t{i}") == ["c"]
            assert len((await tenant.read(thread=f"t{i}")).pending_writes) == (0 if i % 3 == 0 else 1)


Held = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def held(shared_options: StoreOptions, tenant: Tenant) -> Held:
    """Runs statements in a transaction of the tenant that stays open as long as its context."""

    @asynccontextmanager
    async def run(*statements: str) -> AsyncIterator[Any]:
        settings = {"checkpointd.tenant": tenant.name}
        connection = await asyncpg.connect(shared_options.dsn, server_settings=settings)
        try:
            transaction = connection.transaction()
            await transaction.start()
            for statement in statements:
                await connection.execute(statement)
            yield connection
            await transaction.rollback()
        finally:
            await connection.close()

    return run


async def blocked(tenant: Tenant, number: int) -> None:
    """Waits until this many statements wait for a lock."""
    query = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    await auntil(lambda: tenant.select(query), lambda rows: rows[0]["n"] == number)


class TestWhatIsUnderWay:
    """A lease is granted between two writes, never during one: both take the thread's lock."""

    async def test_a_grant_waits_for_a_put_that_began_before_it(self, tenant: Tenant, held: Held) -> None:
        await tenant.put("1")
        ended: list[str] = []
        in_the_way = (
            "INSERT INTO checkpointd.checkpoints (thread, checkpoint_ns, checkpoint_id, tenant, version, body, "
            "channels, channel_versions, metadata_type, metadata, metadata_index, size) "
            f"VALUES ('{tenant.key()}', '', '2', '{tenant.name}', 1, '', '{{}}', '{{}}', '', '', '{{}}', 0)"
        )
        async with held(in_the_way):
            put = asyncio.create_task(tenant.put("2"))
            put.add_done_callback(lambda task: ended.append("put"))
            await blocked(tenant, 1)
            acquire = asyncio.create_task(tenant.acquire("holder"))
            acquire.add_done_callback(lambda task: ended.append("acquire"))
            await blocked(tenant, 2)
            assert ended == []
            assert (await tenant.lease()).lease is None
        results = await asyncio.gather(put, acquire, return_exceptions=True)
        # Either may come first: a wait for a lock is restarted after a second.
        stored = isinstance(results[0], int)
        assert stored or isinstance(results[0], LeaseHeld)
        assert await tenant.ids() == (["1", "2"] if stored else ["1"])
        with pytest.raises(LeaseHeld):
            await tenant.put("1", ns="sub")

    async def test_also_for_one_into_a_thread_that_is_not_there_yet(self, tenant: Tenant, held: Held) -> None:
        insert = (
            "INSERT INTO checkpointd.threads (thread, tenant, thread_id) "
            f"VALUES ('{tenant.key()}', '{tenant.name}', 't')"
        )
        ended: list[str] = []
        async with held(insert):
            put = asyncio.create_task(tenant.put("1"))
            put.add_done_callback(lambda task: ended.append("put"))
            await blocked(tenant, 1)
            acquire = asyncio.create_task(tenant.acquire("holder"))
            acquire.add_done_callback(lambda task: ended.append("acquire"))
            await blocked(tenant, 2)
            assert ended == []
        results = await asyncio.gather(put, acquire, return_exceptions=True)
        stored = isinstance(results[0], int)
        assert stored or isinstance(results[0], LeaseHeld)
        assert await tenant.ids() == (["1"] if stored else [])

    async def test_a_grant_does_not_wait_for_a_backup(self, tenant: Tenant, held: Held) -> None:
        reads = [f"SELECT FROM checkpointd.{table}" for table in ("threads", "namespaces", "task_writes")]
        async with held("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", *reads):
            await asyncio.wait_for(tenant.acquire("holder"), 20)

    async def test_a_grant_waits_for_a_deletion_that_began_before_it(self, tenant: Tenant, held: Held) -> None:
        await tenant.put("1")
        ended: list[str] = []
        async with held(f"SELECT FROM checkpointd.checkpoints WHERE tenant = '{tenant.name}' FOR UPDATE"):
            delete = asyncio.create_task(tenant.delete())
            delete.add_done_callback(lambda task: ended.append("delete"))
            await blocked(tenant, 1)
            acquire = asyncio.create_task(tenant.acquire("holder"))
            acquire.add_done_callback(lambda task: ended.append("acquire"))
            await blocked(tenant, 2)
            assert ended == []
        results = await asyncio.gather(delete, acquire, return_exceptions=True)
        deleted = isinstance(results[0], int)
        assert deleted or isinstance(results[0], LeaseHeld)
        assert await tenant.ids() == ([] if deleted else ["1"])
        with pytest.raises(LeaseHeld):
            await tenant.put("2")

    async def test_a_lease_is_not_taken_over_under_its_holders_deletion(self, tenant: Tenant, held: Held) -> None:
        await tenant.put("1")
        lease = await tenant.acquire("holder", ttl=0.5)
        async with held(f"SELECT FROM checkpointd.checkpoints WHERE tenant = '{tenant.name}' FOR UPDATE"):
            delete = asyncio.create_task(tenant.delete(leases={"t": lease.token}))
            await blocked(tenant, 1)
            acquire = asyncio.create_task(tenant.acquire("next"))
            await asyncio.sleep(0.7)
            assert not delete.done()
            assert not acquire.done()
        results = await asyncio.gather(delete, acquire, return_exceptions=True)
        # A restarted wait for a lock finds that the lease has ended.
        deleted = isinstance(results[0], int)
        assert deleted or isinstance(results[0], LeaseLost)
        assert await tenant.ids() == ([] if deleted else ["1"])

    async def test_a_deletion_waits_for_a_grant_and_is_refused(self, tenant: Tenant, held: Held) -> None:
        await tenant.put("1")
        grant = (
            "UPDATE checkpointd.threads SET lease_holder = 'other', lease_token = 10 ^ 15, "
            f"lease_expires_at = now() + interval '1 minute' WHERE thread = '{tenant.key()}'"
        )
        async with held(grant) as connection:
            delete = asyncio.create_task(tenant.delete())
            await blocked(tenant, 1)
            await connection.execute("COMMIT; BEGIN")
            with pytest.raises(LeaseHeld):
                await delete
        assert await tenant.ids() == ["1"]
