"""Retention: what policies keep and what they pass over, and that dry runs announce what is done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from checkpointd_server.domain.errors import InvalidArgument, ThreadPinned
from checkpointd_server.domain.retention import (
    MAX_POLICIES,
    RetentionAction,
    RetentionEffect,
    RetentionOutcome,
    RetentionPolicy,
)
from checkpointd_server.domain.thread_lists import ThreadFilter
from checkpointd_server.domain.threads import PruneStrategy
from checkpointd_server.store import StoreOptions, open_store
from tests.support.tenant import TIMEOUT, Tenant, patch, write
from tests.support.until import auntil

DAY = 86_400
LONG_CHAIN = 600
"""Enough checkpoints that deleting them one by one takes a while."""
DELETING = (
    "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%retain_thread%' AND pid <> pg_backend_pid()"
)


async def history(tenant: Tenant, number: int, *, thread: str = "t", run: str | None = None, start: int = 0) -> None:
    """Puts checkpoints "000", "001" and so on, each with a value of its own."""
    for n in range(start, start + number):
        metadata: dict[str, Any] = {"run_id": run} if run else {}
        await tenant.put(
            f"{n:03}",
            thread=thread,
            parent=f"{n - 1:03}" if n else None,
            versions={"a": f"{n:03}", "fixed": "1"},
            values={"a": b"x" * 100, **({"fixed": b"same"} if n == 0 else {})},
            metadata=metadata,
        )


async def names(tenant: Tenant) -> set[str]:
    return {thread.thread_id for thread in (await tenant.threads()).threads}


def told(effects: list[RetentionEffect]) -> list[tuple[str, str, str, int]]:
    return sorted((effect.thread_id, effect.action.value, effect.reason, effect.checkpoints) for effect in effects)


async def apply(tenant: Tenant) -> list[tuple[str, str, str, int]]:
    """Applies the policies, and checks that the dry run announced the same."""
    said = told(await tenant.preview())
    effects = await tenant.retain()
    assert all(effect.outcome is RetentionOutcome.DONE for effect in effects)
    assert told(effects) == said
    assert await tenant.preview() == []
    return said


class TestPolicies:
    async def test_they_are_stored_replaced_listed_and_deleted(self, tenant: Tenant) -> None:
        await tenant.set_policy(
            "b", prefix="user:", metadata='{"app": "x"}', max_idle_seconds=5, deletes_interrupted=True
        )
        await tenant.set_policy("a", keep_newest=3)
        await tenant.set_policy("a", max_age_seconds=7, keep_last_of_run=True, max_bytes=9, hold_seconds=1)
        found = await tenant.store.retention.list_policies(tenant.name, timeout=TIMEOUT)
        assert [policy.name for policy in found] == ["a", "b"]
        a, b = found
        assert (a.max_age_seconds, a.keep_newest, a.keep_last_of_run, a.max_bytes, a.hold_seconds) == (
            7,
            None,
            True,
            9,
            1,
        )
        assert (b.prefix, b.metadata, b.max_idle_seconds, b.deletes_interrupted) == ("user:", '{"app": "x"}', 5, True)
        assert await tenant.store.retention.delete_policy(tenant.name, "a", timeout=TIMEOUT)
        assert not await tenant.store.retention.delete_policy(tenant.name, "a", timeout=TIMEOUT)
        assert len(await tenant.store.retention.list_policies(tenant.name, timeout=TIMEOUT)) == 1

    async def test_there_are_no_more_than_so_many(self, tenant: Tenant) -> None:
        for n in range(MAX_POLICIES):
            await tenant.set_policy(f"{n}", keep_newest=1)
        await tenant.set_policy("0", keep_newest=2)
        with pytest.raises(InvalidArgument, match="100 policies"):
            await tenant.set_policy("one more", keep_newest=1)

    async def test_other_tenants_are_never_touched(self, tenant: Tenant) -> None:
        other = Tenant(tenant.store, f"{tenant.name}-other")
        for one in (tenant, other):
            await history(one, 3)
            await one.age(10 * DAY)
        await tenant.set_policy(max_idle_seconds=DAY)
        assert await other.preview() == []
        assert await other.retain() == []
        assert await apply(tenant) == [("t", "delete", "max_idle", 3)]
        assert await other.ids() == ["000", "001", "002"]
        assert await other.store.retention.list_policies(other.name, timeout=TIMEOUT) == []


class TestIdle:
    async def test_threads_go_that_nobody_has_written_to(self, tenant: Tenant) -> None:
        for thread in ("old", "new"):
            await history(tenant, 2, thread=thread)
        await tenant.age(DAY + 5, "old")
        await tenant.set_policy(max_idle_seconds=DAY)
        assert await apply(tenant) == [("old", "delete", "max_idle", 2)]
        assert await names(tenant) == {"new"}
        assert await tenant.stored_values(thread="old") == set()

    async def test_only_those_that_the_policy_means(self, tenant: Tenant) -> None:
        for thread, app in (("user:a", "x"), ("user:b", "y"), ("job:a", "x")):
            await tenant.put("1", thread=thread, metadata={"app": app})
            await tenant.age(DAY + 5, thread)
        await tenant.set_policy(prefix="user:", metadata='{"app": "x"}', max_idle_seconds=DAY)
        assert await apply(tenant) == [("user:a", "delete", "max_idle", 1)]

    async def test_the_strictest_of_several_counts(self, tenant: Tenant) -> None:
        await history(tenant, 1)
        await tenant.age(2 * DAY)
        await tenant.set_policy("long", max_idle_seconds=3 * DAY)
        assert await apply(tenant) == []
        await tenant.set_policy("short", max_idle_seconds=DAY)
        (effect,) = await tenant.retain()
        assert effect.policy == "short"

    async def test_a_time_of_its_own(self, tenant: Tenant) -> None:
        await history(tenant, 1)
        await tenant.set_ttl(DAY)
        await tenant.age(DAY - 60)
        assert await apply(tenant) == []
        await tenant.age(120)
        assert await apply(tenant) == [("t", "delete", "ttl", 1)]

    async def test_a_read_may_count_as_use(self, tenant: Tenant) -> None:
        await history(tenant, 1)
        await tenant.set_ttl(DAY)
        await tenant.age(2 * DAY)
        await tenant.store.note_read(tenant.name, "t", timeout=TIMEOUT)
        assert await apply(tenant) == []

    async def test_an_interrupt_keeps_a_thread_unless_the_policy_says_otherwise(self, tenant: Tenant) -> None:
        await history(tenant, 2)
        await tenant.writes("001", write("task", -3, "__interrupt__", b"?"))
        await tenant.age(DAY + 5)
        await tenant.set_policy(max_idle_seconds=DAY)
        assert await apply(tenant) == []
        await tenant.set_policy(max_idle_seconds=DAY, deletes_interrupted=True)
        assert await apply(tenant) == [("t", "delete", "max_idle", 2)]

    async def test_a_large_thread_goes_in_steps(self, shared_options: StoreOptions, tenant: Tenant) -> None:
        await history(tenant, 25)
        await tenant.age(DAY + 5)
        await tenant.set_policy(max_idle_seconds=DAY)
        options = StoreOptions(dsn=shared_options.dsn, sweep_batch=10)
        async with open_store(options) as store:
            assert await apply(Tenant(store, tenant.name)) == [("t", "delete", "max_idle", 25)]
        assert await names(tenant) == set()

    async def test_a_heavy_thread_goes_with_all_that_it_has(self, tenant: Tenant) -> None:
        for n in range(3):
            await tenant.put(f"{n}", versions={"a": f"{n}"}, values={"a": b"x" * 600_000})
            await tenant.writes(f"{n}", write("task", 0, "a", b"y" * 1000))
        await tenant.age(DAY + 5)
        await tenant.set_policy(max_idle_seconds=DAY)
        assert await apply(tenant) == [("t", "delete", "max_idle", 3)]
        assert await names(tenant) == set()
        assert await tenant.stored_values() == set()
        for table in ("task_writes", "namespaces", "checkpoints"):
            assert await tenant.select(f"SELECT FROM checkpointd.{table} WHERE thread = $1", tenant.key()) == []

    async def test_of_a_history_that_is_needed_whole_nobody_sees_half_and_nobody_waits_for_all(
        self, shared_options: StoreOptions, tenant: Tenant
    ) -> None:
        counters = {"counters_since_delta_snapshot": {"log": 1}, "source": "loop"}
        await tenant.put("0000", versions={"log": "0"}, values={"log": b"seed"})
        for n in range(1, LONG_CHAIN):
            parent = f"{n - 1:04}"
            await tenant.writes(parent, write("task", 0, "log", b"%d" % n))
            await tenant.put(f"{n:04}", parent=parent, versions={"log": f"{n}"}, metadata=counters)
        await tenant.age(DAY + 5)
        await tenant.set_policy(max_idle_seconds=DAY)
        async with open_store(StoreOptions(dsn=shared_options.dsn, sweep_batch=1)) as store:
            sweeper = Tenant(store, tenant.name)
            running = asyncio.create_task(sweeper.retain())
            await auntil(lambda: tenant.select(DELETING), lambda found: bool(found))
            await tenant.put("9999", parent=f"{LONG_CHAIN - 1:04}", versions={"log": "x"}, metadata=counters)
            assert len(await tenant.ids()) == LONG_CHAIN + 1
            assert all(effect.outcome is not RetentionOutcome.DONE for effect in await running)
            assert len(await tenant.whole_history("log")) > 0
            await tenant.age(DAY + 5)
            assert told(await sweeper.retain()) == [("t", "delete", "max_idle", LONG_CHAIN + 1)]
        assert await names(tenant) == set()
        assert await tenant.stored_values() == set()


class TestHistory:
    async def test_the_newest_are_kept_with_their_values(self, tenant: Tenant) -> None:
        await history(tenant, 8)
        await tenant.set_policy(keep_newest=3)
        assert await apply(tenant) == [("t", "trim", "keep_newest", 5)]
        assert await tenant.ids() == ["005", "006", "007"]
        assert await tenant.stored_values() == {("a", "005"), ("a", "006"), ("a", "007"), ("fixed", "1")}
        assert await tenant.values("005") == {"a": b"x" * 100, "fixed": b"same"}
        assert (await tenant.read("005")).parent_checkpoint_id is None

    async def test_the_young_are_kept_and_always_the_newest(self, tenant: Tenant) -> None:
        await history(tenant, 5)
        await tenant.set_policy(max_age_seconds=DAY)
        await tenant.age(2 * DAY, below="003")
        assert await apply(tenant) == [("t", "trim", "max_age", 3)]
        assert await tenant.ids() == ["003", "004"]
        await tenant.age(2 * DAY, below="999")
        assert await apply(tenant) == [("t", "trim", "max_age", 1)]
        assert await tenant.ids() == ["004"]

    async def test_the_last_of_each_run_is_kept(self, tenant: Tenant) -> None:
        await history(tenant, 3, run="one")
        await history(tenant, 3, run="two", start=3)
        await history(tenant, 2, start=6)
        await tenant.set_policy(keep_last_of_run=True)
        assert await apply(tenant) == [("t", "trim", "keep_last_of_run", 4)]
        assert await tenant.ids() == ["002", "005", "006", "007"]
        assert await tenant.values("002") == {"a": b"x" * 100, "fixed": b"same"}

    async def test_the_oldest_go_until_the_thread_is_small_enough(self, tenant: Tenant) -> None:
        await history(tenant, 20)
        size = (await tenant.threads()).threads[0].bytes
        await tenant.set_policy(max_bytes=size // 2)
        ((_, action, reason, gone),) = await apply(tenant)
        assert (action, reason) == ("trim", "max_bytes")
        assert 8 <= gone <= 12
        assert (await tenant.threads()).threads[0].bytes <= size // 2
        await tenant.set_policy(max_bytes=1)
        await apply(tenant)
        assert await tenant.ids() == ["019"]

    async def test_chains_of_patches_stay_whole(self, tenant: Tenant) -> None:
        await tenant.put("1", versions={"a": "1"}, values={"a": b"A"})
        for n in range(2, 7):
            await tenant.put(f"{n}", versions={"a": f"{n}"}, values={"a": patch(f"{n - 1}", b"A" * n)})
        await tenant.put("7", versions={"a": "7"}, values={"a": b"whole"})
        await tenant.put("8", versions={"a": "8"}, values={"a": patch("7", b"whole!")})
        await tenant.set_policy(keep_newest=3)
        await apply(tenant)
        assert await tenant.ids() == ["6", "7", "8"]
        assert await tenant.stored_values() == {("a", f"{n}") for n in range(1, 9)}
        await tenant.set_policy(keep_newest=1)
        await apply(tenant)
        assert await tenant.stored_values() == {("a", "7"), ("a", "8")}

    @pytest.mark.parametrize("limits", [{"keep_newest": 2}, {"keep_last_of_run": True}], ids=str)
    async def test_delta_channels_stay_readable(self, limits: dict[str, Any], tenant: Tenant) -> None:
        counters = {"counters_since_delta_snapshot": {"log": 1}, "source": "loop", "run_id": "one"}
        await tenant.put("1", versions={"log": "1"}, values={"log": b"older"}, metadata={"run_id": "one"})
        await tenant.put("2", parent="1", versions={"log": "2"}, values={"log": b"seed"}, metadata={"run_id": "one"})
        for n in range(3, 7):
            await tenant.writes(f"{n - 1}", write("task", 0, "log", b"%d" % n))
            await tenant.put(f"{n}", parent=f"{n - 1}", versions={"log": f"{n}"}, metadata=counters)
        before = await tenant.whole_history("log")
        await tenant.set_policy(**limits)
        assert [gone for *_, gone in await apply(tenant)] == [1]
        assert await tenant.whole_history("log") == before

    async def test_calls_of_subgraphs_go_with_their_root_checkpoint(self, tenant: Tenant) -> None:
        for n in range(4):
            await tenant.put(f"{n}")
            for m in range(3):
                await tenant.put(f"{n}{m}", ns=f"node:{n}", metadata={"parents": {"": f"{n}"}})
            await tenant.put(f"{n}5", ns="memory", metadata={"parents": {"": f"{n}"}})
        await tenant.set_policy(keep_newest=2)
        assert await apply(tenant) == [("t", "trim", "keep_newest", 2 + 6 + 2)]
        assert [await tenant.ids(ns=ns) for ns in ("", "memory", "node:1", "node:2")] == [
            ["2", "3"],
            ["25", "35"],
            [],
            ["20", "21", "22"],
        ]

    async def test_a_run_goes_on_undisturbed_and_who_read_what_went_is_told(self, tenant: Tenant) -> None:
        version = 0
        for n in range(4):
            version = await tenant.put(f"{n}", writer=b"me", expect=version)
        await tenant.set_policy(keep_newest=1)
        await apply(tenant)
        with pytest.raises(Exception, match="expected version"):
            await tenant.put("5", parent="1", expect=version)
        await tenant.put("4", parent="3", expect_writer=b"me", expect_last="3")


class TestSpared:
    @pytest.fixture(autouse=True)
    async def _policies(self, tenant: Tenant) -> None:
        await history(tenant, 3)
        await tenant.age(2 * DAY)
        await tenant.set_policy(max_idle_seconds=DAY, keep_newest=1)

    async def test_archived(self, tenant: Tenant) -> None:
        await tenant.archive()
        assert await apply(tenant) == []
        await tenant.archive(archives=False)
        assert await apply(tenant) == [("t", "delete", "max_idle", 3)]

    async def test_leased(self, tenant: Tenant) -> None:
        await tenant.acquire("me")
        assert await apply(tenant) == []
        await tenant.release("me")
        assert await apply(tenant) == [("t", "delete", "max_idle", 3)]

    async def test_pinned(self, tenant: Tenant) -> None:
        await tenant.pin()
        assert await apply(tenant) == []
        with pytest.raises(ThreadPinned, match="unpin it first"):
            await tenant.delete()
        for strategy in PruneStrategy:
            with pytest.raises(ThreadPinned):
                await tenant.prune("t", strategy=strategy)
        await tenant.put("1", thread="other")
        with pytest.raises(ThreadPinned):
            await tenant.prune("other", "t", strategy=PruneStrategy.DELETE)
        assert await tenant.ids(thread="other") == ["1"]
        await tenant.pin(pins=False)
        assert await apply(tenant) == [("t", "delete", "max_idle", 3)]

    async def test_pinned_runs(self, tenant: Tenant) -> None:
        await tenant.put("9", metadata={"run_id": "run"})
        await tenant.pin()
        with pytest.raises(ThreadPinned):
            await tenant.delete_runs("run")
        await tenant.put("91")


class TestTried:
    async def test_a_policy_is_tried_in_place_of_its_namesake(self, tenant: Tenant) -> None:
        await history(tenant, 5)
        await tenant.set_policy("p", keep_newest=4)
        assert told(await tenant.preview(RetentionPolicy(name="p", keep_newest=5))) == []
        assert told(await tenant.preview(RetentionPolicy(name="q", keep_newest=1))) == [("t", "trim", "keep_newest", 4)]
        assert await tenant.ids() == ["000", "001", "002", "003", "004"]

    async def test_what_others_delete_is_not_its_doing(self, tenant: Tenant) -> None:
        for thread in ("trimmed", "idle", "expired", "both"):
            await history(tenant, 3, thread=thread)
        for thread in ("idle", "expired"):
            await tenant.age(2 * DAY, thread)
        await tenant.set_ttl(DAY, "expired")
        await tenant.set_policy("trims", prefix="trimmed", keep_newest=1)
        await tenant.set_policy("clears", prefix="idle", max_idle_seconds=DAY)
        await tenant.set_policy("strict", prefix="both", keep_newest=1)
        assert len(await tenant.preview()) == 4
        tried = RetentionPolicy(name="new", prefix="both", keep_newest=2)
        assert told(await tenant.preview(tried)) == [("both", "trim", "keep_newest", 1)]
        assert [effect.policy for effect in await tenant.preview(tried)] == ["new"]

    async def test_holds_of_others_count(self, tenant: Tenant) -> None:
        await history(tenant, 3)
        await tenant.set_policy("holds", max_idle_seconds=DAY, hold_seconds=60)
        (effect,) = await tenant.preview(RetentionPolicy(name="new", keep_newest=1))
        assert (effect.outcome, effect.policy, effect.hold_policy) == (RetentionOutcome.HELD, "new", "holds")


class TestAnnounced:
    async def test_what_goes_is_announced_and_goes_when_acknowledged(self, tenant: Tenant) -> None:
        await history(tenant, 5)
        await tenant.set_policy(keep_newest=2, hold_seconds=3600)
        (said,) = await tenant.preview()
        assert (said.outcome, said.hold_policy) == (RetentionOutcome.HELD, "p")
        assert await tenant.expiring() == []
        (effect,) = await tenant.retain()
        assert await tenant.preview() == [effect]
        assert (effect.outcome, effect.checkpoints) == (RetentionOutcome.HELD, 3)
        (entry,) = await tenant.expiring()
        assert (entry.thread_id, entry.action, entry.reason, entry.policy, entry.checkpoints) == (
            "t",
            RetentionAction.TRIM,
            "keep_newest",
            "p",
            3,
        )
        assert effect.until == entry.deadline_at
        await history(tenant, 2, start=5)
        assert [one.outcome for one in await tenant.retain()] == [RetentionOutcome.HELD]
        assert len(await tenant.ids()) == 7
        assert await tenant.store.retention.acknowledge(tenant.name, "t", entry.below, timeout=TIMEOUT)
        assert await tenant.expiring() == []
        (said,) = await tenant.preview()
        assert (said.outcome, said.checkpoints) == (RetentionOutcome.PLANNED, 3)
        assert told(await tenant.retain()) == [("t", "trim", "keep_newest", 3)]
        # Checkpoints that have become due since are announced again.
        assert [one.checkpoints for one in await tenant.retain()] == [2]
        assert await tenant.ids() == ["003", "004", "005", "006"]

    @pytest.mark.parametrize(
        ("policy", "kept"), [({"keep_newest": 1}, ["007"]), ({"keep_last_of_run": True}, ["006", "007"])]
    )
    async def test_all_that_takes_several_steps_is_announced_at_once(
        self, tenant: Tenant, shared_options: StoreOptions, policy: dict[str, Any], kept: list[str]
    ) -> None:
        goes = 8 - len(kept)
        await history(tenant, 8, run="r")
        await tenant.set_policy(hold_seconds=3600, **policy)
        async with open_store(StoreOptions(dsn=shared_options.dsn, sweep_batch=2)) as store:
            sweeper = Tenant(store, tenant.name)
            (held,) = await sweeper.retain()
            assert (held.outcome, held.checkpoints) == (RetentionOutcome.HELD, goes)
            (entry,) = await tenant.expiring()
            assert (entry.checkpoints, entry.below) == (goes, f"{goes - 1:03}\x01")
            assert await tenant.store.retention.acknowledge(tenant.name, "t", entry.below, timeout=TIMEOUT)
            assert [effect.checkpoints for effect in await sweeper.retain()] == [goes]
        assert await tenant.ids() == kept

    async def test_it_goes_at_the_deadline_too(self, tenant: Tenant) -> None:
        await history(tenant, 2)
        await tenant.age(2 * DAY)
        await tenant.set_policy(max_idle_seconds=DAY, hold_seconds=3600)
        await tenant.retain()
        assert [entry.below for entry in await tenant.expiring()] == [""]
        await tenant.select(
            "UPDATE checkpointd.retention_holds SET deadline_at = now() WHERE thread = $1", tenant.key()
        )
        assert [effect.outcome for effect in await tenant.preview()] == [RetentionOutcome.PLANNED]
        assert told(await tenant.retain()) == [("t", "delete", "max_idle", 2)]
        assert await tenant.expiring() == []

    async def test_the_longest_hold_counts_for_all_that_goes_also_by_a_time_to_live(self, tenant: Tenant) -> None:
        await history(tenant, 2)
        await tenant.age(2 * DAY)
        await tenant.set_ttl(DAY)
        await tenant.set_policy("short", max_age_seconds=900 * DAY, hold_seconds=60)
        await tenant.set_policy("long", max_age_seconds=900 * DAY, hold_seconds=3600)
        (effect,) = await tenant.retain()
        assert (effect.reason, effect.policy, effect.hold_policy) == ("ttl", "", "long")
        assert [entry.hold_policy for entry in await tenant.expiring()] == ["long"]

    async def test_a_thread_that_is_used_again_is_no_longer_announced(self, tenant: Tenant) -> None:
        await history(tenant, 1)
        await tenant.age(2 * DAY)
        await tenant.set_policy(max_idle_seconds=DAY, hold_seconds=3600)
        await tenant.retain()
        await tenant.put("5")
        assert await tenant.expiring() == []
        assert await tenant.retain() == []
        assert not await tenant.store.retention.acknowledge(tenant.name, "t", "", timeout=TIMEOUT)

    async def test_what_is_announced_of_a_deleted_thread_is_forgotten(self, tenant: Tenant) -> None:
        await history(tenant, 3)
        await tenant.set_policy(keep_newest=1, hold_seconds=3600)
        await tenant.retain()
        await tenant.delete()
        assert await tenant.expiring() == []
        assert len((await tenant.threads(ThreadFilter())).threads) == 0
