"""Lists of threads, as the store reads them: order, pages, filters, content, changes."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgpack
import pytest

from checkpointd_server.domain.errors import InvalidArgument, LeaseHeld, ThreadArchived, ThreadNotFound
from checkpointd_server.domain.thread_lists import MAX_TAGS, Thread, ThreadFilter, ThreadStatus
from tests.support.tenant import TIMEOUT, Tenant, write

IDLE, RUNNING, INTERRUPTED, FAILED = (
    ThreadStatus.IDLE,
    ThreadStatus.RUNNING,
    ThreadStatus.INTERRUPTED,
    ThreadStatus.FAILED,
)


async def pages(tenant: Tenant, wanted: ThreadFilter | None = None, *, size: int = 100) -> list[list[Thread]]:
    """All pages of a list."""
    found: list[list[Thread]] = []
    after = None
    while not found or after is not None:
        page = await tenant.threads(wanted, after=after, page_size=size)
        found.append(page.threads)
        after = page.after
    return found


async def names(tenant: Tenant, wanted: ThreadFilter | None = None, *, size: int = 100) -> list[str]:
    return [thread.thread_id for page in await pages(tenant, wanted, size=size) for thread in page]


async def get(tenant: Tenant, thread: str = "t") -> Thread:
    return await tenant.store.get_thread(tenant.name, thread, timeout=TIMEOUT)


async def count(tenant: Tenant, wanted: ThreadFilter | None = None) -> int:
    found = await tenant.store.count_threads(tenant.name, wanted or ThreadFilter(), timeout=TIMEOUT)
    assert found.is_complete
    return found.number


class TestOrder:
    async def test_newest_activity_comes_first_to_the_microsecond(self, tenant: Tenant) -> None:
        order = [f"t{n}" for n in range(12)]
        for thread in order:
            await tenant.put("1", thread=thread)
        random.Random(1).shuffle(order)
        for thread in order:
            await tenant.writes("1", write("task", 0, "a", b"x"), thread=thread)
        for size in (1, 5, 100):
            assert await names(tenant, size=size) == order[::-1]

    async def test_pages_are_full_and_the_last_says_so(self, tenant: Tenant) -> None:
        for n in range(6):
            await tenant.put("1", thread=f"t{n}")
        assert [len(page) for page in await pages(tenant, size=3)] == [3, 3]
        assert [len(page) for page in await pages(tenant, size=4)] == [4, 2]

    async def test_what_holds_nothing_is_not_listed(self, tenant: Tenant) -> None:
        await tenant.acquire("me", thread="leased")
        await tenant.put("1", thread="deleted")
        await tenant.delete("deleted")
        with pytest.raises(Exception, match="expected version 7"):
            await tenant.put("1", thread="deleted", expect=7)
        assert await names(tenant) == []
        with pytest.raises(ThreadNotFound):
            await get(tenant, "deleted")
        await tenant.put("1", thread="deleted")
        assert await names(tenant) == ["deleted"]

    async def test_other_tenants_are_not_seen(self, tenant: Tenant) -> None:
        await tenant.put("1")
        other = Tenant(tenant.store, f"{tenant.name}-other")
        assert (await names(other), await count(other)) == ([], 0)


class TestFilters:
    @pytest.fixture(autouse=True)
    async def _threads(self, tenant: Tenant) -> None:
        await tenant.put("1", thread="user-1:a", metadata={"user": "u1", "n": 1, "nested": {"list": [1, {"x": "y"}]}})
        await tenant.put("1", thread="user-1:b", metadata={"user": "u1", "n": 2.0})
        await tenant.put("1", thread="user-2:a", metadata={"user": "u2", "step": 1})
        await tenant.put("2", thread="user-2:a", metadata={"user": "u3", "step": 2})
        await tenant.put("1", thread="user-2:a", ns="sub", metadata={"user": "u4"})
        await tenant.tag("user-1:b", customer="acme", note="")

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({"prefix": "user-1:"}, ["user-1:b", "user-1:a"]),
            ({"prefix": "user-2"}, ["user-2:a"]),
            ({"prefix": "user-1:a%"}, []),
            ({"metadata": '{"user": "u1"}'}, ["user-1:b", "user-1:a"]),
            ({"metadata": '{"user": "u1", "n": 2}'}, ["user-1:b"]),
            ({"metadata": '{"n": 1.0}'}, ["user-1:a"]),
            ({"metadata": '{"nested": {"list": [{"x": "y"}]}}'}, ["user-1:a"]),
            ({"metadata": '{"nested": {}}'}, ["user-1:a"]),
            ({"metadata": '{"user": "u2"}'}, []),
            ({"metadata": '{"user": "u3"}'}, ["user-2:a"]),
            ({"metadata": '{"user": "u4"}'}, []),
            ({"metadata": '{"step": 2}'}, ["user-2:a"]),
            ({"metadata": "{}"}, ["user-2:a", "user-1:b", "user-1:a"]),
            ({"tags": {"customer": "acme"}}, ["user-1:b"]),
            ({"tags": {"customer": "acme", "note": ""}}, ["user-1:b"]),
            ({"tags": {"customer": "other"}}, []),
            ({"tags": {"user": "u1"}}, []),
            ({"prefix": "user-1:", "metadata": '{"n": 2}', "tags": {"note": ""}}, ["user-1:b"]),
        ],
        ids=str,
    )
    async def test_all_that_is_asked_must_hold(
        self, wanted: dict[str, Any], expected: list[str], tenant: Tenant
    ) -> None:
        assert await names(tenant, ThreadFilter(**wanted)) == expected
        assert await names(tenant, ThreadFilter(**wanted), size=1) == expected
        assert await count(tenant, ThreadFilter(**wanted)) == len(expected)

    async def test_times_are_from_and_before(self, tenant: Tenant) -> None:
        middle = await get(tenant, "user-1:b")
        for name in ("created", "active"):
            at = getattr(middle, f"{name}_at")
            assert await names(tenant, ThreadFilter(**{f"{name}_from": at})) == ["user-2:a", "user-1:b"]
            assert await names(tenant, ThreadFilter(**{f"{name}_before": at})) == ["user-1:a"]
            after = at + timedelta(microseconds=1)
            assert await names(tenant, ThreadFilter(**{f"{name}_from": at, f"{name}_before": after})) == ["user-1:b"]

    async def test_what_changes_is_found_by_what_it_is_now(self, tenant: Tenant) -> None:
        await tenant.tag("user-1:b", remove=["note"], customer="other")
        assert await names(tenant, ThreadFilter(tags={"customer": "acme"})) == []
        assert (await get(tenant, "user-1:b")).tags == {"customer": "other"}
        await tenant.delete_runs("none")
        await tenant.put("3", thread="user-2:a", metadata={"user": "u5", "run_id": f"run {tenant.name}"})
        assert await names(tenant, ThreadFilter(metadata='{"user": "u3"}')) == []
        await tenant.delete_runs(f"run {tenant.name}")
        assert await names(tenant, ThreadFilter(metadata='{"user": "u3"}')) == ["user-2:a"]


class TestStatus:
    async def status(self, tenant: Tenant) -> ThreadStatus:
        """Returns a thread's status, and checks that all queries agree on it."""
        status = (await get(tenant)).status
        for other in ThreadStatus:
            assert await names(tenant, ThreadFilter(statuses=[other])) == (["t"] if other is status else [])
        assert await names(tenant, ThreadFilter(statuses=list(ThreadStatus))) == ["t"]
        return status

    async def test_of_a_run_from_its_input_to_its_end(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"__start__": "1"}, values={"__start__": b"\x01"})
        assert await self.status(tenant) is RUNNING
        assert (await get(tenant)).next == ["__start__"]
        await tenant.put("2", versions={"__start__": "2", "branch:to:ask": "2"}, values={"branch:to:ask": b"\xc0"})
        assert (await get(tenant)).next == ["ask"]
        await tenant.writes("2", write("task", -3, "__interrupt__", msgpack.packb(["sure?"])))
        assert await self.status(tenant) is INTERRUPTED
        await tenant.writes("2", write("task", -4, "__resume__", b"\xc3"), write("task", -1, "__error__", b"\xa3bad"))
        assert await self.status(tenant) is FAILED
        await tenant.put(
            "3", versions={"branch:to:ask": "3", "__pregel_tasks": "3"}, values={"__pregel_tasks": b"\x90"}
        )
        assert await self.status(tenant) is IDLE
        assert (await get(tenant)).next == []

    async def test_signals_go_with_the_latest_checkpoint(self, tenant: Tenant) -> None:
        await tenant.put("1", metadata={"run_id": "r1"})
        await tenant.writes("1", write("task", -3, "__interrupt__", b"\xc3"))
        await tenant.put("2", metadata={"run_id": f"r2 {tenant.name}"})
        assert await self.status(tenant) is IDLE
        await tenant.delete_runs(f"r2 {tenant.name}")
        assert await self.status(tenant) is INTERRUPTED
        await tenant.copy("t", "copied")
        assert (await get(tenant, "copied")).status is INTERRUPTED

    async def test_writes_that_come_before_their_checkpoint_count(self, tenant: Tenant) -> None:
        await tenant.writes("1", write("task", -3, "__interrupt__", b"\xc3"))
        await tenant.put("1")
        assert await self.status(tenant) is INTERRUPTED

    async def test_signals_are_shown_unless_they_are_large(self, tenant: Tenant) -> None:
        await tenant.put("1")
        large = msgpack.packb("x" * 20_000)
        await tenant.writes(
            "1", write("a", -3, "__interrupt__", msgpack.packb([1])), write("b", -1, "__error__", large)
        )
        first, second = (await get(tenant)).signals
        assert (first.task_id, first.is_error, first.data) == ("a", False, msgpack.packb([1]))
        assert (second.task_id, second.is_error, second.data, second.size) == ("b", True, None, len(large))


class TestArchive:
    async def test_it_leaves_the_lists_and_comes_back(self, tenant: Tenant) -> None:
        await tenant.put("1")
        await tenant.put("1", thread="other")
        assert await tenant.archive()
        assert not await tenant.archive()
        assert await names(tenant) == ["other"]
        assert await names(tenant, ThreadFilter(is_archived=True)) == ["t"]
        assert (await get(tenant)).archived_at is not None
        assert await tenant.archive(archives=False)
        assert not await tenant.archive(archives=False)
        assert set(await names(tenant)) == {"t", "other"}
        await tenant.put("2")

    async def test_it_is_read_only_and_kept(self, tenant: Tenant) -> None:
        await tenant.put("1", metadata={"run_id": f"run {tenant.name}"}, versions={"a": "1"}, values={"a": b"A"})
        lease = await tenant.acquire("me")
        await tenant.archive(lease=lease.token)
        before = await get(tenant)
        for attempt in (
            tenant.put("2"),
            tenant.put("2", lease=lease.token),
            tenant.writes("1", write("task", 0, "a", b"x")),
            tenant.delete("t"),
            tenant.prune("t"),
            tenant.delete_runs(f"run {tenant.name}"),
            tenant.acquire("you", wait=30),
        ):
            with pytest.raises(ThreadArchived):
                await attempt
        assert (await tenant.get()).checkpoint is not None
        # Attempts count as activity, too.
        assert replace(await get(tenant), active_at=before.active_at) == before
        await tenant.copy("t", "copied")
        await tenant.put("2", thread="copied")
        await tenant.tag(noted="yes")
        assert (await get(tenant)).tags == {"noted": "yes"}

    async def test_a_leased_thread_is_its_holder_s(self, tenant: Tenant) -> None:
        await tenant.put("1")
        await tenant.acquire("me")
        with pytest.raises(LeaseHeld):
            await tenant.archive()

    async def test_what_is_not_there_is_said(self, tenant: Tenant) -> None:
        for attempt in (tenant.archive(), tenant.archive(archives=False), tenant.tag(a="b")):
            with pytest.raises(ThreadNotFound):
                await attempt


async def test_tags_are_bounded(tenant: Tenant) -> None:
    await tenant.put("1")
    await tenant.tag(**{f"n{n}": "x" for n in range(MAX_TAGS)})
    with pytest.raises(InvalidArgument, match="more than 64"):
        await tenant.tag(more="x")
    await tenant.tag(remove=["n0"], more="x")
    assert len((await get(tenant)).tags) == MAX_TAGS


async def test_counts_bytes_and_metadata_are_told(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"x" * 5000}, metadata={"user": "u"})
    await tenant.put("2", ns="sub", metadata={"user": "other"})
    thread = await get(tenant)
    assert (thread.checkpoints, thread.checkpoint_id, thread.metadata) == (2, "1", '{"user": "u"}')
    assert 5000 < thread.bytes < 5500
    assert thread.created_at <= thread.active_at


async def test_nodes_are_the_checkpoints_in_pages(tenant: Tenant) -> None:
    await tenant.put("1", metadata={"step": -1, "source": "input"})
    await tenant.put("2", parent="1", metadata={"step": 0, "source": "loop", "run_id": "r"})
    await tenant.put("2", ns="sub")
    await tenant.put("3", parent="1", metadata={"step": 0, "source": "fork"})
    await tenant.writes("2", write("t", 0, "a", b"x"), write("t", -3, "__interrupt__", b"\xc3"))
    found, after = [], None
    while True:
        nodes, after = await tenant.store.list_nodes(tenant.name, "t", after=after, page_size=1, timeout=TIMEOUT)
        found += nodes
        if after is None:
            break
    assert [(node.checkpoint_id, node.checkpoint_ns, node.parent_checkpoint_id) for node in found] == [
        ("3", "", "1"),
        ("2", "", "1"),
        ("2", "sub", None),
        ("1", "", None),
    ]
    assert (found[1].step, found[1].source, found[1].run_id) == ("0", "loop", "r")
    assert (found[1].writes, found[1].is_interrupted, found[1].has_failed) == (2, True, False)
