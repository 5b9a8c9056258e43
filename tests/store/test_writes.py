"""Task writes: which ones replace which, their order, and the fence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from checkpointd_server.domain.errors import InvalidArgument, VersionConflict
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from tests.support.tenant import Tenant, a_connection, uploaded, value, write
from tests.support.until import auntil

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
    # Bytewise: upper case first, characters beyond the BMP last. A language's collation would order them otherwise.
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
    async with a_connection(store) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT set_config('checkpointd.tenant', $1, true)", tenant.name)
        # The first step of a put, held open.
        await connection.execute("UPDATE checkpointd.threads SET updated_at = now() WHERE thread = $1", tenant.key())
        await connection.execute(
            "UPDATE checkpointd.namespaces SET version = version + 1, last_writer = NULL WHERE thread = $1",
            tenant.key(),
        )
        writes = asyncio.create_task(tenant.writes("1", write("task", 0, "a", b""), expect=version))
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE NOT granted AND datname = current_database()"
        )

        async def is_waiting() -> bool:
            # Within a transaction, pg_stat_activity doesn't change by itself.
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            return bool(await connection.fetchval(waiting))

        await auntil(is_waiting)
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


class TestSentAgain:
    """Writes whose answer was lost are sent again, under the same request id."""

    async def test_they_are_known_after_another_put(self, tenant: Tenant) -> None:
        version = await tenant.put("1", writer=b"me")
        sent = [write("task", INTERRUPT, "__interrupt__", b"i"), write("task", 0, "a", b"A")]
        assert await tenant.writes("1", *sent, expect_writer=b"me", request_id=b"once") == version
        await tenant.put("2", parent="1", writer=b"you")
        # Not the present version: the sender hasn't read what the other run wrote.
        assert await tenant.writes("1", *sent, expect_writer=b"me", request_id=b"once") == 0
        assert (await tenant.read("1")).pending_writes == sent
        for other in (b"", b"another", b"onc"):
            with pytest.raises(VersionConflict):
                await tenant.writes("1", *sent, expect_writer=b"me", request_id=other)

    async def test_while_nobody_came_between_they_answer_with_the_version(self, tenant: Tenant) -> None:
        version = await tenant.put("1")
        for expect in (None, version, version):
            sent = write("task", INTERRUPT, "__interrupt__", b"i")
            assert await tenant.writes("1", sent, expect=expect, request_id=b"once") == version

    @pytest.mark.parametrize("overtaken", [False, True])
    async def test_they_do_not_undo_what_replaced_them(self, tenant: Tenant, overtaken: bool) -> None:
        await tenant.put("1", writer=b"me")
        calls = [(b"call %d" % n, write("task", INTERRUPT, "__interrupt__", b"%d" % n)) for n in range(4)]
        for request_id, sent in calls:
            await tenant.writes("1", sent, expect_writer=b"me", request_id=request_id)
        if overtaken:
            await tenant.put("2", parent="1", writer=b"you")
        for request_id, sent in reversed(calls):
            await tenant.writes("1", sent, expect_writer=b"me", request_id=request_id)
        assert (await tenant.read("1")).pending_writes == [calls[-1][1]]

    async def test_large_ones_are_known_too(self, tenant: Tenant) -> None:
        """Their bytes were uploaded, and belong to the write now."""
        content = b"part" * 1000
        version = await tenant.put("1", writer=b"me")
        await tenant.upload(b"one", content)
        sent = write("task", INTERRUPT, "__interrupt__", uploaded(b"one", len(content)))
        assert await tenant.writes("1", sent, expect_writer=b"me", request_id=b"once") == version
        await tenant.put("2", parent="1", writer=b"you")
        assert await tenant.writes("1", sent, expect_writer=b"me", request_id=b"once") == 0
        with pytest.raises(VersionConflict):
            await tenant.writes("1", sent, expect_writer=b"me", request_id=b"another")
        assert await tenant.written("1", "task", INTERRUPT) == content

    async def test_all_replaced_calls_are_remembered_for_as_long_as_the_checkpoint_lives(self, tenant: Tenant) -> None:
        await tenant.put("1")
        for n in range(20):
            await tenant.writes("1", write("task", ERROR, "__error__", b"%d" % n), request_id=b"call %d" % n)
        for n in range(20):
            await tenant.writes("1", write("task", ERROR, "__error__", b"%d" % n), request_id=b"call %d" % n)
        assert [w.value.data for w in (await tenant.read("1")).pending_writes] == [b"19"]
        query = "SELECT count(*) FROM checkpointd.replaced_writes WHERE thread = $1"
        assert (await tenant.select(query, tenant.key()))[0][0] == 19
        await tenant.delete()
        assert (await tenant.select(query, tenant.key()))[0][0] == 0

    async def test_they_are_known_where_they_found_some_writes_there(self, tenant: Tenant) -> None:
        await tenant.put("1", writer=b"me")
        await tenant.writes("1", write("task", 0, "a", b"first"), request_id=b"first")
        sent = [write("task", 0, "a", b"second"), write("task", 1, "b", b"second")]
        await tenant.writes("1", *sent, expect_writer=b"me", request_id=b"second")
        await tenant.put("2", parent="1", writer=b"you")
        assert await tenant.writes("1", *sent, expect_writer=b"me", request_id=b"second") == 0
        assert [w.value.data for w in (await tenant.read("1")).pending_writes] == [b"first", b"second"]

    async def test_writes_that_stored_nothing_are_refused_as_ever(self, tenant: Tenant) -> None:
        """Nothing shows that they came before, since none of them is stored."""
        await tenant.put("1", writer=b"me")
        await tenant.writes("1", write("task", 0, "a", b"first"))
        for sent in ([write("task", 0, "a", b"second")], []):
            await tenant.writes("1", *sent, expect_writer=b"me", request_id=b"once")
            await tenant.put("2", parent="1", writer=b"you")
            with pytest.raises(VersionConflict):
                await tenant.writes("1", *sent, expect_writer=b"me", request_id=b"once")
            await tenant.put("3", parent="1", writer=b"me")

    async def test_a_request_id_is_for_one_call(self, tenant: Tenant) -> None:
        """With the same id and other writes, what is stored stays as it is, and new writes are stored or refused."""
        version = await tenant.put("1", writer=b"me")
        first, other = write("task", ERROR, "__error__", b"first"), write("task", ERROR, "__error__", b"other")
        more = write("task", 0, "a", b"more")
        await tenant.writes("1", first, request_id=b"once")
        assert await tenant.writes("1", other, expect=version, request_id=b"once") == version
        assert (await tenant.read("1")).pending_writes == [first]
        assert await tenant.writes("1", other, more, expect=version, request_id=b"once") == version
        assert (await tenant.read("1")).pending_writes == [first, more]
        await tenant.put("2", parent="1", writer=b"you")
        assert await tenant.writes("1", other, expect=version, request_id=b"once") == 0
        with pytest.raises(VersionConflict):
            await tenant.writes("1", first, write("task", 1, "b", b""), expect=version, request_id=b"once")
        assert (await tenant.read("1")).pending_writes == [first, more]

    async def test_a_request_id_belongs_to_its_task_checkpoint_and_thread(self, tenant: Tenant) -> None:
        stranger = Tenant(tenant.store, f"{tenant.name}-stranger")

        async def send(who: Tenant, checkpoint_id: str = "1", task: str = "task", **where: Any) -> int:
            return await who.writes(
                checkpoint_id, write(task, ERROR, "__error__", b"e"), expect_writer=b"me", request_id=b"once", **where
            )

        namespaces: list[tuple[Tenant, dict[str, Any]]] = [
            (tenant, {}),
            (tenant, {"thread": "u"}),
            (tenant, {"ns": "n"}),
            (stranger, {}),
        ]
        for who, where in namespaces:
            await who.put("1", writer=b"me", **where)
            if not where and who is tenant:
                await send(who)
            await who.put("2", parent="1", writer=b"you", **where)
        assert await send(tenant) == 0
        elsewhere = [*namespaces[1:], (tenant, {"checkpoint_id": "2"}), (tenant, {"task": "other task"})]
        for who, where in elsewhere:
            with pytest.raises(VersionConflict):
                await send(who, **where)

    async def test_a_copied_thread_does_not_know_them(self, tenant: Tenant) -> None:
        await tenant.put("1", writer=b"me")
        sent = write("task", 0, "a", b"A")
        await tenant.writes("1", sent, request_id=b"once")
        await tenant.copy("t", "copy")
        with pytest.raises(VersionConflict):
            await tenant.writes("1", sent, thread="copy", expect_writer=b"me", request_id=b"once")

    async def test_deletion_forgets_them(self, tenant: Tenant) -> None:
        version = await tenant.put("1", writer=b"me")
        sent = write("task", 0, "a", b"A")
        await tenant.writes("1", sent, request_id=b"once")
        await tenant.delete()
        with pytest.raises(VersionConflict):
            await tenant.writes("1", sent, expect=version, expect_writer=b"me", request_id=b"once")

    async def test_what_was_copied_is_replaced_and_forgotten(self, tenant: Tenant) -> None:
        await tenant.put("1", thread="source")
        await tenant.writes("1", write("task", ERROR, "__error__", b"old"), thread="source", request_id=b"old")
        await tenant.copy("source", "t")
        await tenant.writes("1", write("task", ERROR, "__error__", b"new"), request_id=b"new")
        assert (await tenant.read("1")).pending_writes == [write("task", ERROR, "__error__", b"new")]
        query = "SELECT count(*) FROM checkpointd.replaced_writes WHERE tenant = $1"
        assert (await tenant.select(query, tenant.name))[0][0] == 0

    async def test_without_a_request_id_they_count_as_new(self, tenant: Tenant) -> None:
        version = await tenant.put("1")
        first, second = (write("task", INTERRUPT, "__interrupt__", data) for data in (b"1", b"2"))
        for sent in (first, second, first):
            await tenant.writes("1", sent, expect=version)
            assert (await tenant.read("1")).pending_writes == [sent]
        await tenant.put("2")
        with pytest.raises(VersionConflict):
            await tenant.writes("1", first, expect=version)

    async def test_many_at_once_are_known_too(self, tenant: Tenant) -> None:
        """When a group commit stores them, and when they share one again."""
        sent = {f"t{i}": write("task", INTERRUPT, "__interrupt__", b"%d" % i) for i in range(30)}
        await asyncio.gather(*(tenant.put("1", thread=thread, writer=b"me") for thread in sent))

        async def all_of_them(name: bytes, data: bytes = b"") -> list[int]:
            return await asyncio.gather(
                *(
                    tenant.writes(
                        "1",
                        one._replace(value=value(data or one.value.data)),
                        thread=thread,
                        expect_writer=b"me",
                        request_id=name,
                    )
                    for thread, one in sent.items()
                )
            )

        versions = await all_of_them(b"first")
        assert await all_of_them(b"second", b"newer") == versions
        assert await all_of_them(b"first") == versions
        await asyncio.gather(*(tenant.put("2", thread=thread, writer=b"you") for thread in sent))
        assert await all_of_them(b"first") == [0] * 30
        assert await all_of_them(b"second", b"newer") == [0] * 30
        for thread, one in sent.items():
            stored = (await tenant.read("1", thread=thread)).pending_writes
            assert stored == [one._replace(value=value(b"newer"))]


async def test_no_more_is_stored_beside_a_checkpoint_than_can_be_read(own_options: StoreOptions) -> None:
    """The size is checked now and then: the more a call brings, the more likely."""
    options = replace(own_options, limits=replace(own_options.limits, max_written_bytes=500_000))
    async with open_store(options) as store:
        tenant = Tenant(store, "tenant")
        n = 0

        async def fill() -> None:
            nonlocal n
            for n in range(1000):
                await tenant.writes("1", *(write(f"task{n}", i, "a", b"", path="p" * 4000) for i in range(10)))

        with pytest.raises(InvalidArgument) as full:
            await fill()
        assert (full.value.field, full.value.limit) == ("writes", 500_000)
        # Each call brings some 40 kB, and the size is checked about every 64 kB.
        assert 500_000 < 40_000 * n < 1_500_000
        await tenant.writes("2", write("task", 0, "a", b""))
        await tenant.put("1")
        assert len((await tenant.read("1")).pending_writes) == 10 * n
