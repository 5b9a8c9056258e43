"""Deleting threads and runs."""

from __future__ import annotations

import pytest

from checkpointd_server.domain.errors import VersionConflict
from tests.support.tenant import Tenant, write


async def _everything(tenant: Tenant) -> dict[str, int]:
    """The number of the tenant's rows in each table."""
    return {
        table: (await tenant.select(f"SELECT count(*) AS n FROM checkpointd.{table} WHERE tenant = $1", tenant.name))[
            0
        ]["n"]
        for table in ("namespaces", "checkpoints", "channel_values", "task_writes")
    }


async def test_a_deleted_thread_leaves_nothing(tenant: Tenant) -> None:
    for ns in ("", "child", "child:1|grandchild:2"):
        await tenant.put("1", ns=ns, versions={"a": "1"}, values={"a": b"A"})
        await tenant.put("2", ns=ns, versions={"a": "2"}, values={"a": b"B"})
        await tenant.writes("2", write("task", 0, "a", b""), ns=ns)
    await tenant.writes("1", write("task", 0, "a", b""), ns="without a checkpoint")
    assert await tenant.delete() == 6
    assert await _everything(tenant) == {"namespaces": 0, "checkpoints": 0, "channel_values": 0, "task_writes": 0}


async def test_other_threads_stay(tenant: Tenant) -> None:
    await tenant.put("1", thread="t1", versions={"a": "1"}, values={"a": b"A"})
    await tenant.put("1", thread="t", versions={"a": "1"}, values={"a": b"A"})
    await tenant.writes("1", write("task", 0, "a", b""), thread="t1")
    await tenant.delete("t")
    assert await tenant.values(thread="t1") == {"a": b"A"}
    assert len((await tenant.read(thread="t1")).pending_writes) == 1


async def test_deleting_an_unknown_thread_does_nothing(tenant: Tenant) -> None:
    assert await tenant.delete("unknown") == 0


async def test_a_thread_of_which_only_writes_exist_is_deleted(tenant: Tenant) -> None:
    await tenant.writes("1", write("task", 0, "a", b"old"))
    assert await tenant.delete() == 0
    await tenant.put("1")
    assert (await tenant.read()).pending_writes == []


async def test_a_run_is_deleted_across_threads_and_namespaces(tenant: Tenant) -> None:
    for thread in ("t1", "t2"):
        for ns in ("", "child"):
            await tenant.put("1", thread=thread, ns=ns, metadata={"run_id": "keep"})
            await tenant.put("2", thread=thread, ns=ns, metadata={"run_id": "drop"})
            await tenant.writes("1", write("task", 0, "a", b""), thread=thread, ns=ns)
            await tenant.writes("2", write("task", 0, "a", b""), thread=thread, ns=ns)
    assert await tenant.delete_runs("drop", "unknown") == 4
    assert {c.checkpoint_id for c in await tenant.listed()} == {"1"}
    assert await _everything(tenant) == {"namespaces": 4, "checkpoints": 4, "channel_values": 0, "task_writes": 4}


async def test_no_and_unknown_runs_delete_nothing(tenant: Tenant) -> None:
    version = await tenant.put("1", metadata={"run_id": "r"})
    await tenant.put("1", thread="without")
    assert await tenant.delete_runs() == 0
    assert await tenant.delete_runs("unknown", "") == 0
    assert await tenant.version() == version


async def test_values_that_a_remaining_checkpoint_refers_to_stay(tenant: Tenant) -> None:
    await tenant.put("1", metadata={"run_id": "r1"}, versions={"a": "1", "b": "1"}, values={"a": b"A1", "b": b"B1"})
    await tenant.put("2", metadata={"run_id": "r2"}, versions={"a": "2", "b": "1"}, values={"a": b"A2"})
    await tenant.put("1", ns="child", metadata={"run_id": "r2"}, versions={"a": "1"}, values={"a": b"child"})
    assert await tenant.delete_runs("r1") == 1
    assert await tenant.values("2") == {"a": b"A2", "b": b"B1"}
    assert await tenant.stored_values() == {("a", "2"), ("b", "1")}
    assert await tenant.stored_values(ns="child") == {("a", "1")}


async def test_a_run_under_way_is_told_of_the_deletion(tenant: Tenant) -> None:
    await tenant.put("1", metadata={"run_id": "r1"})
    base = await tenant.put("2", metadata={"run_id": "r2"}, writer=b"me")
    await tenant.delete_runs("r1")
    assert await tenant.version() > base
    with pytest.raises(VersionConflict) as conflict:
        await tenant.put("3", writer=b"me", expect=base, expect_writer=b"me")
    assert conflict.value.current_checkpoint_id == "2"


async def test_a_namespace_whose_last_run_is_deleted_is_as_new(tenant: Tenant) -> None:
    base = await tenant.put("1", metadata={"run_id": "r"}, writer=b"me")
    await tenant.delete_runs("r")
    assert await tenant.get() == (None, 0, [])
    with pytest.raises(VersionConflict):
        await tenant.put("2", expect=base, expect_writer=b"me")
    assert await tenant.put("2", expect=0) > base
