"""Putting checkpoints: upsert, versions, preconditions, repetition."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from checkpointd_server.domain.checkpoints import Namespace, PutCheckpoint
from checkpointd_server.domain.errors import InvalidArgument, VersionConflict
from checkpointd_server.domain.values import ChannelValue, StoredValue, TypedValue
from tests.support.tenant import TIMEOUT, Tenant, gather_results, value

# Allowed in any text field: quotes, escapes, wildcards, other alphabets, everything but NUL.
HOSTILE = "a'b\"c\\d%e_f;--\n\t$1 {x} __schema__ \u00e9\u4e16\U0001f600\ufffe\x01\x7f"


async def test_a_checkpoint_comes_back_as_it_was_put(tenant: Tenant) -> None:
    await tenant.put("1")
    version = await tenant.put(
        "2", parent="1", versions={"a": "1", "b": "2"}, values={"a": b"A", "b": b"\x00\xff"}, metadata={"step": 1}
    )
    result = await tenant.get("2")
    stored = await tenant.read("2")
    assert result.version == stored.version == version
    assert (stored.thread_id, stored.checkpoint_ns, stored.checkpoint_id) == ("t", "", "2")
    assert stored.parent_checkpoint_id == "1"
    assert stored.body == b"body"
    assert (stored.channels, stored.channel_versions) == (["a", "b"], ["1", "2"])
    assert stored.metadata == value(b'{"step": 1}')
    assert sorted(result.values) == [
        StoredValue(0, "a", "1", value(b"A")),
        StoredValue(0, "b", "2", value(b"\x00\xff")),
    ]
    assert stored.pending_writes == []


async def test_a_checkpoint_put_again_is_replaced(tenant: Tenant) -> None:
    await tenant.put("1", parent="0", versions={"a": "1"}, values={"a": b"old"}, metadata={"n": 1})
    await tenant.put("1", parent=None, versions={"a": "1"}, values={"a": b"new"}, body=b"other", metadata={"n": 2})
    stored = await tenant.read("1")
    assert (stored.parent_checkpoint_id, stored.body, stored.metadata.data) == (None, b"other", b'{"n": 2}')
    assert await tenant.values("1") == {"a": b"new"}
    assert await tenant.ids() == ["1"]


async def test_unchanged_channels_keep_the_value_of_the_version_that_wrote_it(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"A1", "b": b"B1"})
    await tenant.put("2", parent="1", versions={"a": "2", "b": "1"}, values={"a": b"A2"})
    assert await tenant.values("2") == {"a": b"A2", "b": b"B1"}
    assert await tenant.values("1") == {"a": b"A1", "b": b"B1"}


async def test_a_channel_that_is_empty_at_its_version_has_no_value(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"A"})
    await tenant.put("2", versions={"a": "2"}, values={"a": None})
    assert await tenant.values("2") == {}
    assert (await tenant.read("2")).channel_versions == ["2"]
    await tenant.put("1", versions={"a": "1"}, values={"a": None})
    assert await tenant.values("1") == {}


async def test_a_channel_that_left_the_checkpoint_does_not_reappear(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1", "b": "1"}, values={"a": b"A", "b": b"B"})
    await tenant.put("2", versions={"b": "1"})
    assert await tenant.values("2") == {"b": b"B"}


async def test_an_empty_value_is_a_value(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b""})
    assert await tenant.values("1") == {"a": b""}


async def test_every_text_field_takes_hostile_text(tenant: Tenant) -> None:
    namespace = Namespace(tenant.name + HOSTILE, "thread" + HOSTILE, "ns" + HOSTILE)
    put = PutCheckpoint(
        namespace=namespace,
        checkpoint_id="id" + HOSTILE,
        parent_checkpoint_id="parent" + HOSTILE,
        body=HOSTILE.encode(),
        channels=[HOSTILE, ""],
        channel_versions=["version" + HOSTILE, ""],
        values=[ChannelValue(HOSTILE, "version" + HOSTILE, TypedValue(HOSTILE, b"v"))],
        metadata=TypedValue(HOSTILE, b"m"),
        metadata_index="{}",
        run_id=HOSTILE,
    )
    await tenant.store.write(put, timeout=TIMEOUT)
    result = await tenant.store.get_checkpoint(namespace, put.checkpoint_id, timeout=TIMEOUT)
    stored = result.checkpoint
    assert stored is not None
    assert (stored.thread_id, stored.checkpoint_ns) == (namespace.thread_id, namespace.checkpoint_ns)
    assert stored.checkpoint_id == put.checkpoint_id
    assert stored.parent_checkpoint_id == put.parent_checkpoint_id
    assert (stored.channels, stored.channel_versions) == (put.channels, put.channel_versions)
    assert result.values == [StoredValue(0, channel, version, v) for channel, version, v in put.values if v is not None]
    assert stored.metadata == put.metadata
    assert await tenant.store.delete_runs(namespace.tenant, [HOSTILE], timeout=TIMEOUT) == 1


@pytest.mark.parametrize("thread", ["NUL\0", "lone surrogate \ud800"])
async def test_text_that_postgresql_cannot_hold_is_refused(tenant: Tenant, thread: str) -> None:
    with pytest.raises(InvalidArgument):
        await tenant.put("1", thread=thread)


async def test_a_metadata_index_that_is_no_jsonb_is_refused_and_nothing_stored(tenant: Tenant) -> None:
    with pytest.raises(InvalidArgument):
        await tenant.put("1", versions={"a": "1"}, values={"a": b"A"}, metadata={"key": "\0"})
    assert await tenant.get() == (None, 0, [])
    assert await tenant.stored_values() == set()


async def test_versions_grow_with_every_put_and_only_with_puts(tenant: Tenant) -> None:
    first = await tenant.put("1")
    await tenant.writes("1")
    assert await tenant.version() == first
    second = await tenant.put("1")
    third = await tenant.put("0")
    assert 0 < first < second < third == await tenant.version()


async def test_versions_belong_to_a_namespace(tenant: Tenant) -> None:
    version = await tenant.put("1")
    await tenant.put("1", ns="child:1")
    await tenant.put("1", thread="other")
    assert await tenant.version() == version
    assert await tenant.version(ns="unknown") == 0


async def test_versions_are_never_used_twice_not_even_over_a_deletion(tenant: Tenant) -> None:
    before = await tenant.put("1")
    await tenant.delete()
    assert await tenant.version() == 0
    after = await tenant.put("1")
    assert after > before
    with pytest.raises(VersionConflict):
        await tenant.put("2", expect=before)


async def test_a_put_that_expects_the_current_version_is_accepted(tenant: Tenant) -> None:
    first = await tenant.put("1", expect=0)
    second = await tenant.put("2", expect=first)
    assert await tenant.version() == second


async def test_a_put_that_expects_another_version_conflicts_and_stores_nothing(tenant: Tenant) -> None:
    first = await tenant.put("1", versions={"a": "1"}, values={"a": b"A"})
    second = await tenant.put("2")
    with pytest.raises(VersionConflict) as conflict:
        await tenant.put("3", versions={"a": "2"}, values={"a": b"B"}, expect=first)
    assert conflict.value.thread_id == "t"
    assert conflict.value.checkpoint_ns == ""
    assert conflict.value.expected_version == first
    assert conflict.value.current_version == second
    assert conflict.value.current_checkpoint_id == "2"
    assert await tenant.version() == second
    assert await tenant.ids() == ["1", "2"]
    assert await tenant.stored_values() == {("a", "1")}


async def test_a_put_that_expects_nothing_conflicts_where_something_is(tenant: Tenant) -> None:
    version = await tenant.put("1")
    with pytest.raises(VersionConflict) as conflict:
        await tenant.put("2", expect=0)
    assert (conflict.value.expected_version, conflict.value.current_version) == (0, version)


async def test_a_put_that_expects_something_conflicts_where_nothing_is(tenant: Tenant) -> None:
    with pytest.raises(VersionConflict) as conflict:
        await tenant.put("2", expect=7, expect_writer=b"me")
    assert (conflict.value.current_version, conflict.value.current_checkpoint_id) == (0, None)


async def test_a_writer_goes_on_after_its_own_put_whatever_the_version(tenant: Tenant) -> None:
    await tenant.put("1", writer=b"me", expect=0)
    await tenant.put("2", writer=b"me", expect=0, expect_writer=b"me")
    await tenant.put("3", writer=b"me", expect=1, expect_writer=b"me")
    await tenant.put("4", writer=b"me", expect_writer=b"me")
    await tenant.put("5", writer=b"you")
    for expect in (None, 0, 1):
        with pytest.raises(VersionConflict):
            await tenant.put("6", writer=b"me", expect=expect, expect_writer=b"me")


async def test_no_writer_is_not_a_writer(tenant: Tenant) -> None:
    version = await tenant.put("1", writer=b"")
    with pytest.raises(VersionConflict) as conflict:
        await tenant.put("2", expect_writer=b"me")
    assert (conflict.value.expected_version, conflict.value.current_version) == (None, version)


async def test_deletion_ends_the_run_that_was_under_way(tenant: Tenant) -> None:
    version = await tenant.put("1", writer=b"me")
    await tenant.delete()
    with pytest.raises(VersionConflict):
        await tenant.put("2", writer=b"me", expect=version, expect_writer=b"me")
    assert await tenant.get() == (None, 0, [])


async def test_of_many_puts_that_expect_the_same_version_one_wins(tenant: Tenant) -> None:
    for round_ in range(5):
        version = await tenant.version()
        results = await gather_results(*(tenant.put(f"{round_}-{n}", expect=version) for n in range(16)))
        won = [result for result in results if isinstance(result, int)]
        lost = [result for result in results if isinstance(result, VersionConflict)]
        assert (len(won), len(lost)) == (1, 15)
        assert {conflict.current_version for conflict in lost} == set(won)
        assert len(await tenant.ids()) == round_ + 1


async def test_unconditional_puts_at_once_are_all_stored_with_versions_of_their_own(tenant: Tenant) -> None:
    versions = await asyncio.gather(*(tenant.put(f"{n:02}") for n in range(40)))
    assert len(set(versions)) == 40
    assert await tenant.version() == max(versions)
    assert len(await tenant.ids()) == 40


async def test_a_put_sent_again_changes_nothing_and_answers_the_same(tenant: Tenant) -> None:
    version = await tenant.put("1", expect=0, writer=b"me", request_id=b"r1")
    assert await tenant.put("1", expect=0, writer=b"me", request_id=b"r1") == version
    assert await tenant.version() == version


async def test_a_put_sent_again_after_another_put_changes_nothing(tenant: Tenant) -> None:
    first = await tenant.put("1", body=b"first", writer=b"me", request_id=b"r1")
    second = await tenant.put("2", writer=b"you", request_id=b"r2", expect=first)
    for expect in (None, 0, first):
        assert await tenant.put("1", body=b"again", writer=b"me", request_id=b"r1", expect=expect) == first
    assert await tenant.version() == second
    assert (await tenant.read("1")).body == b"first"


async def test_a_put_that_arrives_twice_at_once_is_stored_once(tenant: Tenant) -> None:
    for n in range(10):
        base = await tenant.version()
        expect = base if n % 2 else None
        versions = await asyncio.gather(
            *(tenant.put(str(n), request_id=b"r%d" % n, expect=expect) for _ in range(8)),
        )
        assert len(set(versions)) == 1
        assert await tenant.version() == versions[0]


async def test_the_same_request_in_another_thread_is_another_put(tenant: Tenant) -> None:
    first = await tenant.put("1", thread="a", request_id=b"r")
    assert await tenant.put("1", thread="b", request_id=b"r") != first


def expectations(version: int) -> list[dict[str, Any]]:
    """Returns no precondition, and those that hold after the put of `version` by b"me"."""
    return [{}, {"expect": version}, {"expect_writer": b"me"}]


async def test_the_last_put_s_request_for_another_checkpoint_is_refused(tenant: Tenant) -> None:
    version = await tenant.put("1", writer=b"me", request_id=b"r")
    for expectation in expectations(version):
        with pytest.raises(InvalidArgument, match="request_id: is that of the namespace's last put") as caught:
            await tenant.put("2", request_id=b"r", **expectation)
        assert caught.value.field == "request_id"
    assert (await tenant.ids(), await tenant.version()) == (["1"], version)


async def test_a_put_sent_again_after_its_checkpoint_was_pruned_changes_nothing(tenant: Tenant) -> None:
    await tenant.put("2")
    version = await tenant.put("1", writer=b"me", request_id=b"r")
    await tenant.prune("t")
    assert await tenant.ids() == ["2"]
    for expectation in expectations(version):
        assert await tenant.put("1", writer=b"me", request_id=b"r", **expectation) == version
    assert await tenant.ids() == ["2"]


async def test_puts_and_deletions_at_once_leave_whole_checkpoints_or_none(tenant: Tenant) -> None:
    async def put(n: int) -> None:
        await tenant.put(str(n), versions={"a": str(n)}, values={"a": b"%d" % n})

    for _ in range(10):
        await asyncio.gather(*(put(n) for n in range(8)), tenant.delete(), tenant.delete())
        ids = await tenant.ids()
        assert bool(ids) == bool(await tenant.version())
        assert await tenant.stored_values() == {("a", checkpoint_id) for checkpoint_id in ids}
        await tenant.delete()
