"""Blocking task writes go along with the run's next put, and nobody can tell from what comes of them."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError, rides
from langgraph.checkpoint.grpc.rides import MOST_ALONG, Rides

from checkpointd.v1.checkpoint_service_pb2 import PutWritesRequest
from tests.client.older_server import older_server
from tests.client.puts import calls, holding, thread
from tests.support import graphs
from tests.support.comparison import Ledger
from tests.support.runs import a_run, at
from tests.support.server_process import ServerProcess


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes writes wait for a put for as long as a slow machine takes."""
    monkeypatch.setattr(rides, "HOLD_SECONDS", 5.0)


@pytest.fixture
def offered(patient: None, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a write has begun: a put from then on comes after it, whatever the threads' turns."""
    begun, offer = threading.Event(), Rides.offer

    def tell(*args: Any) -> Any:
        begun.set()
        return offer(*args)

    monkeypatch.setattr(Rides, "offer", tell)
    return begun


@pytest.mark.usefixtures("patient")
def test_a_step_of_a_graph_is_one_call(server: ServerProcess) -> None:
    with GrpcSaver(server.target) as saver:
        agent = graphs.fan_out(Ledger()).compile(checkpointer=saver)
        for _ in range(10):
            before = calls(server, "Batch"), calls(server, "PutWrites")
            config: Any = thread()
            agent.invoke({"items": ["a", "b", "c"]}, config, durability="sync")
            steps = len(list(saver.list(config)))
            written = sum(len(saved.pending_writes or ()) for saved in saver.list(config))
            assert written >= 5
            # The input's checkpoint has nothing to take along, and each of the others takes what was written for its
            # step: unless LangGraph's thread for a write begins later than the put, which nobody can wait for.
            if (calls(server, "Batch"), calls(server, "PutWrites")) == (before[0] + steps - 1, before[1]):
                return
    pytest.fail("in none of ten runs each step was one call")


def started(saver: GrpcSaver, config: RunnableConfig) -> RunnableConfig:
    """Begins a run on a thread, and returns its config at its first checkpoint."""
    run = a_run(config)
    saver.get_tuple(run)
    first = holding(1)
    saver.put(run, first, {}, {"a": 1})
    return at(run, first)


def test_a_write_and_a_put_that_come_together_go_together(server: ServerProcess, offered: threading.Event) -> None:
    with GrpcSaver(server.target) as saver, ThreadPoolExecutor() as threads:
        config = thread()
        at_first = started(saver, config)
        before = calls(server, "Batch")
        write = threads.submit(saver.put_writes, at_first, [("a", 2)], "task")
        assert offered.wait(20)
        put = threads.submit(saver.put, at_first, second := holding(2), {}, {"a": 2})
        assert put.result()["configurable"]["checkpoint_id"] == second["id"]
        write.result()
        assert calls(server, "Batch") - before == 1
        first = {**config["configurable"], "checkpoint_id": at_first["configurable"]["checkpoint_id"]}
        saved = saver.get_tuple({"configurable": first})
        assert saved is not None
        assert saved.pending_writes == [("task", "a", 2)]


def test_a_write_that_no_put_takes_along_goes_by_itself(server: ServerProcess) -> None:
    with GrpcSaver(server.target) as saver:
        at_first = started(saver, thread())
        begun = time.monotonic()
        saver.put_writes(at_first, [("a", 2)], "task")
        assert time.monotonic() - begun < 5
        assert (calls(server, "PutWrites"), calls(server, "Batch")) == (1, 0)


def test_both_are_told_that_they_were_overtaken(server: ServerProcess, offered: threading.Event) -> None:
    with GrpcSaver(server.target) as saver, GrpcSaver(server.target) as other, ThreadPoolExecutor() as threads:
        config = thread()
        at_first = started(saver, config)
        other.put(config, overtaking := holding(9), {}, {"a": 9})
        write = threads.submit(saver.put_writes, at_first, [("a", 2)], "task")
        assert offered.wait(20)
        put = threads.submit(saver.put, at_first, holding(2), {}, {"a": 2})
        for refused in (write, put):
            with pytest.raises(VersionConflictError):
                refused.result()
        assert next(saved.checkpoint["id"] for saved in other.list(config)) == overtaking["id"]
        assert all(not saved.pending_writes for saved in other.list(config))


async def test_a_server_that_knows_no_batches_gets_them_one_by_one(
    shared_server: ServerProcess, offered: threading.Event
) -> None:
    async with older_server(shared_server.target) as target:

        def work() -> None:
            with GrpcSaver(target) as saver, ThreadPoolExecutor() as threads:
                at_first = started(saver, thread())
                write = threads.submit(saver.put_writes, at_first, [("a", 2)], "task")
                assert offered.wait(20)
                put = threads.submit(saver.put, at_first, holding(2), {}, {"a": 2})
                put.result()
                write.result()

        await asyncio.to_thread(work)


def test_a_put_that_breaks_off_lets_the_writes_go_by_themselves(
    server: ServerProcess, offered: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GrpcSaver(server.target) as saver, ThreadPoolExecutor() as threads:
        at_first = started(saver, thread())

        def break_off(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(saver._uploads, "_together", break_off)
        write = threads.submit(saver.put_writes, at_first, [("a", 2)], "task")
        assert offered.wait(20)
        put = threads.submit(saver.put, at_first, holding(2), {}, {"a": 2})
        with pytest.raises(KeyboardInterrupt):
            put.result()
        write.result(20)
        assert calls(server, "PutWrites") == 1


def test_writes_go_before_a_put_that_can_not_take_them_along(server: ServerProcess, offered: threading.Event) -> None:
    with GrpcSaver(server.target) as saver, ThreadPoolExecutor() as threads:
        at_first = started(saver, thread())
        write = threads.submit(saver.put_writes, at_first, [("a", 2)], "task")
        assert offered.wait(20)
        threads.submit(saver.put, at_first, holding("x" * 3_000_000), {}, {"a": 2}).result()
        write.result()
    methods = re.findall(r" method=CheckpointService/(Put\w+)", server.stderr)
    assert methods == ["PutCheckpoint", "PutWrites", "PutCheckpoint"]


def test_tokens_of_their_own_keep_calls_apart(server: ServerProcess) -> None:
    with GrpcSaver(server.target, token=lambda: "t") as saver:
        at_first = started(saver, thread())
        with ThreadPoolExecutor() as threads:
            write = threads.submit(saver.put_writes, at_first, [("a", 2)], "task")
            threads.submit(saver.put, at_first, holding(2), {}, {"a": 2}).result()
            write.result()
    assert calls(server, "Batch") == 0


def test_a_put_takes_no_more_than_fit_into_a_batch(patient: None) -> None:
    offers, ends = Rides(), [Future[Any]() for _ in range(MOST_ALONG + 5)]
    threads = [threading.Thread(target=offers.offer, args=(end, PutWritesRequest()), daemon=True) for end in ends]
    for each in threads:
        each.start()
    taken = offers.take(ends, 20)
    assert len(taken) == MOST_ALONG
    assert len(offers.take(ends[MOST_ALONG:], 20)) == 5
    for ride in taken:
        ride.left()
