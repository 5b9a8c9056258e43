"""Copying and forking threads."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from checkpointd_server.domain.checkpoints import StoredCheckpoint
from checkpointd_server.domain.errors import CheckpointNotFound, ThreadExists, VersionConflict
from checkpointd_server.store import StoreOptions, open_store
from tests.support.tenant import Tenant, gather_results, write

CALL = "node:task"


async def _thread(tenant: Tenant) -> None:
    """A root chain 1-2-3 with a branch 1-b; the steps after 1, 2, 3 and b called a subgraph."""
    for checkpoint_id, parent in (("1", None), ("2", "1"), ("b", "1"), ("3", "2")):
        versions = {"a": checkpoint_id, "same": "1"}
        values: dict[str, bytes | None] = {"a": f"a{checkpoint_id}".encode()}
        if checkpoint_id == "1":
            values["same"] = b"same"
        await tenant.put(checkpoint_id, parent=parent, versions=versions, values=values, metadata={"parents": {}})
        await tenant.writes(checkpoint_id, write("task", 0, "a", f"w{checkpoint_id}".encode()))
    for root in ("1", "2", "3", "b"):
        ns = f"{CALL}{root}"
        for step in ("x", "y"):
            await tenant.put(
                f"{root}{step}",
                ns=ns,
                versions={"s": step},
                values={"s": f"{root}{step}".encode()},
                metadata={"parents": {"": root}},
            )
            await tenant.writes(f"{root}{step}", write("task", 0, "s", b"w"), ns=ns)
        # A subgraph with a memory of its own: one namespace for all calls.
        await tenant.put(
            f"{root}m", ns="memory", versions={"m": root}, values={"m": b"m"}, metadata={"parents": {"": root}}
        )


async def _without_place(tenant: Tenant, thread: str) -> list[tuple[StoredCheckpoint, dict[str, bytes]]]:
    """Everything in a thread except its name."""
    listed = await tenant.listed_whole(thread_id=thread)
    return [(replace(checkpoint, thread_id="", version=0), values) for checkpoint, values in listed]


async def _namespaces(tenant: Tenant, thread: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for checkpoint in await tenant.listed(thread_id=thread):
        found.setdefault(checkpoint.checkpoint_ns, []).insert(0, checkpoint.checkpoint_id)
    return found


async def test_a_copy_has_everything_but_the_threads_name(tenant: Tenant) -> None:
    await _thread(tenant)
    await tenant.writes("5", write("task", 0, "a", b"early"))
    assert await tenant.copy("t", "copy") == 16
    assert await _without_place(tenant, "copy") == await _without_place(tenant, "t")
    await tenant.put("5", thread="copy")
    assert [w.value.data for w in (await tenant.read("5", thread="copy")).pending_writes] == [b"early"]


async def test_a_copy_lives_on_its_own(tenant: Tenant) -> None:
    await _thread(tenant)
    await tenant.copy("t", "copy")
    version = await tenant.version(thread="copy")
    assert version > await tenant.version()
    await tenant.delete("t")
    assert await tenant.values(thread="copy") == {"a": b"ab", "same": b"same"}
    await tenant.put("4", thread="copy", expect=version)


async def test_an_unknown_source_is_passed_over(tenant: Tenant) -> None:
    assert await tenant.copy("unknown", "copy") == 0
    assert await tenant.copy("unknown", "copy", at="1") == 0
    assert await tenant.listed() == []


async def test_a_target_that_holds_anything_is_refused(tenant: Tenant) -> None:
    await tenant.put("1")
    await tenant.put("1", thread="taken", ns="child")
    await tenant.writes("1", write("task", 0, "a", b""), thread="written")
    for target in ("taken", "written", "t"):
        with pytest.raises(ThreadExists):
            await tenant.copy("t", target)
    assert await tenant.get(thread="taken") == (None, 0, [])


async def test_a_repeated_copy_answers_the_same_even_if_its_target_went_on(tenant: Tenant) -> None:
    await _thread(tenant)
    assert await tenant.copy("t", "copy", request_id=b"r") == 16
    assert await tenant.copy("t", "copy", request_id=b"r") == 16
    await tenant.put("9", thread="copy")
    await tenant.delete("t")
    assert await tenant.copy("t", "copy", request_id=b"r") == 16
    await tenant.put("1")
    with pytest.raises(ThreadExists):
        await tenant.copy("t", "copy", request_id=b"other")


async def test_the_request_id_of_a_put_is_not_that_of_a_copy(tenant: Tenant) -> None:
    await _thread(tenant)
    await tenant.put("1", thread="taken", request_id=b"r")
    with pytest.raises(ThreadExists):
        await tenant.copy("t", "taken", request_id=b"r")
    assert await tenant.copy("t", "copy", request_id=b"r") == 16
    version = await tenant.version(thread="copy")
    assert await tenant.put("2", thread="copy", request_id=b"r") > version


async def test_of_copies_to_one_thread_at_once_one_wins(tenant: Tenant) -> None:
    await _thread(tenant)
    results = await gather_results(*(tenant.copy("t", "copy") for _ in range(6)))
    assert sorted(map(type, results), key=str) == sorted([int, *[ThreadExists] * 5], key=str)
    assert len(await tenant.listed(thread_id="copy")) == 16


async def test_the_same_copy_arriving_twice_at_once_is_made_once(tenant: Tenant) -> None:
    await _thread(tenant)
    assert await gather_results(*(tenant.copy("t", "copy", request_id=b"r") for _ in range(4))) == [16] * 4
    assert len(await tenant.listed(thread_id="copy")) == 16


async def test_only_writes_are_copied_too(tenant: Tenant) -> None:
    await tenant.writes("1", write("task", 0, "a", b"early"))
    assert await tenant.copy("t", "copy") == 0
    assert await tenant.copy("t", "copy") == 0
    await tenant.put("1", thread="copy")
    assert len((await tenant.read(thread="copy")).pending_writes) == 1


async def test_a_fork_takes_the_ancestors_and_what_their_steps_left(tenant: Tenant) -> None:
    await _thread(tenant)
    await tenant.copy("t", "fork", at="2")
    # The thread continued from 2, but the results of that step aren't copied: the fork takes it again.
    assert await _namespaces(tenant, "fork") == {"": ["1", "2"], f"{CALL}1": ["1x", "1y"], "memory": ["1m"]}
    assert (await tenant.read("2", thread="fork")).pending_writes == []
    assert len((await tenant.read("1", thread="fork")).pending_writes) == 1
    assert len((await tenant.read("1y", thread="fork", ns=f"{CALL}1")).pending_writes) == 1
    assert await tenant.values("2", thread="fork") == {"a": b"a2", "same": b"same"}
    assert await tenant.stored_values(thread="fork") == {("a", "1"), ("a", "2"), ("same", "1")}


async def test_a_fork_at_a_leaf_takes_what_is_pending(tenant: Tenant) -> None:
    await _thread(tenant)
    await tenant.copy("t", "fork", at="3")
    assert await _namespaces(tenant, "fork") == {
        "": ["1", "2", "3"],
        f"{CALL}1": ["1x", "1y"],
        f"{CALL}2": ["2x", "2y"],
        f"{CALL}3": ["3x", "3y"],
        "memory": ["1m", "2m", "3m"],
    }
    assert len((await tenant.read("3", thread="fork")).pending_writes) == 1


async def test_a_fork_at_an_unknown_checkpoint_is_refused(tenant: Tenant) -> None:
    await _thread(tenant)
    for checkpoint_id in ("unknown", "1x"):
        with pytest.raises(CheckpointNotFound):
            await tenant.copy("t", "fork", at=checkpoint_id)
    assert await tenant.listed(thread_id="fork") == []


async def test_a_fork_has_the_delta_history_of_its_source(tenant: Tenant) -> None:
    await _thread(tenant)
    await tenant.put("4", parent="3", versions={"delta": "1"})
    await tenant.writes("3", write("other", 0, "delta", b"d3"))
    await tenant.copy("t", "fork", at="4")
    assert (await tenant.history("delta", thread="fork", at="4")).channels == (
        await tenant.history("delta", at="4")
    ).channels


async def test_a_copied_thread_knows_no_writer(tenant: Tenant) -> None:
    await tenant.put("1", writer=b"me")
    await tenant.copy("t", "copy")
    with pytest.raises(VersionConflict):
        await tenant.put("2", thread="copy", expect_writer=b"me")


async def test_parents_in_a_circle_end_the_fork(tenant: Tenant) -> None:
    await tenant.put("1", parent="2")
    await tenant.put("2", parent="1")
    assert await tenant.copy("t", "fork", at="2") == 2


async def test_a_long_copy_holds_up_nobody_but_its_target(own_options: StoreOptions) -> None:
    """Not even its source, of which it sees a snapshot."""
    async with open_store(own_options) as store:
        tenant, other = Tenant(store, "tenant"), Tenant(store, "other")
        await _thread(tenant)
        connection = await asyncpg.connect(own_options.dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            # The copy will wait for this row, in the middle of its work.
            await connection.execute(
                "INSERT INTO checkpointd.namespaces (thread, checkpoint_ns, tenant, version, last_checkpoint_id) "
                "VALUES ($1, 'memory', 'tenant', 1, '')",
                tenant.key("copy"),
            )
            copy = asyncio.create_task(tenant.copy("t", "copy"))
            for n in range(20):
                await asyncio.wait_for(tenant.put(f"9{n}", parent="3"), 20)
                await asyncio.wait_for(tenant.put("1", thread=f"u{n}"), 20)
                lease = await asyncio.wait_for(tenant.acquire("me"), 20)
                await tenant.put(f"9{n}x", lease=lease.token)
                await tenant.release("me")
                await asyncio.wait_for(other.acquire("me", thread=f"{n}"), 20)
                await asyncio.sleep(0.02)
            assert not copy.done()
            await transaction.rollback()
            # The copy was restarted a few times, because no statement may wait long for a lock.
            assert await copy >= 16
            assert len(await tenant.listed(thread_id="copy")) >= 16
        finally:
            await connection.close()
