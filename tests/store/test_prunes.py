"""Pruning: what is deleted, and what must never be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from checkpointd_server.domain.errors import VersionConflict
from checkpointd_server.domain.threads import PruneStrategy
from tests.support.tenant import Tenant, value, write

INTERRUPT = -3


async def _chain(tenant: Tenant, *ids: str, ns: str = "", **put: Any) -> None:
    """A chain of checkpoints, each with a new value of "a", the same value of "same", and a write."""
    parent = None
    for checkpoint_id in ids:
        values: dict[str, bytes | None] = {"a": checkpoint_id.encode()}
        if parent is None:
            values["same"] = b"same"
        await tenant.put(
            checkpoint_id, ns=ns, parent=parent, versions={"a": checkpoint_id, "same": "0"}, values=values, **put
        )
        await tenant.writes(checkpoint_id, write("task", 0, "a", b"w"), ns=ns)
        parent = checkpoint_id


async def test_the_newest_checkpoint_stays_whole(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2", "3")
    before = await tenant.get()
    assert before.checkpoint is not None
    assert await tenant.prune("t") == 2
    assert await tenant.get() == before._replace(checkpoint=replace(before.checkpoint, parent_checkpoint_id=None))
    assert await tenant.ids() == ["3"]
    assert await tenant.stored_values() == {("a", "3"), ("same", "0")}
    left = await tenant.select("SELECT checkpoint_id FROM checkpointd.task_writes WHERE tenant = $1", tenant.name)
    assert [row["checkpoint_id"] for row in left] == ["3"]
    assert await tenant.prune("t") == 0


async def test_the_newest_has_the_greatest_id(tenant: Tenant) -> None:
    await tenant.put("2")
    await tenant.put("1")
    await tenant.prune("t")
    assert await tenant.ids() == ["2"]


async def test_every_namespace_keeps_its_newest(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    await _chain(tenant, "1", "2", ns="child:1")
    await _chain(tenant, "1", "2", ns="memory")
    assert await tenant.prune("t", "unknown", "t") == 3
    assert [await tenant.ids(ns=ns) for ns in ("", "child:1", "memory")] == [["2"], ["2"], ["2"]]


async def test_threads_that_are_not_named_stay(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    await tenant.put("1", thread="other")
    await tenant.put("2", thread="other")
    assert await tenant.prune() == 0
    await tenant.prune("t")
    assert await tenant.ids(thread="other") == ["1", "2"]


async def test_deleting_removes_the_threads(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    await tenant.put("1", thread="t2", ns="child")
    await tenant.writes("1", write("task", 0, "a", b""), thread="t3")
    assert await tenant.prune("t", "t2", "t3", "unknown", strategy=PruneStrategy.DELETE) == 3
    assert await tenant.listed() == []
    await tenant.put("1", thread="t3")
    assert (await tenant.read(thread="t3")).pending_writes == []


async def test_a_subgraphs_call_goes_with_its_root_checkpoint(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    await _chain(tenant, "1a", "1b", ns="node:done", metadata={"step": 1, "parents": {"": "1"}})
    await _chain(tenant, "1c", ns="node:done|1", metadata={"step": 1, "parents": {"": "1", "node:done": "1b"}})
    await _chain(tenant, "2a", "2b", ns="node:pending", metadata={"step": 1, "parents": {"": "2"}})
    await _chain(tenant, "0a", ns="node:early", metadata={"step": 1, "parents": {"": "unknown"}})
    await _chain(tenant, "1m", "2m", ns="memory", metadata={"step": 1, "parents": {"": "1"}})
    assert await tenant.prune("t") == 1 + 2 + 1 + 1 + 1
    assert {(c.checkpoint_ns, c.checkpoint_id) for c in await tenant.listed(thread_id="t")} == {
        ("", "2"),
        ("node:pending", "2b"),
        ("node:early", "0a"),
        ("memory", "2m"),
    }
    assert await tenant.version(ns="node:done") == 0
    assert await tenant.stored_values(ns="node:done") == set()


async def test_pending_interrupts_stay(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    call, nested = "node:task", "node:task|inner:task"
    await _chain(tenant, "2a", "2b", ns=call, metadata={"step": 1, "parents": {"": "2"}})
    await _chain(tenant, "2c", "2d", ns=nested, metadata={"step": 1, "parents": {"": "2", call: "2b"}})
    for checkpoint_id, ns in (("2", ""), ("2b", call), ("2d", nested)):
        await tenant.writes(checkpoint_id, write("task", INTERRUPT, "__interrupt__", b"?"), ns=ns)
    await tenant.prune("t")
    for ns in ("", call, nested):
        assert INTERRUPT in [w.idx for w in (await tenant.read(ns=ns)).pending_writes]


async def _delta_chain(tenant: Tenant, *, seed: str, metadata: dict[str, Any], last: int = 6) -> None:
    """A chain from 1 to last whose channel "d" is stored only at `seed`; each checkpoint has a write to it."""
    for n in range(1, last + 1):
        values: dict[str, bytes | None] = {"a": b"a"}
        if str(n) == seed:
            values["d"] = b"snapshot"
        await tenant.put(
            str(n),
            parent=str(n - 1) if n > 1 else None,
            versions={"a": str(n), "d": str(n), "branch:to:x": "1", "gone": "1"},
            values=values,
            metadata=metadata,
        )
        await tenant.writes(str(n), write("task", 0, "d", f"w{n}".encode()), write("task", 1, "branch:to:x", b""))


COUNTED = {"step": 5, "counters_since_delta_snapshot": {"d": [3, 3], "other": [1, 1]}}


@pytest.mark.parametrize(
    ("seed", "kept"), [("6", ["6"]), ("5", ["5", "6"]), ("3", ["3", "4", "5", "6"]), ("never", list("123456"))]
)
async def test_a_delta_channel_keeps_the_way_to_its_nearest_value(tenant: Tenant, seed: str, kept: list[str]) -> None:
    await _delta_chain(tenant, seed=seed, metadata=COUNTED)
    before = await tenant.history("d")
    await tenant.prune("t")
    assert await tenant.ids() == kept
    if seed != "6":
        assert await tenant.history("d") == before
        assert [row.value for row in before.values] == ([value(b"snapshot")] if seed != "never" else [])


async def test_channels_that_langgraphs_loop_does_not_count_keep_nothing(tenant: Tenant) -> None:
    await _delta_chain(tenant, seed="3", metadata={"step": 5, "source": "loop"})
    await tenant.prune("t")
    assert await tenant.ids() == ["6"]


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"step": 5},
        *({"step": 5, "source": source} for source in ("fork", "update", "input")),
        {"step": 5, "source": "loop", "delta_writes_versioned": True},
        {"step": 5, "source": "fork", "counters_since_delta_snapshot": None, "delta_writes_versioned": True},
    ],
)
async def test_where_nobody_counts_empty_channels_with_writes_do(tenant: Tenant, metadata: dict[str, Any]) -> None:
    """Withheld metadata, manual updates and copies of LangGraph up to 1.2.11, and LangGraph.js."""
    await _delta_chain(tenant, seed="3", metadata=metadata)
    before = await tenant.history("d")
    await tenant.prune("t")
    assert await tenant.ids() == ["3", "4", "5", "6"]
    assert await tenant.history("d") == before


async def test_a_counted_channel_without_a_version_keeps_its_writes(tenant: Tenant) -> None:
    """An old LangGraph.js stored a first manual write like this. Without writes there is nothing to rebuild."""
    metadata = {"step": 1, "source": "loop", "counters_since_delta_snapshot": {"d": [1, 1]}}
    for thread in ("written", "unwritten"):
        for n in (1, 2, 3):
            await tenant.put(str(n), thread=thread, parent=str(n - 1), metadata=metadata)
    await tenant.writes("1", write("task", 0, "d", b"w"), thread="written")
    await tenant.prune("written", "unwritten")
    assert await tenant.ids(thread="written") == ["1", "2", "3"]
    assert await tenant.ids(thread="unwritten") == ["3"]


async def test_sends_beside_the_parent_stay(tenant: Tenant) -> None:
    """Up to format 3 they are pending for the newest checkpoint."""
    await _chain(tenant, "1", "2", "3")
    await tenant.writes("2", write("task", 1, "__pregel_tasks", b"send"))
    assert await tenant.prune("t") == 1
    assert [w.channel for w in (await tenant.read("2")).pending_writes] == ["a", "__pregel_tasks"]
    assert (await tenant.read("3")).parent_checkpoint_id == "2"
    assert (await tenant.read("2")).parent_checkpoint_id is None


async def test_several_delta_channels_keep_the_longest_way(tenant: Tenant) -> None:
    metadata = {"step": 1, "counters_since_delta_snapshot": {"d": [1, 1], "e": [1, 1]}}
    for n in range(1, 7):
        values: dict[str, bytes | None] = {}
        if n == 5:
            values["d"] = b"D"
        if n == 2:
            values["e"] = b"E"
        await tenant.put(
            str(n), parent=str(n - 1), versions={"d": str(n), "e": str(n)}, values=values, metadata=metadata
        )
    await tenant.prune("t")
    assert await tenant.ids() == ["2", "3", "4", "5", "6"]


async def test_a_run_under_way_goes_on_undisturbed(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    base = await tenant.put("3", parent="2", versions={"a": "2"}, writer=b"me")
    await tenant.prune("t")
    assert await tenant.version() == base
    await tenant.writes("3", write("task", 0, "a", b""), expect=base)
    await tenant.put("4", parent="3", versions={"a": "2"}, writer=b"me", expect=base)
    await tenant.prune("t")
    await tenant.put("5", parent="4", versions={"a": "2"}, writer=b"me", expect=base, expect_writer=b"me")
    assert await tenant.values() == {"a": b"2"}


async def test_a_run_that_builds_on_what_was_pruned_is_told(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2", "3")
    base = await tenant.version()
    await tenant.prune("t")
    with pytest.raises(VersionConflict) as conflict:
        await tenant.put("4", parent="1", versions={"a": "1"}, expect=base)
    assert conflict.value.current_version == base
    await tenant.put("4", parent="3", versions={"a": "3"}, expect=base)


async def test_a_run_whose_last_put_was_pruned_is_told(tenant: Tenant) -> None:
    await tenant.put("9", writer=b"you")
    await tenant.put("1", writer=b"me")  # its clock is behind
    await tenant.prune("t")
    with pytest.raises(VersionConflict):
        await tenant.put("2", parent="1", writer=b"me", expect_writer=b"me")


async def test_what_is_kept_names_no_parent_that_is_gone(tenant: Tenant) -> None:
    await _chain(tenant, "1", "2")
    await tenant.prune("t")
    assert (await tenant.read()).parent_checkpoint_id is None
    await tenant.put("1", thread="u", parent="0")  # its parent was deleted before, with a run
    await tenant.prune("u")
    assert (await tenant.read(thread="u")).parent_checkpoint_id is None
