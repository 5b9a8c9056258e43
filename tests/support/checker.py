"""Compares agents' journals with the store's contents, through a saver and in the database itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.grpc import GrpcSaver

from tests.support.gates import build, turns_of
from tests.support.journal import Line, of
from tests.support.storm_agent import CONTESTED

_OF_THREAD = "thread = (SELECT t.thread FROM checkpointd.threads AS t WHERE t.thread_id = $1)"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A thread in the database."""

    versions: Mapping[str, int]
    """The version of each checkpoint."""
    head: int
    """The namespace's version."""
    values: Counter[str]
    """The number of values for each version of the channel "a". Agents use the checkpoint's id as the version; it is
    stored with a prefix that marks it as text."""


async def check(journals: Sequence[Iterable[Line]], *, target: str, dsn: str) -> Counter[str]:
    """Raises AssertionError if anything acknowledged is lost, duplicated or changed, or if a refused write left traces.
    Returns the number of each event."""
    lines = [line for journal in journals for line in journal]
    bad = of(lines, "failed", "wrong")
    assert not bad, "\n".join(f"{line.thread_id}: {line.event}: {line.detail}" for line in bad)
    threads: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        threads[line.thread_id].append(line)
    connection = await asyncpg.connect(dsn)
    try:
        async with GrpcSaver(target) as saver:
            for thread_id, written in threads.items():
                stored = await _stored(connection, thread_id)
                if written[0].kind == "turn":
                    await _check_turns(saver, thread_id, written, stored)
                else:
                    await _check_puts(saver, thread_id, written, stored)
    finally:
        await connection.close()
    return Counter(f"{line.kind} {line.event}" for line in lines)


async def _stored(connection: Any, thread_id: str) -> Stored:
    rows = await connection.fetch(
        f"SELECT checkpoint_id, version FROM checkpointd.checkpoints WHERE {_OF_THREAD} AND checkpoint_ns = ''",
        thread_id,
    )
    values = await connection.fetch(
        f"SELECT version FROM checkpointd.channel_values WHERE {_OF_THREAD} AND channel = 'a'", thread_id
    )
    head = await connection.fetchval(
        f"SELECT version FROM checkpointd.namespaces WHERE {_OF_THREAD} AND checkpoint_ns = ''", thread_id
    )
    versions = {row["checkpoint_id"]: row["version"] for row in rows}
    assert len(set(versions.values())) == len(rows), f"{thread_id}: a version came twice"
    assert (head or 0) == max(versions.values(), default=0), f"{thread_id}: the head is not at the last version"
    return Stored(versions=versions, head=head or 0, values=Counter(row["version"].removeprefix("s") for row in values))


async def _check_turns(saver: GrpcSaver, thread_id: str, written: list[Line], stored: Stored) -> None:
    """Checks that each turn that reported success is stored once, completely, and in order."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    said = list((await build(saver).aget_state(config)).values.get("said", []))
    done = [line.name for line in of(written, "acknowledged")]
    assert said == [word for name in done for word in turns_of(name)], f"{thread_id}: {said[-8:]}, done: {done[-2:]}"
    history = [saved async for saved in saver.alist({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})]
    ids = [saved.checkpoint["id"] for saved in history]
    assert ids == sorted(stored.versions, reverse=True), f"{thread_id}: the list differs from the database"
    _check_order(thread_id, stored, ids[::-1])
    parents = [saved.parent_config and saved.parent_config["configurable"]["checkpoint_id"] for saved in history]
    assert parents == [*ids[1:], None], f"{thread_id}: the chain of checkpoints is broken"


async def _check_puts(saver: GrpcSaver, thread_id: str, written: list[Line], stored: Stored) -> None:
    """Checks that each acknowledged put is stored with its value and writes, and that refused ones left nothing."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    found: dict[str, CheckpointTuple] = {}
    async for saved in saver.alist(config):
        assert saved.checkpoint["id"] not in found, f"{thread_id}: a checkpoint came twice"
        found[saved.checkpoint["id"]] = saved
    assert set(found) == set(stored.versions), f"{thread_id}: the list differs from the database"
    puts = [line for line in written if line.kind != "writes"]
    values = {line.name: line.value for line in of(puts, "intended")}
    acknowledged = of(puts, "acknowledged")
    names = {line.name for line in acknowledged}
    refused = {line.name for line in of(puts, "refused")}
    assert names <= set(found), f"{thread_id}: lost: {sorted(names - set(found))}"
    assert not refused & set(found), f"{thread_id}: refused, but stored: {sorted(refused & set(found))}"
    assert set(found) <= set(values), f"{thread_id}: never written: {sorted(set(found) - set(values))}"
    once = Counter(found.keys())
    assert not stored.values - once, f"{thread_id}: values without a checkpoint, or doubled: {stored.values - once}"
    assert not once - stored.values, f"{thread_id}: values that are lost: {once - stored.values}"
    for name, saved in found.items():
        assert saved.checkpoint["channel_values"] == {"a": values[name]}, f"{thread_id}: {name} was changed"
    # The outcome of the last writes of a killed agent is unknown.
    settled = {name: {line.event for line in written if line.kind == "writes" and line.name == name} for name in found}
    for name, events in settled.items():
        writes = [("task", "a", f"written beside {name}"), ("task", "b", 2)]
        pending = found[name].pending_writes or []
        if "acknowledged" in events:
            assert pending == writes, f"{thread_id}: writes beside {name}: {pending}"
        elif "refused" in events:
            assert pending == [], f"{thread_id}: refused, but stored: writes beside {name}: {pending}"
        elif not events:
            assert pending == [], f"{thread_id}: never written: writes beside {name}"
    if not thread_id.endswith(CONTESTED):
        _check_order(thread_id, stored, [line.name for line in acknowledged])
    for line in acknowledged:
        if line.kind == "versioned":
            assert stored.versions[line.name] == line.version, f"{thread_id}: the version of {line.name} has changed"


def _check_order(thread_id: str, stored: Stored, names: list[str]) -> None:
    """Checks that versions grow in the order of a writer's writes."""
    versions = [stored.versions[name] for name in names]
    assert versions == sorted(versions), f"{thread_id}: versions don't grow: {versions}"
