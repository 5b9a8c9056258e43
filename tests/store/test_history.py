"""Delta histories, compared with a plain model of the rule."""

from __future__ import annotations

import random
from typing import Any

import asyncpg
import pytest

from checkpointd_server.domain.checkpoints import TaskWrite
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.values import StoredValue
from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.delta_history import MAX_STEPS
from tests.support.long_history import fill
from tests.support.tenant import Tenant, patch, value, write


class Model:
    """A namespace in memory, walked as by LangGraph's in-memory saver."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.values: dict[tuple[str, str], bytes] = {}
        self.writes: dict[str, list[TaskWrite]] = {}

    def history(self, target: str, channel: str) -> tuple[list[TaskWrite], bytes | None]:
        collected: list[TaskWrite] = []
        current = self.parents.get(target)
        while current is not None and current in self.parents:
            ordered = sorted(self.writes.get(current, ()), key=lambda w: (w.task_path, w.task_id, w.idx))
            collected = [w for w in ordered if w.channel == channel] + collected
            stored = self.values.get((channel, self.versions[current].get(channel, "")))
            if stored is not None:
                return collected, stored
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
        # Mostly a chain, with forks, more roots and missing parents.
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
        for page_bytes in (1, 300, 1_000_000):
            history = await tenant.whole_history(*channels, at=target, page_bytes=page_bytes)
            for channel, found in history.items():
                expected = model.history(ids[-1] if target is None else target, channel)
                assert found == expected, (target, channel, page_bytes)


async def test_the_targets_own_writes_are_left_out_and_the_seeds_taken_in(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"seed"})
    await tenant.writes("1", write("task", 0, "a", b"w1"))
    await tenant.put("2", parent="1", versions={"a": "2"})
    await tenant.writes("2", write("task", 0, "a", b"w2"))
    version = await tenant.put("3", parent="2", versions={"a": "3"}, values={"a": b"own"})
    await tenant.writes("3", write("task", 0, "a", b"w3"))
    history = await tenant.history("a")
    assert history.version == version
    assert history.channels[0].seed_version == "1"
    assert history.values == [StoredValue(0, "a", "1", value(b"seed"))]
    assert [(at, w.value.data) for at, w in history.channels[0].writes] == [("2", b"w2"), ("1", b"w1")]


async def test_a_seed_comes_with_what_it_is_built_on(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"base"})
    await tenant.put("2", parent="1", versions={"a": "2"}, values={"a": patch("1", b"seed")})
    await tenant.put("3", parent="2", versions={"a": "3"})
    history = await tenant.history("a")
    assert history.channels[0].seed_version == "2"
    assert [(row.channel, row.version) for row in history.values] == [("a", "2"), ("a", "1")]


async def test_the_answer_has_the_order_of_the_request(tenant: Tenant) -> None:
    await tenant.put("1", versions={"a": "1"}, values={"a": b"seed"})
    version = await tenant.put("2", parent="1")
    history = await tenant.history("z", "a", "b")
    assert [(entry.channel, entry.seed_version) for entry in history.channels] == [("z", None), ("a", "1"), ("b", None)]
    assert await tenant.history() == ([], version, [], None)


async def test_parents_in_a_circle_end_the_walk(tenant: Tenant) -> None:
    await tenant.put("1", parent="3")
    await tenant.put("2", parent="1")
    await tenant.put("3", parent="2")
    for n in (1, 2, 3):
        await tenant.writes(str(n), write("task", 0, "a", f"w{n}".encode()))
    for page_bytes in (1, 1_000_000):
        written, _ = (await tenant.whole_history("a", at="3", page_bytes=page_bytes))["a"]
        assert [w.value.data for w in written][-2:] == [b"w1", b"w2"]
    await tenant.put("self", parent="self")
    assert len((await tenant.history("a", at="self")).channels[0].writes) <= 1


async def test_a_page_is_bounded_and_the_next_goes_on_within_a_step(tenant: Tenant) -> None:
    """A hundred tasks write in each step: more than a message holds."""
    await tenant.put("1", versions={"a": "1"}, values={"a": b"seed"})
    await tenant.put("2", parent="1", versions={"a": "2"})
    await tenant.put("3", parent="2", versions={"a": "3"})
    for at in ("1", "2"):
        await tenant.writes(at, *(write(f"task{n:03}", 0, "a", b"%d" % n + b"x" * 15_000) for n in range(100)))
    pages, after, seen = 0, None, []
    while True:
        page = await tenant.history("a", after=after, page_bytes=100_000)
        pages += 1
        seen += page.channels[0].writes
        assert sum(len(w.value.data) for _, w in page.channels[0].writes) < 120_000
        after = page.after
        if after is None:
            break
    assert pages >= 25
    assert [(at, w.task_id) for at, w in seen] == [(at, f"task{n:03}") for at in ("2", "1") for n in range(100)]
    assert page.channels[0].seed_version == "1"


async def test_what_a_page_ended_with_may_be_deleted_before_the_next(tenant: Tenant) -> None:
    """The history doesn't end there: the caller gets an error."""
    for n in range(1, 6):
        await tenant.put(f"{n}", parent=f"{n - 1}", versions={"a": "1"}, metadata={"run_id": f"run {n}"})
        await tenant.writes(f"{n}", write("task", 0, "a", b"x"))
    page = await tenant.history("a", page_bytes=1)
    assert page.after is not None
    await tenant.delete_runs("run 3")
    assert len((await tenant.history("a", after=page.after)).channels[0].writes) == 0
    await tenant.delete_runs("run 4")
    with pytest.raises(InvalidArgument, match="page_token"):
        await tenant.history("a", after=page.after)


@pytest.mark.parametrize("token", ["", "x", "[]", "{}", "[1]", '[[],"a",1,2,3,4,5]', '[["a"],null]'])
async def test_a_page_token_of_somebody_else_is_refused(tenant: Tenant, token: str) -> None:
    await tenant.put("1")
    with pytest.raises(InvalidArgument, match="page_token"):
        await tenant.history("a", after=token)


class Counting(Tenant):
    """Counts the pages that it reads."""

    pages = 0

    async def history(self, *channels: str, **where: Any) -> Any:
        self.pages += 1
        return await super().history(*channels, **where)


@pytest.mark.parametrize("ancestors", [1200, pytest.param(5000, marks=pytest.mark.long)])
async def test_unknown_channels_cost_no_more_than_pages(own_options: StoreOptions, ancestors: int) -> None:
    """A thousand channels over thousands of ancestors: no page exceeds its steps or needs a temporary file."""
    connection = await asyncpg.connect(own_options.dsn)
    temporary = "SELECT temp_files FROM pg_stat_database WHERE datname = current_database()"
    before = await connection.fetchval(temporary)
    await connection.execute(fill("long", ancestors + 1))
    async with open_store(own_options) as store:
        tenant = Tenant(store, "t")
        channels = [f"unknown{n}" for n in range(1000)]
        pages, after = 0, None
        while pages == 0 or after is not None:
            page = await tenant.history(*channels, thread="long", after=after)
            assert page.values == []
            pages, after = pages + 1, page.after
        assert pages <= ancestors / MAX_STEPS + 1
    assert await connection.fetchval(temporary) == before
    await connection.close()


async def test_five_thousand_ancestors_are_a_few_calls(own_options: StoreOptions) -> None:
    connection = await asyncpg.connect(own_options.dsn)
    await connection.execute(fill("long", 5001))
    await connection.execute("DELETE FROM checkpointd.channel_values WHERE channel = 'a' AND version <> 'v1'")
    await connection.close()
    async with open_store(own_options) as store:
        tenant = Counting(store, "t")
        written, seed = (await tenant.whole_history("a", thread="long"))["a"]
        assert tenant.pages <= 5000 / MAX_STEPS + 1
        assert len(written) == 15_000
        assert seed == b"value"
