"""Several workers, two servers on one database, random schedules, and a model that predicts the outcome of each call.

The model knows only the rule. A run's put is accepted if the namespace's last put was its own, or if nothing was put or
deleted there since the run read. For a run that found nothing, it is enough that nothing is there now. The same rule
applies to its task writes. Refused calls store nothing.

`make test` tries a hundred schedules, `make test-all` thousands. CHECKPOINTD_TEST_SCHEDULES sets their number,
CHECKPOINTD_TEST_SEED the first seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError

from tests.concurrency.ways import durabilities_of_processes
from tests.support.gates import build, new_thread, said, turn, turns_of
from tests.support.server_process import ServerProcess

FEW, MANY = 40, 2000
ASKED_FOR = os.environ.get("CHECKPOINTD_TEST_SCHEDULES")
SCHEDULES = [int(ASKED_FOR)] if ASKED_FOR else [FEW, pytest.param(MANY, marks=pytest.mark.long)]
SEED = int(os.environ.get("CHECKPOINTD_TEST_SEED", "20261121"))
NAMESPACES = ("", "inner")


class Runtime:
    """Stands for LangGraph's runtime object, which marks calls as those of one run."""


@dataclass
class Head:
    """The model's view of a namespace."""

    change: int = 0
    """The number of puts and deletions."""
    last_run: int | None = None
    stored: dict[str, list[tuple[str, str, Any]]] = field(default_factory=dict)
    """The stored checkpoints, each with its task writes."""


@dataclass
class ModelRun:
    """A run, as the model and the test see it."""

    number: int
    saver: GrpcSaver
    config: RunnableConfig
    checkpoint_ns: str
    saw_change: int
    found_nothing: bool
    parent: str | None
    own: list[Checkpoint] = field(default_factory=list)
    lost: bool = False

    def at(self, checkpoint_id: str | None) -> RunnableConfig:
        configurable = dict(self.config["configurable"])
        if checkpoint_id is not None:
            configurable["checkpoint_id"] = checkpoint_id
        return {"configurable": configurable}


class World:
    """One thread, its runs, and their model."""

    def __init__(self, savers: list[GrpcSaver], chance: random.Random) -> None:
        self.savers = savers
        self.chance = chance
        self.thread_id = f"world-{uuid.uuid4()}"
        self.heads = {checkpoint_ns: Head() for checkpoint_ns in NAMESPACES}
        self.runs: list[ModelRun] = []
        self.accepted = self.refused = 0

    def start_run(self) -> None:
        """Starts a run: it reads the latest checkpoint or an old one."""
        saver, checkpoint_ns = self.chance.choice(self.savers), self.chance.choice(NAMESPACES)
        head = self.heads[checkpoint_ns]
        configurable: dict[str, Any] = {
            "thread_id": self.thread_id,
            "checkpoint_ns": checkpoint_ns,
            "__pregel_runtime": Runtime(),
        }
        past = self.chance.choice([None, *head.stored]) if self.chance.random() < 0.3 else None
        reading: RunnableConfig = {"configurable": {**configurable, "checkpoint_id": past}}
        found = saver.get_tuple(reading)
        if past is None:
            assert (found is None) == (not head.stored)
            if found is not None:
                assert found.checkpoint["id"] == max(head.stored)
        else:
            assert found is not None
        parent = found.checkpoint["id"] if found is not None else None
        self.runs.append(
            ModelRun(
                number=len(self.runs),
                saver=saver,
                config={"configurable": configurable},
                checkpoint_ns=checkpoint_ns,
                saw_change=head.change,
                found_nothing=not head.stored,
                parent=parent,
            )
        )

    def may_write(self, run: ModelRun) -> bool:
        head = self.heads[run.checkpoint_ns]
        if run.own:
            return head.last_run == run.number
        return head.change == run.saw_change or (run.found_nothing and not head.stored)

    def put(self, run: ModelRun) -> None:
        """Puts a run's next checkpoint, sometimes with an id from a clock that is behind."""
        checkpoint = empty_checkpoint()
        if self.chance.random() < 0.2:
            checkpoint["id"] = "0" + checkpoint["id"][1:]
        head = self.heads[run.checkpoint_ns]
        expected = self.may_write(run)
        if self.attempt(run, expected, lambda: run.saver.put(run.at(run.parent), checkpoint, {}, {})):
            head.change += 1
            head.last_run = run.number
            head.stored[checkpoint["id"]] = []
            run.own.append(checkpoint)
            run.parent = checkpoint["id"]

    def put_writes(self, run: ModelRun) -> None:
        """Stores a run's task writes beside its current checkpoint."""
        if run.parent is None:
            return
        head = self.heads[run.checkpoint_ns]
        task = uuid.uuid4().hex
        expected = self.may_write(run)
        if self.attempt(
            run, expected, lambda: run.saver.put_writes(run.at(run.parent), [("channel", run.number)], task)
        ):
            head.stored[str(run.parent)].append((task, "channel", run.number))

    def update_by_hand(self) -> None:
        """Does the same as update_state: a read and a put in one context, without a runtime."""
        saver, checkpoint_ns = self.chance.choice(self.savers), self.chance.choice(NAMESPACES)
        head = self.heads[checkpoint_ns]
        config: RunnableConfig = {"configurable": {"thread_id": self.thread_id, "checkpoint_ns": checkpoint_ns}}
        found = saver.get_tuple(config)
        checkpoint = empty_checkpoint()
        saver.put(found.config if found else config, checkpoint, {}, {})
        head.change += 1
        head.last_run = None
        head.stored[checkpoint["id"]] = []

    def delete(self) -> None:
        """Deletes the thread."""
        self.chance.choice(self.savers).delete_thread(self.thread_id)
        for head in self.heads.values():
            # Deleting nothing changes nothing.
            head.change += bool(head.stored)
            head.last_run = None
            head.stored.clear()

    def attempt(self, run: ModelRun, expected: bool, write: Callable[[], object]) -> bool:
        """Makes a call and compares its outcome with the model's."""
        if run.lost:
            # After a refusal, all later writes of the run are refused too.
            expected = False
        try:
            write()
        except VersionConflictError as conflict:
            if expected:
                raise AssertionError(f"run {run.number}: a false alarm") from conflict
            run.lost = True
            self.refused += 1
            return False
        assert expected, f"run {run.number}: a collision went unnoticed"
        self.accepted += 1
        return True

    def check(self) -> None:
        """Checks that exactly the model's checkpoints and writes are stored."""
        for checkpoint_ns, head in self.heads.items():
            config: RunnableConfig = {"configurable": {"thread_id": self.thread_id, "checkpoint_ns": checkpoint_ns}}
            stored = {saved.checkpoint["id"]: saved.pending_writes for saved in self.savers[0].list(config)}
            assert {checkpoint_id: sorted(writes or []) for checkpoint_id, writes in stored.items()} == {
                checkpoint_id: sorted(writes) for checkpoint_id, writes in head.stored.items()
            }


def play(savers: list[GrpcSaver], seed: int) -> World:
    """Plays one random schedule."""
    chance = random.Random(seed)
    world = World(savers, chance)
    for _ in range(chance.randint(4, 14)):
        match chance.random():
            case x if x < 0.25 or not world.runs:
                world.start_run()
            case x if x < 0.75:
                world.put(chance.choice(world.runs))
            case x if x < 0.9:
                world.put_writes(chance.choice(world.runs))
            case x if x < 0.97:
                world.update_by_hand()
            case _:
                world.delete()
    world.check()
    return world


@pytest.fixture
def server_one(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """One of two servers on one database, which is all that the workers share."""
    with _serve(database_url, tmp_path / "one") as process:
        yield process


@pytest.fixture
def server_two(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """The other server on the same database."""
    with _serve(database_url, tmp_path / "two") as process:
        yield process


def _serve(database_url: str, log_dir: Path) -> ServerProcess:
    log_dir.mkdir()
    return ServerProcess("--database-url", database_url, log_dir=log_dir)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("schedules", SCHEDULES)
def test_every_schedule_comes_out_as_the_model_says(
    schedules: int, server_one: ServerProcess, server_two: ServerProcess
) -> None:
    with GrpcSaver(server_one.target) as one, GrpcSaver(server_two.target) as two:
        accepted = refused = 0
        for seed in range(SEED, SEED + schedules):
            try:
                world = play([one, two], seed)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            accepted += world.accepted
            refused += world.refused
    # The schedules are useful only if both outcomes are frequent.
    assert accepted > schedules
    assert refused > schedules / 4


def test_the_model_notices_a_server_without_versions(shared_server: ServerProcess) -> None:
    with (
        GrpcSaver(shared_server.target, concurrency="last_write_wins") as saver,
        pytest.raises(AssertionError, match="a collision went unnoticed"),
    ):
        deque((play([saver], seed) for seed in range(SEED, SEED + 100)), maxlen=0)


@durabilities_of_processes
async def test_workers_that_retry_their_turns_all_get_through(
    server_one: ServerProcess, server_two: ServerProcess, durability: str
) -> None:
    """Real graphs on few threads: each turn that reported success is in the final state, once and in one piece."""
    threads = [new_thread() for _ in range(3)]
    chance = random.Random(SEED)
    done: dict[str, list[str]] = {thread["configurable"]["thread_id"]: [] for thread in threads}

    async def worker(number: int, saver: GrpcSaver) -> int:
        conflicts = 0
        for count in range(5):
            thread = chance.choice(threads)
            who = f"worker {number} turn {count}"
            while True:
                try:
                    await build(saver).ainvoke(turn(who), thread, durability=durability)
                except VersionConflictError:
                    conflicts += 1
                    await asyncio.sleep(chance.random() * 0.02)
                else:
                    done[thread["configurable"]["thread_id"]].append(who)
                    break
        return conflicts

    async with GrpcSaver(server_one.target) as one, GrpcSaver(server_two.target) as two:
        workers: list[Awaitable[int]] = [worker(number, (one, two)[number % 2]) for number in range(6)]
        await asyncio.wait_for(asyncio.gather(*workers), 100)
        for thread in threads:
            words = said(one, thread)
            for who in done[thread["configurable"]["thread_id"]]:
                start = len(words) - 1 - words[::-1].index(who)
                assert words[start : start + 4] == turns_of(who)
                if durability == "exit":
                    assert words.count(who) == 1
            if durability == "exit":
                assert len(words) == 4 * len(done[thread["configurable"]["thread_id"]])
