"""Task writes: which replace which, their order, and the fence."""

from __future__ import annotations

import asyncio

import pytest

from checkpointd_server.domain.errors import VersionConflict
from checkpointd_server.store import PostgresStore
from tests.store.tenant import Tenant, write

ERROR, INTERRUPT = -1, -3


async def test_writes_lie_beside_their_checkpoint(tenant: Tenant) -> None:
    version = await tenant.put("1")
    await tenant.put("2", ns="child")
    sent = write("task", 0, "a", b"A", path="~pull")
    assert await tenant.writes("1", sent) == version
    assert (await tenant.read("1")).pending_writes == [sent]
    assert (await tenant.read("2", ns="child")).pending_writes == []


async def test_writes_may_come_before_their_checkpoint(tenant: Tenant) -> None:
    sent = write("task", 0, "a", b"A")
    assert await tenant.writes("1", sent) == 0
    assert await tenant.get("1") == (None, 0, [])
    await tenant.put("1")
    assert (await tenant.read("1")).pending_writes == [sent]


async def test_a_regular_write_never_replaces_a_stored_one(tenant: Tenant) -> None:
    await tenant.put("1")
    await tenant.writes("1", write("task", 0, "a", b"first"))
    await tenant.writes("1", write("task", 0, "b", b"second", path="p"), write("task", 1, "c", b"new"))
    stored = (await tenant.read()).pending_writes
    assert stored == [write("task", 0, "a", b"first"), write("task", 1, "c", b"new")]


async def test_a_special_write_replaces_the_stored_one(tenant: Tenant) -> None:
    await tenant.put("1")
    await tenant.writes("1", write("task", INTERRUPT, "__interrupt__", b"first"))
    replacement = write("task", INTERRUPT, "__interrupt__", b"second", path="p")
    await tenant.writes("1", replacement)
    assert (await tenant.read()).pending_writes == [replacement]


async def test_one_batch_may_hold_regular_and_special_writes(tenant: Tenant) -> None:
    await tenant.put("1")
    await tenant.writes("1", write("task", ERROR, "__error__", b"e1"), write("task", 0, "a", b"a1"))
    await tenant.writes("1", write("task", ERROR, "__error__", b"e2"), write("task", 0, "a", b"a2"))
    assert [(w.idx, w.value.data) for w in (await tenant.read()).pending_writes] == [(ERROR, b"e2"), (0, b"a1")]


async def test_writes_are_ordered_by_path_task_and_index_bytewise(tenant: Tenant) -> None:
    await tenant.put("1")
    # Bytewise: upper case first, and what is beyond the BMP last. A language's collation would have it otherwise.
    expected = [
        write("b", 0, "x", b"", path=""),
        write("B", 0, "x", b"", path="P"),
        write("a", -1, "x", b"", path="P"),
        write("a", 2, "x", b"", path="P"),
        write("a", 10, "x", b"", path="P"),
        write("A", 0, "x", b"", path="p"),
        write("\uffee", 3, "x", b"", path="p"),
        write("\U0001f600", 1, "x", b"", path="p"),
    ]
    for sent in reversed(expected):
        await tenant.writes("1", sent)
    assert (await tenant.read()).pending_writes == expected


async def test_no_writes_answer_with_the_version_and_are_checked(tenant: Tenant) -> None:
    assert await tenant.writes("1") == 0
    version = await tenant.put("1")
    assert await tenant.writes("1", expect=version) == version
    with pytest.raises(VersionConflict):
        await tenant.writes("1", expect=version + 1)


async def test_the_fence_lets_the_base_and_the_own_put_through(tenant: Tenant) -> None:
    assert await tenant.writes("1", write("task", 0, "a", b""), expect=0) == 0
    version = await tenant.put("1", writer=b"me")
    assert await tenant.writes("1", write("task", 1, "a", b""), expect=version) == version
    assert await tenant.writes("1", write("task", 2, "a", b""), expect=0, expect_writer=b"me") == version
    assert await tenant.writes("1", write("task", 3, "a", b""), expect_writer=b"me") == version
    assert len((await tenant.read()).pending_writes) == 4


@pytest.mark.parametrize(("expect", "expect_writer"), [(0, b""), (1, b""), (None, b"me"), (0, b"me"), (1, b"me")])
async def test_the_fence_stops_a_stale_writer(tenant: Tenant, expect: int | None, expect_writer: bytes) -> None:
    version = await tenant.put("2", writer=b"you")
    with pytest.raises(VersionConflict) as conflict:
        await tenant.writes("1", write("task", 0, "a", b""), expect=expect, expect_writer=expect_writer)
    assert (conflict.value.current_version, conflict.value.current_checkpoint_id) == (version, "2")
    await tenant.put("1")
    assert (await tenant.read("1")).pending_writes == []


async def test_the_fence_stops_writes_to_a_deleted_thread(tenant: Tenant) -> None:
    version = await tenant.put("1", writer=b"me")
    await tenant.delete()
    with pytest.raises(VersionConflict):
        await tenant.writes("1", write("task", 0, "a", b""), expect=version, expect_writer=b"me")


async def test_the_fence_waits_for_a_put_under_way_and_sees_it(tenant: Tenant, store: PostgresStore) -> None:
    version = await tenant.put("1", writer=b"me")
    async with store._connections._pool.acquire() as connection:
        await connection.execute("SELECT set_config('checkpointd.tenant', $1, false)", tenant.name)
        connection.itself().tenant = tenant.name
        transaction = connection.transaction()
        await transaction.start()
        # What a put does first, held open.
        await connection.execute(
            "UPDATE checkpointd.namespaces SET version = version + 1, last_writer = NULL WHERE tenant = $1", tenant.name
        )
        writes = asyncio.create_task(tenant.writes("1", write("task", 0, "a", b""), expect=version))
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE NOT granted AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
        assert not writes.done()
        await transaction.commit()
    with pytest.raises(VersionConflict):
        await writes
    assert (await tenant.read()).pending_writes == []


async def test_writes_at_once_are_all_stored(tenant: Tenant) -> None:
    version = await tenant.put("1")
    await asyncio.gather(*(tenant.writes("1", write(f"task{n}", 0, "a", b""), expect=version) for n in range(30)))
    assert len((await tenant.read()).pending_writes) == 30


async def test_the_same_writes_sent_at_once_are_stored_once(tenant: Tenant) -> None:
    sent = [write("task", n, "a", b"x") for n in (-1, 0, 1)]
    await asyncio.gather(*(tenant.writes("1", *sent) for _ in range(10)))
    await tenant.put("1")
    assert (await tenant.read()).pending_writes == sent
