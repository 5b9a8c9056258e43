"""Large values while others prune, delete, copy and collect: what was acknowledged is whole, and nothing else stays.

CHECKPOINTD_TEST_SEED sets the seed, CHECKPOINTD_TEST_LARGE_SECONDS how long it goes on (default: 8).
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import uuid
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
from tests.support.server_process import ServerProcess

SECONDS = float(os.environ.get("CHECKPOINTD_TEST_LARGE_SECONDS", "8"))
SEED = int(os.environ.get("CHECKPOINTD_TEST_SEED", "20261121"))
GRACE = 1.0
"""How long the collectors spare what was sent ahead, in seconds."""
WORKERS = 4

USED = """
WITH used AS (
    SELECT DISTINCT v.thread_id, substr(v.data, 1 + 32 * i, 32) AS digest
    FROM (
        SELECT thread_id, data FROM checkpointd.channel_values WHERE size IS NOT NULL
        UNION ALL
        SELECT thread_id, data FROM checkpointd.task_writes WHERE size IS NOT NULL
    ) AS v, generate_series(0, octet_length(v.data) / 32 - 1) AS i
)
"""
"""The pieces that are referred to."""
MISSING = f"""
{USED}SELECT count(*)
FROM used
LEFT JOIN checkpointd.pieces AS p USING (thread_id, digest)
LEFT JOIN checkpointd.piece_contents AS c USING (content_id)
WHERE c.data IS NULL
"""
"""How many pieces are referred to and not there."""
STRAY = f"""
{USED}SELECT (SELECT count(*) FROM checkpointd.pieces AS p WHERE (p.thread_id, p.digest) NOT IN (SELECT * FROM used))
    + (SELECT count(*) FROM checkpointd.piece_contents AS c
        WHERE c.content_id NOT IN (SELECT p.content_id FROM checkpointd.pieces AS p))
"""
"""How many pieces are there and not referred to."""


def config_of(thread_id: str, checkpoint_ns: str = "") -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}}


def large(dice: random.Random) -> bytes:
    """A value that goes in pieces, sometimes in too many to go with its put."""
    return dice.randbytes(dice.choice([40_000, 120_000, 300_000, 1_600_000]))


def edit(dice: random.Random, value: bytes) -> bytes:
    """A value that differs from another in one place, or begins anew."""
    if dice.random() < 0.1:
        return large(dice)
    at = dice.randrange(len(value))
    return value[:at] + dice.randbytes(dice.randrange(1, 40)) + value[at + dice.randrange(40) :]


def checkpoint(value: bytes) -> Checkpoint:
    version = uuid.uuid4().hex
    return {**empty_checkpoint(), "channel_values": {"blob": value}, "channel_versions": {"blob": version}}


class Worker:
    """Puts, prunes, deletes and copies, and remembers what it has sent and what was acknowledged."""

    def __init__(self, number: int, saver: GrpcSaver) -> None:
        self.ns = f"worker-{number}"
        self.own = f"own-{number}"
        """A thread that only this one deletes nothing from."""
        self._dice = random.Random(f"{SEED} {number}")
        self._saver = saver
        self._value = large(self._dice)
        self._parents: dict[str, RunnableConfig] = {}
        self.sent: dict[str, bytes] = {}
        """By checkpoint id."""
        self.sent_writes: set[tuple[str, bytes]] = set()
        self.latest = ""
        """The last checkpoint that was acknowledged in the own thread."""
        self.done: dict[str, int] = {}

    def work(self, until: float) -> None:
        steps: list[Callable[[str], None]] = [*[self.put] * 10, *[self.write] * 4, *[self.read] * 3]
        steps += [self.prune, self.prune, self.delete, self.delete_runs, self.copy, self.copy]
        while time.monotonic() < until:
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
        """A special write that replaces the one before, and a regular one that doesn't."""
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
    """Looks at the pieces of all threads, again and again."""
    async with open_store(StoreOptions(dsn=database_url, upload_grace=GRACE)) as store:
        connection = await asyncpg.connect(database_url)
        while not stop.is_set():
            await connection.execute("UPDATE checkpointd.piece_sweeps SET due_at = now() WHERE due_at > now()")
            await store.collect_pieces()
            await asyncio.sleep(0.02)
        await connection.close()


async def collect_the_rest(database_url: str) -> None:
    async with open_store(StoreOptions(dsn=database_url, upload_grace=0.0)) as store:
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE checkpointd.piece_sweeps SET due_at = now()")
        await connection.close()
        while await store.collect_pieces():
            pass


async def fetch_value(database_url: str, sql: str) -> Any:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.mark.timeout(120)
def test_what_was_acknowledged_is_whole_and_nothing_else_stays(database_url: str, tmp_path: Path) -> None:
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
        until = time.monotonic() + SECONDS
        working = [InThread(lambda worker=worker: worker.work(until)) for worker in workers]  # type: ignore[misc]
        try:
            for one in working:
                one.result()
        finally:
            stop.set()
        for one in collecting:
            one.result()
        assert asyncio.run(fetch_value(database_url, MISSING)) == 0, f"seed {SEED}"

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
        for verb in ("put", "write", "prune", "delete", "copy"):
            assert sum(worker.done.get(verb, 0) for worker in workers) > 3

        asyncio.run(collect_the_rest(database_url))
        assert asyncio.run(fetch_value(database_url, STRAY)) == 0, f"seed {SEED}"
        assert asyncio.run(fetch_value(database_url, "SELECT count(*) FROM checkpointd.piece_sweeps")) == 0
        assert asyncio.run(fetch_value(database_url, MISSING)) == 0, f"seed {SEED}"
        for row in {saved.config["configurable"]["thread_id"] for saved in listed}:
            savers[0].delete_thread(row)
        # Task writes whose checkpoint was pruned or deleted before they came are their threads' own.
        for thread_id in ("shared-0", "shared-1", "copy-0", "copy-1", *(worker.own for worker in workers)):
            savers[0].delete_thread(thread_id)
        assert asyncio.run(fetch_value(database_url, "SELECT count(*) FROM checkpointd.piece_contents")) == 0


@pytest.fixture
def link(server: ServerProcess) -> Iterator[FlakyLink]:
    with FlakyLink(server.target) as link:
        yield link


def test_answers_get_lost_while_pieces_are_sent_ahead_and_after(
    server: ServerProcess, database_url: str, link: FlakyLink
) -> None:
    """Of PutPieces and of the puts before and after it, at whatever moment the link is cut."""
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
            for _ in range(8):
                made = checkpoint(value)
                sent[made["id"]] = value
                config = saver.put(config, made, {}, dict(made["channel_versions"]))
                saver.put_writes(config, [("blob", value[::-1])], "task")
                value = dice.randbytes(2_500_000) + value[:2_500_000]
        finally:
            stop.set()
        cutting.result()
    assert cuts > 5
    with GrpcSaver(server.target) as direct:
        listed = list(direct.list(config_of("t")))
        found = {saved.checkpoint["id"]: saved.checkpoint["channel_values"]["blob"] for saved in listed}
        assert found == sent
        for saved in listed:
            assert saved.pending_writes == [("task", "blob", sent[saved.checkpoint["id"]][::-1])]
    assert asyncio.run(fetch_value(database_url, MISSING)) == 0
    asyncio.run(collect_the_rest(database_url))
    assert asyncio.run(fetch_value(database_url, STRAY)) == 0
