"""Large values during prunes, deletes, copies and garbage collection: acknowledged values are whole, and no rest stays.

CHECKPOINTD_TEST_SEED sets the seed, CHECKPOINTD_TEST_LARGE_SECONDS the duration of the long test (default: 8).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, ThreadExistsError

from checkpointd_server.store import StoreOptions, open_store
from tests.support.flaky_link import FlakyLink
from tests.support.gates import InThread
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess

SECONDS = float(os.environ.get("CHECKPOINTD_TEST_LARGE_SECONDS", "8"))
SEED = int(os.environ.get("CHECKPOINTD_TEST_SEED", "20261121"))
GRACE = 1.0
"""The time for which garbage collection spares uploaded parts, in seconds."""
WORKERS = 4
VERBS = ("put", "write", "prune", "delete", "copy")

numbers = itertools.count(1)

MISSING = """
SELECT count(*)
FROM (
    SELECT thread, upload_id, upload_size FROM checkpointd.channel_values
    UNION ALL
    SELECT thread, upload_id, upload_size FROM checkpointd.task_writes
) AS v
WHERE v.upload_id IS NOT NULL AND v.upload_size IS DISTINCT FROM (
    SELECT sum(octet_length(p.data))
    FROM checkpointd.value_parts AS p
    WHERE p.thread = v.thread AND p.upload_id = v.upload_id
)
"""
"""Counts the values that are stored in parts of which some are missing."""
BASELESS = """
SELECT count(*)
FROM checkpointd.channel_values AS v
WHERE v.base_version IS NOT NULL AND NOT EXISTS (
    SELECT FROM checkpointd.channel_values AS b
    WHERE b.thread = v.thread AND b.checkpoint_ns = v.checkpoint_ns AND b.channel = v.channel
        AND b.version = v.base_version
)
"""
"""Counts the patches whose base is missing."""
STRAY = """
SELECT count(*)
FROM checkpointd.value_parts AS p
WHERE NOT EXISTS (
    SELECT FROM checkpointd.channel_values AS v WHERE v.thread = p.thread AND v.upload_id = p.upload_id
) AND NOT EXISTS (
    SELECT FROM checkpointd.task_writes AS w WHERE w.thread = p.thread AND w.upload_id = p.upload_id
)
"""
"""Counts the parts that no value refers to."""


def config_of(thread_id: str, checkpoint_ns: str = "") -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}}


def large(dice: random.Random) -> bytes:
    """A value that is mostly patched, and sometimes too large to be sent with its put."""
    return dice.randbytes(dice.choice([40_000, 120_000, 300_000, 1_600_000]))


def edit(dice: random.Random, value: bytes) -> bytes:
    """A value that differs from another in one place, or is entirely new."""
    if dice.random() < 0.1:
        return large(dice)
    at = dice.randrange(len(value))
    return value[:at] + dice.randbytes(dice.randrange(1, 40)) + value[at + dice.randrange(40) :]


def checkpoint(value: bytes) -> Checkpoint:
    version = f"{next(numbers):032}.{int.from_bytes(os.urandom(7)):017}"
    return {**empty_checkpoint(), "channel_values": {"blob": value}, "channel_versions": {"blob": version}}


class Worker:
    """Puts, prunes, deletes and copies, and remembers what it sent and what was acknowledged."""

    def __init__(self, number: int, saver: GrpcSaver) -> None:
        self.ns = f"worker-{number}"
        self.own = f"own-{number}"
        """The worker's own thread. Its latest checkpoint is never deleted."""
        self._dice = random.Random(f"{SEED} {number}")
        self._saver = saver
        self._value = large(self._dice)
        self._parents: dict[str, RunnableConfig] = {}
        self.sent: dict[str, bytes] = {}
        """The values by checkpoint id."""
        self.sent_writes: set[tuple[str, bytes]] = set()
        self.latest = ""
        """The id of the last acknowledged checkpoint in the worker's own thread."""
        self.done: dict[str, int] = {}

    def work(self, until: float, enough: Callable[[], bool]) -> None:
        steps: list[Callable[[str], None]] = [*[self.put] * 10, *[self.write] * 4, *[self.read] * 3]
        steps += [self.prune, self.prune, self.delete, self.delete_runs, self.copy, self.copy]
        while time.monotonic() < until or not enough():
            step = self._dice.choice(steps)
            step(self._dice.choice(["shared-0", "shared-1", self.own]))
            self.done[step.__name__] = self.done.get(step.__name__, 0) + 1

    def put(self, thread_id: str) -> None:
        self._value = edit(self._dice, self._value)
        made = checkpoint(self._value)
        self.sent[made["id"]] = self._value
        config = self._parents.get(thread_id, config_of(thread_id, self.ns))
        run_id = f"{self.ns} {self._dice.randrange(3)}" if thread_id != self.own else "kept"
        new = dict(made["channel_versions"])
        self._parents[thread_id] = self._saver.put(config, made, {"run_id": run_id, "step": 1}, new)
        if thread_id == self.own:
            self.latest = made["id"]

    def write(self, thread_id: str) -> None:
        """Makes a special write that replaces the previous one, and a regular one that doesn't."""
        value = edit(self._dice, self._value)
        if thread_id in self._parents:
            place = self._parents[thread_id]
            writes = [("__resume__", value), ("blob", value)]
            self.sent_writes |= {(channel, value) for channel, value in writes}
            self._saver.put_writes(place, writes, "task")

    def read(self, thread_id: str) -> None:
        found = self._saver.get_tuple(config_of(thread_id, self._dice.choice([self.ns, "worker-0"])))
        if found is not None and found.checkpoint["id"] in self.sent:
            assert found.checkpoint["channel_values"]["blob"] == self.sent[found.checkpoint["id"]]

    def prune(self, thread_id: str) -> None:
        self._saver.prune([thread_id])

    def delete(self, thread_id: str) -> None:
        if thread_id != self.own:
            self._saver.delete_thread(thread_id)

    def delete_runs(self, thread_id: str) -> None:
        self._saver.delete_for_runs([f"{self.ns} {self._dice.randrange(3)}"])

    def copy(self, thread_id: str) -> None:
        target = self._dice.choice(["copy-0", "copy-1"])
        if self._dice.random() < 0.7:
            self._saver.delete_thread(target)
        with suppress(ThreadExistsError):
            self._saver.copy_thread(thread_id, target)


async def collect_until(stop: threading.Event, database_url: str) -> None:
    """Collects garbage in all threads again and again, as if they were due."""
    async with open_store(StoreOptions(dsn=database_url, upload_grace=GRACE)) as store:
        connection = await asyncpg.connect(database_url)
        while not stop.is_set():
            await connection.execute("UPDATE checkpointd.gc_queue SET due_at = now() WHERE due_at > now()")
            await store.run_gc()
            await asyncio.sleep(0.02)
        await connection.close()


async def collect_the_rest(database_url: str) -> None:
    async with open_store(StoreOptions(dsn=database_url, upload_grace=0.0)) as store:
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE checkpointd.gc_queue SET due_at = now()")
        await connection.close()
        while await store.run_gc():
            pass


async def fetch_value(database_url: str, sql: str) -> Any:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [2.0, pytest.param(SECONDS, marks=pytest.mark.long)])
def test_what_was_acknowledged_is_whole_and_nothing_else_stays(
    database_url: str, tmp_path: Path, seconds: float
) -> None:
    with ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            server = ServerProcess("--database-url", database_url, log_dir=tmp_path / name)
            servers.append(stack.enter_context(server))
        savers = [
            stack.enter_context(GrpcSaver(servers[number % 2].target, concurrency="last_write_wins"))
            for number in range(WORKERS)
        ]
        workers = [Worker(number, saver) for number, saver in enumerate(savers)]
        stop = threading.Event()
        collecting = [InThread(lambda: asyncio.run(collect_until(stop, database_url))) for _ in range(2)]
        until = time.monotonic() + seconds

        def enough() -> bool:
            return all(sum(worker.done.get(verb, 0) for worker in workers) > 3 for verb in VERBS)

        working = [InThread(lambda worker=worker: worker.work(until, enough)) for worker in workers]  # type: ignore[misc]
        try:
            for one in working:
                one.result()
        finally:
            stop.set()
        for one in collecting:
            one.result()
        for nothing in (MISSING, BASELESS):
            assert asyncio.run(fetch_value(database_url, nothing)) == 0, f"seed {SEED}"
        patches = "SELECT count(*) FROM checkpointd.channel_values WHERE base_version IS NOT NULL"
        assert asyncio.run(fetch_value(database_url, patches)) > 0

        sent = {own_id: value for worker in workers for own_id, value in worker.sent.items()}
        writes = {write for worker in workers for write in worker.sent_writes}
        with GrpcSaver(servers[0].target) as fresh:
            listed = list(fresh.list(None))
            for saved in listed:
                assert saved.checkpoint["channel_values"] == {"blob": sent[saved.checkpoint["id"]]}, f"seed {SEED}"
                for _, channel, value in saved.pending_writes or ():
                    assert (channel, value) in writes, f"seed {SEED}"
            for worker in workers:
                latest = fresh.get_tuple(config_of(worker.own, worker.ns))
                assert (latest.checkpoint["id"] if latest else "") == worker.latest, f"seed {SEED}"
        assert len(listed) == asyncio.run(fetch_value(database_url, "SELECT count(*) FROM checkpointd.checkpoints"))
        assert enough()

        asyncio.run(collect_the_rest(database_url))
        for nothing in (STRAY, MISSING, BASELESS, "SELECT count(*) FROM checkpointd.uploads"):
            assert asyncio.run(fetch_value(database_url, nothing)) == 0, f"seed {SEED}"
        for row in {saved.config["configurable"]["thread_id"] for saved in listed}:
            savers[0].delete_thread(row)
        # Task writes that were stored after their checkpoint was pruned or deleted go with their thread.
        for thread_id in ("shared-0", "shared-1", "copy-0", "copy-1", *(worker.own for worker in workers)):
            savers[0].delete_thread(thread_id)
        for table in ("channel_values", "task_writes", "value_parts", "uploads"):
            assert asyncio.run(fetch_value(database_url, f"SELECT count(*) FROM checkpointd.{table}")) == 0


@pytest.fixture
def link(local_server: LocalServer) -> Iterator[FlakyLink]:
    with FlakyLink(local_server.target) as link:
        yield link


def test_answers_get_lost_while_parts_are_sent_ahead_and_after(
    local_server: LocalServer, database_url: str, link: FlakyLink
) -> None:
    """Answers of PutPart and of the puts before and after it get lost, whenever the link is cut."""
    dice = random.Random(SEED)
    value = dice.randbytes(5_000_000)
    sent: dict[str, bytes] = {}
    stop = threading.Event()
    cuts = 0

    def cut_again_and_again() -> None:
        nonlocal cuts
        while not stop.is_set():
            stop.wait(dice.random() * 0.25)
            link.hold_answers()
            stop.wait(dice.random() * 0.1)
            link.cut()
            cuts += 1

    with GrpcSaver(link.target, timeout=60) as saver:
        cutting = InThread(cut_again_and_again)
        try:
            config = config_of("t")
            while len(sent) < 5 or cuts <= 5:
                made = checkpoint(value)
                sent[made["id"]] = value
                config = saver.put(config, made, {}, dict(made["channel_versions"]))
                saver.put_writes(config, [("blob", value[::-1])], "task")
                value = dice.randbytes(2_500_000) + value[:2_500_000]
        finally:
            stop.set()
        cutting.result()
    with GrpcSaver(local_server.target) as direct:
        listed = list(direct.list(config_of("t")))
        found = {saved.checkpoint["id"]: saved.checkpoint["channel_values"]["blob"] for saved in listed}
        assert found == sent
        for saved in listed:
            assert saved.pending_writes == [("task", "blob", sent[saved.checkpoint["id"]][::-1])]
    assert asyncio.run(fetch_value(database_url, MISSING)) == 0
    asyncio.run(collect_the_rest(database_url))
    assert asyncio.run(fetch_value(database_url, STRAY)) == 0
