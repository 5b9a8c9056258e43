"""Writes that come at once share commits, and nobody can tell from what comes of them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import asyncpg
import pytest
from tests.store.pieces import holding, names, names_of, put, read, until_waiting

from checkpointd_server.domain.errors import (
    CheckpointdError,
    DeadlineExceeded,
    InvalidArgument,
    PiecesMissing,
    VersionConflict,
)
from checkpointd_server.domain.model import Namespace, Piece, PutCheckpoint, PutWrites, TypedValue
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.batches import array_literal
from checkpointd_server.store.commits import MAX_WRITES
from checkpointd_server.store.statements import load_statements
from tests.support.tenant import Tenant, in_pieces, piece, value, write


async def outcomes(*calls: Any) -> list[Any]:
    """Makes calls at once and returns what they return or raise, in order."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def count_commits(options: StoreOptions, writes_of: str, checkpoint_id: str) -> int:
    """How many transactions have stored the task writes of one checkpoint, and another checkpoint."""
    connection = await asyncpg.connect(options.dsn)
    try:
        query = """
            SELECT count(DISTINCT stored_by) FROM (
                SELECT xmin::text AS stored_by FROM checkpointd.task_writes WHERE checkpoint_id = $1
                UNION SELECT xmin::text FROM checkpointd.checkpoints WHERE checkpoint_id = $2
            ) AS rows
        """
        return int(await connection.fetchval(query, writes_of, checkpoint_id))
    finally:
        await connection.close()


async def count_transactions(options: StoreOptions) -> int:
    """How many transactions of the database wrote something so far, which is what a commit costs."""
    connection = await asyncpg.connect(options.dsn)
    try:
        return int(await connection.fetchval("SELECT txid_current()"))
    finally:
        await connection.close()


async def test_many_at_once_need_few_commits(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        before = await count_transactions(own_options)
        calls = [tenant.put("c", thread=f"t{i}", versions={"a": "1"}, values={"a": b"%d" % i}) for i in range(100)]
        calls += [tenant.writes("c", write("task", 0, "a", b"%d" % i), thread=f"t{i}") for i in range(100)]
        results = await outcomes(*calls)
        used = await count_transactions(own_options) - before - 1
        assert all(isinstance(result, int) for result in results)
        assert used < 20
        for i in range(100):
            assert await tenant.values(thread=f"t{i}") == {"a": b"%d" % i}
            assert [w.value.data for w in (await tenant.read(thread=f"t{i}")).pending_writes] == [b"%d" % i]


async def test_what_a_run_sends_at_once_is_one_commit_though_it_knows_different_versions(
    own_options: StoreOptions,
) -> None:
    """Task writes are sent while the put before them is under way, and wait until it has made another version."""
    run: dict[str, Any] = {"expect_writer": b"run"}
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        version = await tenant.put("c0", expect=0, writer=b"run", **run)
        for step in range(1, 4):
            *_, made = await asyncio.gather(
                tenant.writes(f"c{step - 1}", write("task", 0, "a", b"1"), expect=version, **run),
                tenant.writes(f"c{step - 1}", write("other", 0, "a", b"2"), expect=version - 1, **run),
                tenant.put(f"c{step}", parent=f"c{step - 1}", expect=version, writer=b"run", **run),
            )
            # The first goes alone, and those that come meanwhile go together.
            assert await count_commits(own_options, f"c{step - 1}", f"c{step}") == 2
            assert made > version
            version = made
            assert len((await tenant.read(f"c{step - 1}")).pending_writes) == 2


async def test_of_what_knows_different_versions_each_is_judged_by_its_own(tenant: Tenant) -> None:
    """Another has written last: only what knows the present version may follow, and what comes after it."""
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
    assert len(set(versions)) == 30
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
    put = PutCheckpoint(
        namespace=Namespace(tenant.name, "bad", ""),
        checkpoint_id="c",
        parent_checkpoint_id=None,
        body=b"",
        channel_versions={},
        values=[],
        metadata=value(b""),
        metadata_index='{"a": "\\u0000"}',
        run_id=None,
    )
    results = await outcomes(
        *(tenant.put("c", thread=f"t{i}") for i in range(10)),
        tenant.store.put_checkpoint(put, timeout=60),
        *(tenant.put("c", thread=f"t{i}") for i in range(10, 20)),
    )
    assert isinstance(results.pop(10), InvalidArgument)
    assert all(isinstance(result, int) for result in results)


async def test_a_caller_whose_time_runs_out_in_the_line_leaves_the_others_alone(
    own_options: StoreOptions,
) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0")
        connection = await asyncpg.connect(own_options.dsn)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE checkpointd.checkpoints IN SHARE MODE")
                stuck = [asyncio.create_task(tenant.put("c1", thread=f"t{i}")) for i in range(6)]
                await asyncio.sleep(0)
                late = PutWrites(namespace=Namespace("tenant", "late", ""), checkpoint_id="c", writes=[])
                with pytest.raises(DeadlineExceeded):
                    await store.put_writes(late, timeout=0.1)
            assert all(isinstance(result, int) for result in await asyncio.gather(*stuck))
        finally:
            await connection.close()


async def test_a_caller_that_gave_up_in_the_line_stores_nothing(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        connection = await asyncpg.connect(own_options.dsn)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE checkpointd.checkpoints IN SHARE MODE")
                tasks = [asyncio.create_task(tenant.put("c1", thread=f"t{i}")) for i in range(6)]
                await asyncio.sleep(0)
                tasks[-1].cancel()
                await asyncio.sleep(0)
            results = await outcomes(*tasks)
        finally:
            await connection.close()
        assert isinstance(results.pop(), asyncio.CancelledError)
        assert all(isinstance(result, int) for result in results)
        assert (await tenant.get(thread="t5")).checkpoint is None


async def test_more_than_fits_into_one_commit(tenant: Tenant) -> None:
    count = 3 * MAX_WRITES
    results = await outcomes(*(tenant.put("c", thread=f"t{i}") for i in range(count)))
    assert len(set(results)) == count


@pytest.mark.parametrize("seed", range(90))
async def test_at_once_or_one_by_one_the_outcome_is_the_same(store: PostgresStore, tenant: Tenant, seed: int) -> None:
    """Random writes on a few namespaces, or one: the same in one tenant all at once, and in another one by one."""
    chance = random.Random(seed)
    at_once, one_by_one = Tenant(store, f"{tenant.name}-{seed}-a"), Tenant(store, f"{tenant.name}-{seed}-b")
    threads = [f"t{i}" for i in range(6 if seed % 3 else 1)]

    def in_some_pieces() -> tuple[TypedValue, list[Piece]]:
        """A value in pieces, and most often those that the thread lacks."""
        parts = chance.sample([b"p1", b"p2", b"p3"], 2)
        return in_pieces(*parts), [piece(part) for part in parts if chance.random() < 0.7]

    def make() -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        writer = chance.choice([b"", b"ada", b"ben"])
        expectation: dict[str, Any] = {}
        if chance.random() < 0.7:
            expectation["expect"] = chance.choice([0, 10**15, None])
            if chance.random() < 0.8:
                expectation["expect_writer"] = writer if chance.random() < 0.8 else b"cleo"
        thread, checkpoint_id = chance.choice(threads), f"c{chance.randrange(6)}"
        if chance.random() < 0.5:
            versions = {channel: chance.choice("12") for channel in "xyz"}
            changed: dict[str, bytes | TypedValue | None] = {
                channel: chance.choice([None, b"1", b"2"]) for channel in "xyz" if chance.random() < 0.6
            }
            request_id = chance.choice([b"", b"", b"again"])
            pieces: list[Piece] = []
            if chance.random() < 0.3:
                changed["x"], pieces = in_some_pieces()
            return (
                "put",
                (checkpoint_id,),
                {
                    "thread": thread,
                    "versions": versions,
                    "values": changed,
                    "writer": writer,
                    "request_id": request_id,
                    "pieces": pieces,
                    **expectation,
                },
            )
        writes: dict[int, bytes | TypedValue] = {
            chance.choice([-1, -4, 0, 1]): chance.choice([b"1", b"2", b"\0"]) for _ in range(chance.randrange(3))
        }
        pieces = []
        if chance.random() < 0.3:
            writes[chance.choice([-1, 0])], pieces = in_some_pieces()
        task = chance.choice(["one", "two", "three"])
        return (
            "writes",
            (
                checkpoint_id,
                *(write(task, idx, "a", data, path=chance.choice(["", "~p"])) for idx, data in writes.items()),
            ),
            {
                "thread": thread,
                "request_id": chance.choice([b"", b"", b"again", b"once more"]),
                "pieces": pieces,
                **expectation,
            },
        )

    plan = [make() for _ in range(60)]
    together = await outcomes(*(getattr(at_once, verb)(*args, **options) for verb, args, options in plan))
    apart = []
    for verb, args, options in plan:
        apart += await outcomes(getattr(one_by_one, verb)(*args, **options))

    def what(result: Any) -> Any:
        return type(result) if isinstance(result, CheckpointdError) else isinstance(result, int)

    assert [what(result) for result in together] == [what(result) for result in apart]
    for thread in threads:
        left, right = [await each.listed(thread_id=thread) for each in (at_once, one_by_one)]
        assert [(c.checkpoint_id, c.channel_versions, c.values, c.pending_writes, c.body) for c in left] == [
            (c.checkpoint_id, c.channel_versions, c.values, c.pending_writes, c.body) for c in right
        ]
        assert await names(at_once, thread) == await names(one_by_one, thread)


@pytest.mark.parametrize("texts", [[], [""], ["a", 'b"c', "d\\e", "{f,g}", "NULL", " h ", "ü😀"]])
async def test_arrays_are_written_as_postgresql_reads_them(own_options: StoreOptions, texts: list[str]) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    try:
        assert await connection.fetchval("SELECT ($1::text)::text[]", array_literal(texts)) == texts
    finally:
        await connection.close()


async def test_many_at_once_bring_pieces_in_few_commits(own_options: StoreOptions) -> None:
    """And one that lacks some is refused, while those beside it are stored."""
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        before = await count_transactions(own_options)
        large: dict[str, Any] = {"versions": {"a": "1"}, "values": {"a": in_pieces(b"one", b"two")}}
        results = await outcomes(
            *(tenant.put("c", thread=f"t{i}", pieces=[piece(b"one"), piece(b"two")], **large) for i in range(60)),
            *(
                tenant.writes("c", write("task", 0, "a", in_pieces(b"three")), pieces=[piece(b"three")], thread=f"w{i}")
                for i in range(60)
            ),
            tenant.put("c", thread="lacking", pieces=[piece(b"two")], **large),
            tenant.writes("c", write("task", 0, "a", in_pieces(b"one")), thread="lacking"),
        )
        used = await count_transactions(own_options) - before - 1
        assert used < 20
        assert all(isinstance(result, int) for result in results[:-2])
        assert [(type(error), set(error.names)) for error in results[-2:]] == [(PiecesMissing, names_of(b"one"))] * 2
        assert await read(tenant, thread="t59") == b"onetwo"
        await tenant.put("c", thread="w59")
        assert [w.value for w in (await tenant.read(thread="w59")).pending_writes] == [in_pieces(b"three")]
        assert await names(tenant, "lacking") == set()


async def test_a_thread_that_is_swept_holds_up_only_its_own_puts(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await put(tenant, "1", b"one", thread="swept")
        async with holding(tenant, load_statements("checkpointd")["own_pieces"], "tenant", "swept"):
            held_up = asyncio.gather(
                put(tenant, "2", b"one", thread="swept"),
                tenant.writes("1", write("task", 0, "a", in_pieces(b"two")), pieces=[piece(b"two")], thread="swept"),
            )
            await asyncio.gather(*(put(tenant, "1", b"one", thread=f"t{i}") for i in range(20)))
            # What has no pieces needn't wait either.
            await tenant.put("3", thread="swept", ns="other")
            await until_waiting(tenant, 1)
            assert not held_up.done()
        assert len(await held_up) == 2
        assert await names(tenant, "swept") == names_of(b"one", b"two")


async def test_a_locked_namespace_does_not_hold_up_the_others(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        tenant = Tenant(store, "tenant")
        await tenant.put("c0", thread="locked", writer=b"w")
        connection = await asyncpg.connect(own_options.dsn)
        try:
            async with connection.transaction():
                await connection.execute("SELECT FROM checkpointd.namespaces FOR UPDATE")
                # The first two begin commits of their own; the others share one, with the one that is stuck.
                others = [asyncio.create_task(tenant.put("c1", thread=f"t{i}")) for i in range(20)]
                stuck = [
                    asyncio.create_task(
                        tenant.put("c1", thread="locked", parent="c0", expect_writer=b"w", writer=b"w")
                    ),
                    asyncio.create_task(
                        tenant.writes("c1", write("task", 0, "a", b"1"), thread="locked", expect_writer=b"w")
                    ),
                ]
                others += [asyncio.create_task(tenant.put("c1", thread=f"u{i}")) for i in range(20)]
                await asyncio.wait_for(asyncio.gather(*others), 30)
                assert not any(task.done() for task in stuck)
            await asyncio.gather(*stuck)
        finally:
            await connection.close()
        assert await tenant.ids(thread="locked") == ["c0", "c1"]
