"""Delta histories, compared with a plain model of the rule."""

from __future__ import annotations

import random
import time

import asyncpg
import pytest

from checkpointd_server.domain.model import TaskWrite, TypedValue
from checkpointd_server.store import StoreOptions, open_store
from tests.store.long_history import FILL
from tests.support.tenant import TIMEOUT, Tenant, value, write


class Model:
    """A namespace in memory: the walk as LangGraph's in-memory saver makes it."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.values: dict[tuple[str, str], bytes] = {}
        self.writes: dict[str, list[TaskWrite]] = {}

    def history(self, target: str, channel: str) -> tuple[list[TaskWrite], TypedValue | None]:
        collected: list[TaskWrite] = []
        current = self.parents.get(target)
        while current is not None and current in self.parents:
            ordered = sorted(self.writes.get(current, ()), key=lambda w: (w.task_path, w.task_id, w.idx))
            collected = [w for w in ordered if w.channel == channel] + collected
            stored = self.values.get((channel, self.versions[current].get(channel, "")))
            if stored is not None:
                return collected, value(stored)
            current = self.parents[current]
        return collected, None


@pytest.mark.parametrize("seed", range(5))
async def test_histories_are_those_of_the_model(tenant: Tenant, seed: int) -> None:
    rng = random.Random(seed)
    channels = ["a", "b", "c", "never"]
    model = Model()
    ids: list[str] = []
    for n in range(40):
        checkpoint_id = f"{n:03}"
        # Mostly a chain, with forks, roots of their own and parents that aren't there.
        parent = rng.choice([*ids[-1:], *ids[-1:], *ids[-1:], *ids[-8:], None, "gone"]) if ids else None
        versions = dict(model.versions.get(parent or "", {}))
        values: dict[str, bytes | None] = {}
        for channel in channels[:3]:
            if rng.random() < 0.5:
                versions[channel] = f"{n}"
                if rng.random() < 0.2:
                    values[channel] = f"{channel}{n}".encode()
                elif rng.random() < 0.5:
                    values[channel] = None
        await tenant.put(checkpoint_id, parent=parent, versions=versions, values=values)
        model.parents[checkpoint_id], model.versions[checkpoint_id] = parent, versions
        model.values |= {(c, versions[c]): data for c, data in values.items() if data is not None}
        writes = [
            write(f"task{rng.randrange(9)}-{i}", i, rng.choice(channels), f"{n}.{i}".encode(), path=rng.choice("xy"))
            for i in range(rng.randrange(4))
        ]
        await tenant.writes(checkpoint_id, *writes)
        model.writes[checkpoint_id] = writes
        ids.append(checkpoint_id)
    for target in [*ids, None, "unknown"]:
        history = await tenant.history(*channels, at=target)
        for entry in history.channels:
            expected = model.history(ids[-1] if target is None else target, entry.channel)
            assert (entry.writes, entry.seed) == expected, (target, entry.channel)


async def test_the_targets_own_writes_are_left_out_and_the_seeds_taken_in(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"seed"})
    await tenant.writes("1", write("task", 0, "a", b"w1"))
    await tenant.put("2", parent="1", versions={"a": "2"})
    await tenant.writes("2", write("task", 0, "a", b"w2"))
    version = await tenant.put("3", parent="2", versions={"a": "3"}, values={"a": b"own"})
    await tenant.writes("3", write("task", 0, "a", b"w3"))
    history = await tenant.history("a")
    assert history.version == version
    assert history.channels[0].seed == value(b"seed")
    assert [w.value.data for w in history.channels[0].writes] == [b"w1", b"w2"]


async def test_the_answer_has_the_order_of_the_request(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"seed"})
    version = await tenant.put("2", parent="1")
    history = await tenant.history("z", "a", "b")
    assert [(entry.channel, entry.seed) for entry in history.channels] == [
        ("z", None),
        ("a", value(b"seed")),
        ("b", None),
    ]
    assert await tenant.history() == ([], version, [])


async def test_parents_in_a_circle_end_the_walk(tenant: Tenant) -> None:
    await tenant.put("1", parent="3")
    await tenant.put("2", parent="1")
    await tenant.put("3", parent="2")
    for n in (1, 2, 3):
        await tenant.writes(str(n), write("task", 0, "a", f"w{n}".encode()))
    history = await tenant.history("a", at="3")
    written = [w.value.data for w in history.channels[0].writes]
    assert written[-2:] == [b"w1", b"w2"]
    await tenant.put("self", parent="self")
    assert len((await tenant.history("a", at="self")).channels[0].writes) == 0


async def test_five_thousand_ancestors_are_one_quick_call(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    await connection.execute(FILL.format(thread="long", last=5001))
    await connection.execute("DELETE FROM checkpointd.channel_values WHERE channel = 'a' AND version <> 'v1'")
    await connection.close()
    async with open_store(own_options) as store:
        tenant = Tenant(store, "t")
        started = time.monotonic()
        history = await tenant.history("a", thread="long")
        assert time.monotonic() - started < TIMEOUT / 6
        assert len(history.channels[0].writes) == 15_000
        assert history.channels[0].seed == TypedValue("json", b"value")
