"""Simultaneous writes share commits, and their results don't show it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.checkpoints import Namespace, PendingWrite, PutWrites
from checkpointd_server.domain.errors import (
    BaseMissing,
    CheckpointdError,
    DeadlineExceeded,
    InvalidArgument,
    PredecessorMissing,
    VersionConflict,
)
from checkpointd_server.domain.values import TypedValue
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.writes.group_commit import MAX_WRITES
from tests.support.blocker import blocked
from tests.support.tenant import TIMEOUT, Tenant, patch, uploaded, write
from tests.support.until import auntil


async def outcomes(*calls: Any) -> list[Any]:
    """Makes calls at once and returns their results or errors, in order."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def count_commits(options: StoreOptions, *besides: str) -> int:
    """Returns the number of transactions that stored the checkpoints and task writes.

    The database's transaction ids would count others too: those of other databases, and autovacuum's.

    Args:
        options: The database.
        besides: Checkpoints that don't count.
    """
    connection = await asyncpg.connect(options.dsn)
    try:
        query = """
            SELECT count(DISTINCT stored_by) FROM (
                SELECT xmin::text AS stored_by FROM checkpointd.task_writes
                UNION SELECT xmin::text FROM checkpointd.checkpoints WHERE checkpoint_id <> ALL ($1)
            ) AS rows
        """
        return int(await connection.fetchval(query, besides))
    finally:
        await connection.close()


async def test_many_at_once_need_few_commits(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        calls = [tenant.put("c", thread=f"t{i}", versions={"a": "1"}, values={"a": b"%d" % i}) for i in range(100)]
        calls += [tenant.writes("c", write("task", 0, "a", b"%d" % i), thread=f"t{i}") for i in range(100)]
        results = await outcomes(*calls)
        assert all(isinstance(result, int) for result in results)
        assert await count_commits(own_options) < 20
        for i in range(100):
            assert await tenant.values(thread=f"t{i}") == {"a": b"%d" % i}
            assert [w.value.data for w in (await tenant.read(thread=f"t{i}")).pending_writes] == [b"%d" % i]


async def test_what_a_run_sends_at_once_is_one_commit(own_options: StoreOptions) -> None:
    """A run sends its next step while the previous one is in flight: each put names its predecessor."""
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        base = await tenant.put("c0", writer=b"before")
        run: dict[str, Any] = {"expect_writer": b"run"}
        results = await outcomes(
            tenant.writes("c0", write("task", 0, "a", b"0"), expect=base),
            tenant.put("c1", parent="c0", writer=b"run", expect=base),
            tenant.writes("c1", write("task", 0, "a", b"1"), expect_last="c1", **run),
            tenant.writes("c1", write("other", 0, "a", b"2"), expect_last="c1", **run),
            tenant.put("c2", parent="c1", writer=b"run", expect_last="c1", **run),
            tenant.writes("c2", write("task", 0, "a", b"3"), expect_last="c2", **run),
        )
        assert await count_commits(own_options, "c0") == 1
        first, c1, in_c1, too, c2, in_c2 = results
        # Versions ascend one by one; task writes return the version that they found.
        assert (first, c1 > base, c2) == (base, True, c1 + 1)
        assert (in_c1, too, in_c2) == (c1, c1, c2)
        assert await tenant.version() == c2
        assert [len((await tenant.read(f"c{n}")).pending_writes) for n in range(3)] == [1, 2, 1]


async def test_what_builds_on_a_refused_put_is_refused(tenant: Tenant) -> None:
    """Either in the same commit as the put or later."""
    for together in (True, False):
        base = await tenant.put("c0", writer=b"me")
        calls = [
            tenant.put("c1", parent="c0", writer=b"me", expect=base + 1),
            tenant.writes("c1", write("task", 0, "a", b"1"), expect_writer=b"me", expect_last="c1"),
            tenant.put("c2", parent="c1", writer=b"me", expect_writer=b"me", expect_last="c1"),
        ]
        results = await outcomes(*calls) if together else [(await outcomes(call))[0] for call in calls]
        assert [type(result) for result in results] == [VersionConflict, PredecessorMissing, PredecessorMissing]
        assert all(error.current_checkpoint_id == "c0" for error in results)
        await tenant.put("c3", parent="c0", writer=b"you")
        (late,) = await outcomes(tenant.put("c2", parent="c1", writer=b"me", expect_writer=b"me", expect_last="c1"))
        assert type(late) is VersionConflict
        assert await tenant.ids() == ["c0", "c3"]
        await tenant.delete()


async def test_of_a_run_s_puts_those_before_the_bad_one_are_stored(tenant: Tenant) -> None:
    run: dict[str, Any] = {"writer": b"me", "expect_writer": b"me"}
    base = await tenant.put("c0", writer=b"me", versions={"a": "0"}, values={"a": b"0"})
    results = await outcomes(
        tenant.put("c1", parent="c0", expect_last="c0", versions={"a": "1"}, values={"a": patch("0", b"1")}, **run),
        tenant.put("c2", parent="c1", expect_last="c1", versions={"a": "2"}, values={"a": patch("?", b"2")}, **run),
        tenant.put("c3", parent="c2", expect_last="c2", versions={"a": "3"}, values={"a": patch("2", b"3")}, **run),
        tenant.writes("c1", write("task", 0, "a", b"1"), expect_writer=b"me", expect_last="c1"),
    )
    assert results[0] > base
    assert [type(result) for result in results[1:3]] == [BaseMissing, PredecessorMissing]
    assert results[3] == results[0]
    assert await tenant.ids() == ["c0", "c1"]
    assert await tenant.stored_values() == {("a", "0"), ("a", "1")}


async def test_of_what_knows_different_versions_each_is_judged_by_its_own(tenant: Tenant) -> None:
    """Another run wrote last: a write is accepted only if it knows the present version or builds on one that does."""
    run: dict[str, Any] = {"expect_writer": b"run"}
    old = await tenant.put("c0", expect=0, writer=b"run", **run)
    new = await tenant.put("c1", parent="c0", writer=b"other")
    late, stored, after = await outcomes(
        tenant.writes("c0", write("task", 0, "a", b"late"), expect=old, **run),
        tenant.put("c2", parent="c1", expect=new, writer=b"run", **run),
        tenant.writes("c2", write("task", 0, "a", b"after"), expect=old, **run),
    )
    assert isinstance(late, VersionConflict)
    assert isinstance(stored, int)
    assert isinstance(after, int)
    assert not (await tenant.read("c0")).pending_writes
    assert [w.value.data for w in (await tenant.read("c2")).pending_writes] == [b"after"]


async def test_one_alone_is_stored_at_once(tenant: Tenant) -> None:
    assert await tenant.put("c1") < await tenant.put("c2", parent="c1")


async def test_each_gets_its_own_version_and_its_own_refusal(tenant: Tenant) -> None:
    versions = await asyncio.gather(*(tenant.put("c1", thread=f"t{i}", writer=b"w") for i in range(30)))
    results = await outcomes(
        *(
            tenant.put("c2", thread=f"t{i}", parent="c1", expect=version if i % 3 else 1, writer=b"w2")
            for i, version in enumerate(versions)
        )
    )
    for i, (before, result) in enumerate(zip(versions, results, strict=True)):
        if i % 3:
            assert result > before
        else:
            assert isinstance(result, VersionConflict)
            assert (result.expected_version, result.current_version) == (1, before)
        assert await tenant.ids(thread=f"t{i}") == (["c1", "c2"] if i % 3 else ["c1"])


async def test_writes_of_one_namespace_stay_in_order(tenant: Tenant) -> None:
    """A run's put, its task writes and its next put, all at once."""
    calls = []
    for i in range(20):
        run: dict[str, Any] = {"thread": f"t{i}", "expect": 0, "expect_writer": b"me"}
        calls += [
            tenant.put("c1", writer=b"me", **run),
            tenant.writes("c1", write("task", 0, "a", b"1"), **run),
            tenant.writes("c1", write("other task", 0, "a", b"2"), **run),
            tenant.put("c2", parent="c1", writer=b"me", **run),
            tenant.writes("c2", write("task", 0, "a", b"3"), **run),
        ]
    results = await outcomes(*calls)
    assert [result for result in results if isinstance(result, BaseException)] == []
    for i in range(20):
        assert await tenant.ids(thread=f"t{i}") == ["c1", "c2"]
        assert len((await tenant.read("c1", thread=f"t{i}")).pending_writes) == 2
        assert len((await tenant.read("c2", thread=f"t{i}")).pending_writes) == 1


async def test_of_rivals_for_one_namespace_one_wins(tenant: Tenant) -> None:
    base = await tenant.put("c0")
    results = await outcomes(
        *(
            tenant.put(f"c{i}", parent="c0", expect=base, expect_writer=b"%d" % i, writer=b"%d" % i)
            for i in range(1, 40)
        )
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, VersionConflict) for result in results) == 38


async def test_a_bad_call_fails_alone(tenant: Tenant) -> None:
    results = await outcomes(
        *(tenant.put("c", thread=f"t{i}") for i in range(10)),
        tenant.put("c", thread="bad", metadata={"a": "\0"}),
        tenant.put("d", thread="bad"),
        *(tenant.put("c", thread=f"t{i}") for i in range(10, 20)),
    )
    assert isinstance(results.pop(10), InvalidArgument)
    assert all(isinstance(result, int) for result in results)
    assert await tenant.ids(thread="bad") == ["d"]


async def test_a_caller_whose_time_runs_out_in_the_queue_leaves_the_others_alone(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0")
        async with blocked(own_options.dsn):
            stuck = [asyncio.create_task(tenant.put(f"c{i}")) for i in range(1, 6)]
            await asyncio.sleep(0)
            late = PutWrites(namespace=Namespace("tenant", "t", ""), checkpoint_id="c", writes=[])
            with pytest.raises(DeadlineExceeded):
                await store.write(late, timeout=0.1)
        assert all(isinstance(result, int) for result in await asyncio.gather(*stuck))


async def test_a_caller_that_gave_up_in_the_queue_stores_nothing(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0")
        async with blocked(own_options.dsn) as blocker:
            first = asyncio.create_task(tenant.put("c1"))
            await blocker.until_waiting(1)
            tasks = [asyncio.create_task(tenant.put(f"c{i}")) for i in range(2, 6)]
            await asyncio.sleep(0)
            tasks[-1].cancel()
            await asyncio.sleep(0)
        results = await outcomes(first, *tasks)
        assert isinstance(results.pop(), asyncio.CancelledError)
        assert all(isinstance(result, int) for result in results)
        assert await tenant.ids() == ["c0", "c1", "c2", "c3", "c4"]


async def test_what_nobody_waits_for_any_more_is_cancelled(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0")
        async with blocked(own_options.dsn) as blocker:
            put = asyncio.create_task(tenant.put("c1"))
            await blocker.until_waiting(1)
            put.cancel()
            await blocker.until_waiting(0)
        await asyncio.gather(put, return_exceptions=True)
        await auntil(lambda: store._of("tenant").commits.is_idle)
        assert await tenant.ids() == ["c0"]


async def test_an_abandoned_write_leaves_the_others_of_its_namespace_alone(tenant: Tenant) -> None:
    """A stream that breaks abandons its writes, and the next one repeats them, with what follows."""
    stored = await tenant.put("c1", request_id=b"1" * 16)
    now = asyncio.get_running_loop().time()
    delivered: list[PendingWrite] = []
    abandoned = PendingWrite(tenant.a_put("c2", parent="c1"), 10, now, delivered.extend)
    others = [
        # A group with a repeated write is stored write by write.
        PendingWrite(tenant.a_put("c1", request_id=b"1" * 16), 10, now + TIMEOUT, delivered.extend),
        PendingWrite(tenant.a_put("c3", parent="c1"), 10, now + TIMEOUT, delivered.extend),
    ]
    tenant.store.submit([abandoned, *others])
    await auntil(lambda: len(delivered) == 3)
    assert isinstance(abandoned.result, DeadlineExceeded)
    repeated, after = others
    assert repeated.result == stored
    assert isinstance(after.result, int)
    assert await tenant.ids() == ["c1", "c3"]


async def test_results_come_in_lists_a_commit_and_deliverer(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        lists: dict[str, list[list[PendingWrite]]] = {"one": [], "two": []}
        pending = [
            PendingWrite(tenant.a_put("c", thread=f"{who}{n}"), 10, None, lists[who].append, tag=n)
            for n in range(10)
            for who in lists
        ]
        store.submit(pending)
        await auntil(lambda: all(write.result is not None for write in pending))
        for got in lists.values():
            assert [[write.tag for write in some] for some in got] == [list(range(10))]
        assert all(isinstance(write.result, int) for write in pending)


async def test_more_than_fits_into_one_commit(tenant: Tenant) -> None:
    count = 3 * MAX_WRITES
    results = await outcomes(*(tenant.put("c", thread=f"t{i}") for i in range(count)))
    assert all(isinstance(result, int) for result in results)


@pytest.mark.parametrize("seed", [*range(18), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(18, 60))])
async def test_at_once_or_one_by_one_the_outcome_is_the_same(store: PostgresStore, tenant: Tenant, seed: int) -> None:
    """Random writes to one or a few namespaces: all at once in one tenant, one by one in another."""
    chance = random.Random(seed)
    at_once, one_by_one = Tenant(store, f"{tenant.name}-{seed}-a"), Tenant(store, f"{tenant.name}-{seed}-b")
    threads = [f"t{i}" for i in range(6 if seed % 3 else 1)]
    # One namespace without uploads: such groups are committed alone (commit_group).
    is_plain = seed % 6 == 0
    for each in (at_once, one_by_one):
        for thread in threads:
            for upload_id in (b"u1", b"u2", b"u3", b"u4"):
                await each.upload(upload_id, upload_id, b"...", thread=thread)

    def a_value() -> bytes | TypedValue | None:
        kind = chance.random()
        if kind < 0.3:
            return patch(chance.choice("1234"), chance.choice([b"1", b"22"]), reach=chance.choice([0, 0, 1, 2]))
        if kind < 0.4 and not is_plain:
            return uploaded(chance.choice([b"u1", b"u2", b"u3"]), chance.choice([5, 5, 5, 4]))
        return chance.choice([None, b"1", b"22"])

    def make() -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        writer = chance.choice([b"", b"ada", b"ben"])
        more: dict[str, Any] = {
            "thread": chance.choice(threads),
            "ns": "" if is_plain else chance.choice(["", "", "n"]),
        }
        if chance.random() < 0.7:
            more["expect"] = chance.choice([0, 10**15, None])
            if chance.random() < 0.8:
                more["expect_writer"] = writer if chance.random() < 0.8 else b"cleo"
                if chance.random() < 0.5:
                    more["expect_last"] = f"c{chance.randrange(6)}"
        checkpoint_id = f"c{chance.randrange(6)}"
        if chance.random() < 0.6:
            versions = {channel: chance.choice("1234") for channel in "xyz"}
            changed = {channel: a_value() for channel in "xyz" if chance.random() < 0.6}
            request_id = chance.choice([b"", b"", b"again", b"once"])
            put = {"versions": versions, "values": changed, "writer": writer, "request_id": request_id}
            return "put", (checkpoint_id,), put | more
        writes: dict[int, bytes | TypedValue] = {
            chance.choice([-1, -4, 0, 1]): chance.choice([b"1", b"2", b"\0"]) for _ in range(chance.randrange(3))
        }
        if chance.random() < 0.2 and not is_plain:
            writes[chance.choice([-1, 0])] = uploaded(b"u4", 5)
        task = chance.choice(["one", "two", "three"])
        path = chance.choice(["", "~p"])
        entries = [write(task, idx, "a", data, path=path) for idx, data in writes.items()]
        return "writes", (checkpoint_id, *entries), {"request_id": chance.choice([b"", b"again", b"once more"])} | more

    plan = [make() for _ in range(60)]
    together = await outcomes(*(getattr(at_once, verb)(*args, **options) for verb, args, options in plan))
    apart = []
    for verb, args, options in plan:
        apart += await outcomes(getattr(one_by_one, verb)(*args, **options))

    def what(result: Any) -> Any:
        return type(result) if isinstance(result, CheckpointdError) else isinstance(result, int)

    assert [what(result) for result in together] == [what(result) for result in apart]

    async def everything(each: Tenant, thread: str) -> list[Any]:
        found: list[Any] = []
        for c in await each.listed(thread_id=thread):
            # A value that was replaced under a patch is renamed: the version of the put that replaced it is appended.
            rows = await each.rows(c.checkpoint_id, thread=thread, ns=c.checkpoint_ns)
            values = {
                (channel, version.partition("\x1f")[0], "\x1f" in version): value._replace(
                    patch=value.patch
                    and value.patch._replace(base_version=value.patch.base_version.partition("\x1f")[0])
                )
                for (channel, version), value in rows.items()
            }
            found.append((c.checkpoint_ns, c.checkpoint_id, c.channel_versions, c.pending_writes, values))
        return found

    async def parts(each: Tenant, thread: str) -> list[tuple[bytes, bool]]:
        query = """
            SELECT DISTINCT p.upload_id, u.upload_id IS NULL AS is_claimed
            FROM checkpointd.value_parts AS p LEFT JOIN checkpointd.uploads AS u USING (thread, upload_id)
            WHERE p.thread = $1 ORDER BY 1
        """
        return [(row["upload_id"], row["is_claimed"]) for row in await each.select(query, each.key(thread))]

    for thread in threads:
        assert await everything(at_once, thread) == await everything(one_by_one, thread)
        assert await parts(at_once, thread) == await parts(one_by_one, thread)


async def test_a_patch_stays_whose_base_is_put_anew_in_the_same_commit(tenant: Tenant) -> None:
    await tenant.put("c0", versions={"a": "1"}, values={"a": b"22"})
    results = await outcomes(
        tenant.put("c1", versions={"a": "2"}, values={"a": patch("1", b"1")}),
        tenant.put("c2", versions={"a": "1"}, values={"a": b"1"}),
    )
    assert all(isinstance(result, int) for result in results)
    rows = await tenant.rows("c1")
    aside = rows["a", "2"].patch
    assert aside is not None
    assert rows["a", aside.base_version].data == b"22"
    assert await tenant.values("c2") == {"a": b"1"}
