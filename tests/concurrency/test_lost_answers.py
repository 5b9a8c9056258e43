"""A write whose answer was lost is sent again: it succeeds, changes nothing and doesn't conflict with itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError
from langgraph.checkpoint.grpc._convert import encode

from tests.support.flaky_link import FlakyLink
from tests.support.gates import Gate, InThread, build, new_thread, said, turn, turns_of, until_saved
from tests.support.runs import a_run, at
from tests.support.server_process import ServerProcess
from tests.support.until import until


@pytest.fixture
def link(shared_server: ServerProcess) -> Iterator[FlakyLink]:
    with FlakyLink(shared_server.target) as link:
        yield link


@pytest.fixture
def saver(link: FlakyLink) -> Iterator[GrpcSaver]:
    """The saver whose answers get lost."""
    with GrpcSaver(link.target) as saver:
        # Opens the connection on which answers will get lost.
        saver.get_tuple(new_thread())
        yield saver


@pytest.fixture
def direct(shared_server: ServerProcess) -> Iterator[GrpcSaver]:
    """A saver on a good connection."""
    with GrpcSaver(shared_server.target) as saver:
        yield saver


def put(saver: GrpcSaver, run: RunnableConfig) -> RunnableConfig:
    return saver.put(run, a_checkpoint(), {}, {"a": 1})


def a_checkpoint() -> Checkpoint:
    return {**empty_checkpoint(), "channel_values": {"a": 1}, "channel_versions": {"a": 1}}


def overtake(saver: GrpcSaver, thread: RunnableConfig) -> None:
    """Reads the thread and puts to it, as another run."""
    run = a_run(thread)
    put(saver, at(run, read(saver, run)))


def read(saver: GrpcSaver, run: RunnableConfig) -> str:
    """Reads the latest checkpoint as a run does, and returns its id."""
    stored = saver.get_tuple(run)
    assert stored is not None
    return str(stored.checkpoint["id"])


def pending(saver: GrpcSaver, thread: RunnableConfig) -> list[tuple[str, str, Any]]:
    """The task writes beside the thread's first checkpoint."""
    return list(history(saver, thread)[-1].pending_writes or ())


def history(saver: GrpcSaver, thread: RunnableConfig) -> list[CheckpointTuple]:
    return list(saver.list(thread))


@pytest.mark.parametrize("known_run", [True, False], ids=["in-a-run", "by-hand"])
@pytest.mark.parametrize("overtaken", [False, True], ids=["undisturbed", "with-a-later-put-by-another"])
def test_a_put(saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink, known_run: bool, overtaken: bool) -> None:
    thread = new_thread()
    run = a_run(thread)
    if known_run:
        assert saver.get_tuple(run) is None
    else:
        del run["configurable"]["__pregel_runtime"]
    link.hold_answers()
    putting = InThread(lambda: put(saver, run))
    until(lambda: direct.get_tuple(thread))
    if overtaken:
        overtake(direct, thread)
    before = history(direct, thread)
    version = direct_version(direct, thread)
    link.cut()
    stored_config = putting.result()
    assert history(direct, thread) == before
    assert direct_version(direct, thread) == version
    if known_run and not overtaken:
        # The run continues from its stored checkpoint.
        put(saver, at(run, stored_config["configurable"]["checkpoint_id"]))


def test_task_writes(saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink) -> None:
    thread = new_thread()
    run = a_run(thread)
    assert saver.get_tuple(run) is None
    checkpoint_id = put(saver, run)["configurable"]["checkpoint_id"]
    link.hold_answers()
    writing = InThread(lambda: saver.put_writes(at(run, checkpoint_id), [("a", 1), ("__interrupt__", 2)], "task"))
    until(lambda: history(direct, thread)[0].pending_writes)
    before = history(direct, thread)
    link.cut()
    writing.result()
    assert history(direct, thread) == before


WRITES = {
    "regular": [("a", 1), ("b", 2)],
    "special": [("__interrupt__", 1)],
    "mixed": [("a", 1), ("__interrupt__", 2)],
    "in-pieces": [("a", random.Random(0).randbytes(100_000)), ("b", 2)],
}


@pytest.mark.parametrize("writes", WRITES.values(), ids=list(WRITES))
def test_task_writes_with_a_later_put_by_another(
    saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink, writes: list[tuple[str, Any]]
) -> None:
    thread = new_thread()
    run = a_run(thread)
    assert saver.get_tuple(run) is None
    mine = at(run, put(saver, run)["configurable"]["checkpoint_id"])
    link.hold_answers()
    writing = InThread(lambda: saver.put_writes(mine, writes, "task"))
    until(lambda: history(direct, thread)[0].pending_writes)
    overtake(direct, thread)
    before = history(direct, thread)
    link.cut()
    writing.result()
    assert history(direct, thread) == before
    assert [(channel, value) for _, channel, value in before[-1].pending_writes or ()] == sorted(
        writes, key=lambda write: (write[0] != "__interrupt__", write)
    )
    # The run's later writes are refused, even those of the task whose writes are stored.
    for late in (lambda: saver.put_writes(mine, writes, "task"), lambda: put(saver, mine)):
        with pytest.raises(VersionConflictError):
            late()
    assert history(direct, thread) == before


async def test_awaited_task_writes_with_a_later_put_by_another(
    shared_server: ServerProcess, direct: GrpcSaver, link: FlakyLink
) -> None:
    """Simultaneous calls share an RPC, and are sent again together."""
    threads = [new_thread() for _ in range(6)]
    runs = [a_run(thread) for thread in threads]
    async with GrpcSaver(link.target) as saver:
        mine = []
        for run in runs:
            assert await saver.aget_tuple(run) is None
            stored = await saver.aput(run, a_checkpoint(), {}, {"a": 1})
            mine.append(at(run, stored["configurable"]["checkpoint_id"]))
        link.hold_answers()
        tasks = [("task", [("a", 1)]), ("other", [("__interrupt__", 2)])]
        writing = [
            asyncio.ensure_future(saver.aput_writes(config, writes, task)) for config in mine for task, writes in tasks
        ]
        # Calls that wait behind a held RPC haven't been sent.
        await asyncio.to_thread(until, lambda: any(pending(direct, thread) for thread in threads))
        for thread in threads:
            await asyncio.to_thread(overtake, direct, thread)
        link.cut()
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        for number, thread in enumerate(threads):
            told = [outcome is None for outcome in outcomes[2 * number : 2 * number + 2]]
            there = {task for task, _, _ in pending(direct, thread)}
            # Acknowledged writes are there, and refused ones aren't.
            assert told == [task in there for task, _ in tasks], outcomes
        assert None in outcomes
        assert all(outcome is None or isinstance(outcome, VersionConflictError) for outcome in outcomes)


def test_a_repeat_does_not_undo_what_the_same_task_wrote_later(
    saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink
) -> None:
    """Of two processes that resume from the same interrupt, one writes while the other's answer is lost."""
    thread = new_thread()
    put(direct, a_run(thread))
    one, other = a_run(thread), a_run(thread)
    at_one, at_other = (at(run, read(a_saver, run)) for run, a_saver in ((one, saver), (other, direct)))
    link.hold_answers()
    writing = InThread(lambda: saver.put_writes(at_one, [("__resume__", ["one"])], "task"))
    until(lambda: pending(direct, thread))
    direct.put_writes(at_other, [("__resume__", ["other"])], "task")
    link.cut()
    writing.result()
    assert pending(direct, thread) == [("task", "__resume__", ["other"])]


def test_a_copy(saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink) -> None:
    source, target = new_thread(), new_thread()
    build(direct).invoke(turn("one"), source)
    link.hold_answers()
    copying = InThread(
        lambda: saver.copy_thread(source["configurable"]["thread_id"], target["configurable"]["thread_id"])
    )
    until(lambda: history(direct, target))
    link.cut()
    copying.result()
    assert said(direct, target) == turns_of("one")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_whole_run_on_a_link_that_is_cut_again_and_again(
    saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink, durability: str
) -> None:
    thread = new_thread()
    for number in range(4):
        gate = Gate()
        who = f"turn {number}"
        graph = build(saver, gates={who: gate})
        run = InThread(partial(graph.invoke, turn(who), thread, durability=durability))
        assert gate.arrived.wait(30)
        until_saved(direct, thread, durability)
        link.hold_answers()
        gate.open.set()
        until(partial(has_passed_the_gate, direct, thread, who))
        link.cut()
        run.result()
    assert said(direct, thread) == [word for number in range(4) for word in turns_of(f"turn {number}")]


def has_passed_the_gate(saver: GrpcSaver, thread: RunnableConfig, who: str) -> bool:
    return f"{who}.middle" in said(saver, thread)


def direct_version(saver: GrpcSaver, thread: RunnableConfig) -> int:
    """The thread's version, which LangGraph's interface doesn't show."""
    response = saver._client.call(encode.get(thread))
    return int(response.version)
