"""Large values and their task writes, edited at random: exact to the byte whatever happens to the thread.

A model knows what each checkpoint holds and what was written beside it. Between the edits threads are forked, copied
and pruned, runs are deleted, answers get lost, calls are cancelled, and savers are closed and lose their caches.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from langgraph.checkpoint.grpc import Encryption, GrpcSaver

from checkpointd_server.domain.threads import thread_key
from tests.support.calls import Calls, checkpoint, config_of
from tests.support.flaky_link import FlakyLink
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

Pending = list[tuple[str, str, Any]]
CHANNELS = ("messages", "files", "blob")
KEYS = {"a": bytes(32)}


@dataclass
class Saved:
    """What a checkpoint holds."""

    values: dict[str, Any]
    versions: dict[str, str]
    run: str
    pending: Pending = field(default_factory=list)


Model = dict[str, Saved]


def text(dice: random.Random, size: int) -> str:
    return dice.randbytes(size // 2 + 1).hex()[:size]


def first_values(dice: random.Random) -> dict[str, Any]:
    return {
        "messages": [{"id": n, "text": text(dice, 300)} for n in range(dice.randrange(60))],
        "files": {f"{n}.py": text(dice, dice.randrange(2000)) for n in range(10)},
        "blob": dice.randbytes(dice.choice([0, 5000, 700_000])),
    }


def edited(dice: random.Random, channel: str, old: Any) -> Any:
    """Returns a value that differs somewhere, or nowhere."""
    new = copy.deepcopy(old)
    match channel, dice.randrange(5):
        case _, 0:
            return new
        case "messages", 1 if new:
            del new[dice.randrange(len(new))]
        case "messages", 2:
            new.insert(dice.randrange(len(new) + 1), {"id": -1, "text": text(dice, 5000)})
        case "messages", 3:
            new.reverse()
        case "messages", _:
            new.append({"id": len(new), "text": text(dice, 300)})
        case "files", 1:
            new.pop(dice.choice(list(new)), None)
            new["a new one"] = text(dice, 4000)
        case "files", _:
            for name in dice.sample(list(new), min(3, len(new))):
                at = dice.randrange(len(new[name]) + 1)
                new[name] = f"{new[name][:at]}{text(dice, 60)}{new[name][at + 50 :]}"
        case _, 1:
            return dice.randbytes(dice.randrange(9000))
        case _:
            at = dice.randrange(len(new) + 1)
            return new[:at] + dice.randbytes(dice.randrange(200)) + new[at + dice.randrange(200) :]
    return new


class World:
    """A thread and its model, savers that come and go, and the link that they are on."""

    def __init__(self, link: FlakyLink, target: str, dice: random.Random, *, encrypted: bool) -> None:
        self.link = link
        self.target = target
        self.dice = dice
        self.encryption = Encryption(keys=KEYS, current="a", required=True) if encrypted else None
        self.thread_id = str(uuid.uuid4())
        self.runs = [f"{letter} of {self.thread_id}" for letter in "xyz"]
        self.model: Model = {}
        self.numbers = iter(range(1, 10**6))
        self.calls = self.new_saver()

    def new_saver(self) -> Calls:
        cache_bytes = self.dice.choice([0, 100_000, 10**7, 10**7])
        # Reads and puts of all kinds alternate here, outside of runs.
        saver = GrpcSaver(
            self.link.target,
            concurrency="last_write_wins",
            encryption=self.encryption,
            cache_bytes=cache_bytes,
        )
        calls = Calls(saver, self.dice.choice(("invoke", "ainvoke")))
        calls.thread_id = self.thread_id
        return calls

    def fresh(self) -> Calls:
        """A saver with an empty cache, on a reliable connection."""
        calls = Calls(GrpcSaver(self.target, encryption=self.encryption), "ainvoke")
        calls.thread_id = self.thread_id
        return calls

    async def step(self) -> None:
        """Puts a checkpoint that is made from a stored one, and usually writes beside it."""
        dice = self.dice
        own_id = f"{next(self.numbers):06}"
        parent = (
            dice.choice([max(self.model), max(self.model), dice.choice(sorted(self.model))]) if self.model else None
        )
        before = self.model[parent] if parent else Saved(first_values(dice), {}, "")
        changed = [channel for channel in CHANNELS if parent is None or dice.random() < 0.6]
        values = before.values | {channel: edited(dice, channel, before.values[channel]) for channel in changed}
        new = {channel: f"{int(own_id):032}.{dice.getrandbits(50):017}" for channel in changed}
        saved = Saved(values, before.versions | new, dice.choice(self.runs))
        metadata = {"source": "loop", "step": int(own_id), "parents": {}, "run_id": saved.run}

        async def put(calls: Calls) -> None:
            await calls.put(checkpoint(own_id, saved.values, saved.versions), parent=parent, metadata=metadata, new=new)

        if not await self.do(put, own_id):
            return
        self.model[own_id] = saved
        for task in dice.sample(["t1", "t2"], dice.randrange(3)):
            written = [(channel, edited(dice, channel, values[channel])) for channel in CHANNELS if dice.random() < 0.6]
            if not written:
                continue

            async def write(calls: Calls, task: str = task, written: list[tuple[str, Any]] = written) -> None:
                await calls.write(own_id, written, task)

            if await self.do(write, own_id, task):
                saved.pending += [(task, *entry) for entry in written]
                saved.pending.sort(key=lambda entry: entry[0])

    async def do(self, call: Any, own_id: str, task: str | None = None) -> bool:
        """Makes a call; its answer may get lost, or it is cancelled. Returns whether it was done."""
        chance = self.dice.random()
        if chance < 0.06:
            self.link.hold_answers()
            running = asyncio.ensure_future(asyncio.to_thread(asyncio.run, call(self.blocking())))
            other = self.fresh()
            # Large messages don't get through: the server's flow-control updates are held up as well.
            end = time.monotonic() + 1
            await auntil(lambda: running.done() or self.is_there(other, own_id, task) or time.monotonic() > end)
            self.link.cut()
            await running
        elif chance < 0.12 and self.calls.flavour == "ainvoke":
            running = asyncio.ensure_future(call(self.calls))
            await asyncio.sleep(self.dice.random() * 0.02)
            running.cancel()
            await asyncio.wait([running])
            # Read behind what is still in flight.
            await self.calls.find(config_of(self.thread_id))
            return self.is_there(self.fresh(), own_id, task)
        else:
            await call(self.calls)
        return True

    def blocking(self) -> Calls:
        calls = Calls(self.calls.saver, "invoke")
        calls.thread_id = self.thread_id
        return calls

    def is_there(self, calls: Calls, own_id: str, task: str | None) -> bool:
        found = calls.saver.get_tuple(config_of(self.thread_id, "", own_id))
        return found is not None and (task is None or any(entry[0] == task for entry in found.pending_writes or ()))

    async def happen(self) -> None:
        """Does something other than a step."""
        dice = self.dice
        match dice.randrange(6):
            case 0:
                self.calls = self.new_saver()
            case 1:
                await self.calls.do("prune", [self.thread_id])
                self.model = {max(self.model): self.model[max(self.model)]} if self.model else {}
            case 2:
                run = dice.choice(self.runs)
                await self.calls.do("delete_for_runs", [run])
                self.model = {key: saved for key, saved in self.model.items() if saved.run != run}
            case 3:
                other = str(uuid.uuid4())
                await self.calls.do("copy_thread", self.thread_id, other)
                await self.check(other)
                if dice.random() < 0.5:
                    await self.calls.do("delete_thread", self.thread_id)
                    self.thread_id = self.calls.thread_id = other
            case _:
                if self.model:
                    own_id = dice.choice(sorted(self.model))
                    found = await self.calls.get(own_id)
                    assert found.checkpoint["channel_values"] == self.model[own_id].values
                    assert found.pending_writes == self.model[own_id].pending

    async def check(self, thread_id: str) -> None:
        """Compares the whole thread with the model, in a list and checkpoint by checkpoint."""
        calls = self.fresh()
        listed = await calls.listed(config_of(thread_id))
        assert [saved.checkpoint["id"] for saved in listed] == sorted(self.model, reverse=True)
        one = self.dice.choice(listed) if listed else None
        for found in [*listed, *([] if one is None else [await calls.find(one.config)])]:
            assert found is not None
            expected = self.model[found.checkpoint["id"]]
            assert found.checkpoint["channel_values"] == expected.values
            assert found.checkpoint["channel_versions"] == expected.versions
            assert found.pending_writes == expected.pending


async def play(server: ServerProcess, seed: int, *, encrypted: bool, steps: int) -> str:
    """Plays a world, and returns its thread."""
    dice = random.Random(seed)
    with FlakyLink(server.target) as link:
        world = World(link, server.target, dice, encrypted=encrypted)
        try:
            for _ in range(steps):
                await world.step()
                if dice.random() < 0.3:
                    await world.happen()
            await world.check(world.thread_id)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return world.thread_id


ways = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])


@ways
async def test_they_come_back_exactly(shared_server: ServerProcess, encrypted: bool) -> None:
    await play(shared_server, random.randrange(2**32), encrypted=encrypted, steps=25)


@pytest.mark.long
@ways
async def test_they_come_back_exactly_again_and_again(shared_server: ServerProcess, encrypted: bool) -> None:
    for _ in range(20):
        await play(shared_server, random.randrange(2**32), encrypted=encrypted, steps=40)


@ways
async def test_much_of_it_is_patches(server: ServerProcess, database_url: str, encrypted: bool) -> None:
    """Otherwise the tests above would prove nothing."""
    thread_id = await play(server, 7, encrypted=encrypted, steps=30)
    connection = await asyncpg.connect(database_url)
    try:
        for table in ("channel_values", "task_writes"):
            patches = await connection.fetchval(
                f"SELECT count(base_version) FROM checkpointd.{table} WHERE thread = $1",
                thread_key("default", thread_id),
            )
            assert patches > 3, table
    finally:
        await connection.close()


@ways
async def test_a_long_chain_begins_anew_on_what_it_began_with(
    server: ServerProcess, database_url: str, encrypted: bool
) -> None:
    dice, thread_id = random.Random(11), str(uuid.uuid4())
    options: dict[str, Any] = {"encryption": Encryption(keys=KEYS, current="a")} if encrypted else {}
    files = {f"{n}.py": text(dice, 3000) for n in range(20)}
    made: list[tuple[str, dict[str, str]]] = []
    config = config_of(thread_id)
    async with GrpcSaver.from_conn_string(server.target, **options) as saver:
        for step in range(1, 100):
            name = dice.choice(sorted(files))
            at = dice.randrange(2900)
            files = {**files, name: files[name][:at] + text(dice, 40) + files[name][at + 40 :]}
            made.append((f"{step:03}", files))
            saved = checkpoint(f"{step:03}", {"files": files}, {"files": f"{step:03}"})
            config = await saver.aput(config, saved, {"run_id": str(step)}, {"files": f"{step:03}"})
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT base_version, depth FROM checkpointd.channel_values WHERE thread = $1 ORDER BY version",
            thread_key("default", thread_id),
        )
    finally:
        await connection.close()
    # One is whole, and the patch after a chain of 40 is based on it again.
    assert [row["depth"] for row in rows] == [0, *range(1, 41), *range(1, 41), *range(1, 19)]
    assert len({rows[at]["base_version"] for at in (1, 41, 81)}) == 1
    async with GrpcSaver.from_conn_string(server.target, **options) as saver:
        for checkpoint_id, expected in made:
            found = await saver.aget_tuple(config_of(thread_id, "", checkpoint_id))
            assert found is not None
            assert found.checkpoint["channel_values"] == {"files": expected}
        await saver.adelete_for_runs([str(number) for number in range(1, 95)])
        await saver.aprune([thread_id])
    async with GrpcSaver.from_conn_string(server.target, **options) as saver:
        found = await saver.aget_tuple(config_of(thread_id))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"files": files}
