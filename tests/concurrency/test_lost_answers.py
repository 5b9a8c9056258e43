"""A write whose answer was lost is sent again: it succeeds, changes nothing and doesn't conflict with itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, requests

from tests.concurrency.gates import Gate, InThread, build, new_thread, said, turn, turns_of, until_saved
from tests.flaky_link import FlakyLink
from tests.server_process import ServerProcess


class Runtime:
    """Stands for LangGraph's runtime object: what makes calls belong to one run."""


@pytest.fixture
def link(shared_server: ServerProcess) -> Iterator[FlakyLink]:
    with FlakyLink(shared_server.target) as link:
        yield link


@pytest.fixture
def saver(link: FlakyLink) -> Iterator[GrpcSaver]:
    """The saver whose answers get lost."""
    with GrpcSaver(link.target) as saver:
        # So that there is a connection already, to lose answers on.
        saver.get_tuple(new_thread())
        yield saver


@pytest.fixture
def direct(shared_server: ServerProcess) -> Iterator[GrpcSaver]:
    """A saver on a good connection."""
    with GrpcSaver(shared_server.target) as saver:
        yield saver


def a_run(thread: RunnableConfig) -> RunnableConfig:
    """The config of a run's first read."""
    return {"configurable": {**thread["configurable"], "checkpoint_ns": "", "__pregel_runtime": Runtime()}}


def at(run: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {**run["configurable"], "checkpoint_id": checkpoint_id}}


def until_there(read: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not read():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def put(saver: GrpcSaver, run: RunnableConfig) -> RunnableConfig:
    return saver.put(
        run, {**empty_checkpoint(), "channel_values": {"a": 1}, "channel_versions": {"a": 1}}, {}, {"a": 1}
    )


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
    until_there(lambda: direct.get_tuple(thread))
    if overtaken:
        other = a_run(thread)
        stored = direct.get_tuple(other)
        assert stored is not None
        put(direct, at(other, stored.checkpoint["id"]))
    before = history(direct, thread)
    version = direct_version(direct, thread)
    link.cut()
    stored_config = putting.result()
    assert history(direct, thread) == before
    assert direct_version(direct, thread) == version
    if known_run and not overtaken:
        # The run goes on from what it has stored.
        put(saver, at(run, stored_config["configurable"]["checkpoint_id"]))


def test_task_writes(saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink) -> None:
    thread = new_thread()
    run = a_run(thread)
    assert saver.get_tuple(run) is None
    checkpoint_id = put(saver, run)["configurable"]["checkpoint_id"]
    link.hold_answers()
    writing = InThread(lambda: saver.put_writes(at(run, checkpoint_id), [("a", 1), ("__interrupt__", 2)], "task"))
    until_there(lambda: history(direct, thread)[0].pending_writes)
    before = history(direct, thread)
    link.cut()
    writing.result()
    assert history(direct, thread) == before


def test_a_copy(saver: GrpcSaver, direct: GrpcSaver, link: FlakyLink) -> None:
    source, target = new_thread(), new_thread()
    build(direct).invoke(turn("one"), source)
    link.hold_answers()
    copying = InThread(
        lambda: saver.copy_thread(source["configurable"]["thread_id"], target["configurable"]["thread_id"])
    )
    until_there(lambda: history(direct, target))
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
        until_there(partial(has_passed_the_gate, direct, thread, who))
        link.cut()
        run.result()
    assert said(direct, thread) == [word for number in range(4) for word in turns_of(f"turn {number}")]


def has_passed_the_gate(saver: GrpcSaver, thread: RunnableConfig, who: str) -> bool:
    return f"{who}.middle" in said(saver, thread)


def direct_version(saver: GrpcSaver, thread: RunnableConfig) -> int:
    """The thread's version, which LangGraph's interface doesn't show."""
    response = saver._caller.call("GetCheckpoint", lambda stubs: stubs.checkpoints.GetCheckpoint, requests.get(thread))
    return int(response.version)
