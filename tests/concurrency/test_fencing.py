"""Task writes of a run that lost are refused too, also if they race its own put; and no conflict is swallowed."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError
from langgraph.checkpoint.grpc._transport.waiters import ThreadWaiter
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from tests.support.gates import DURABILITIES, Gate, InThread, new_thread
from tests.support.runs import a_run, at
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned
from tests.support.until import auntil, until


def test_writes_beside_the_base_are_refused_once_another_has_put(saver: GrpcSaver) -> None:
    thread = new_thread()
    saver.put(a_run(thread), base := empty_checkpoint(), {}, {})
    stale, winner = a_run(thread), a_run(thread)
    saver.get_tuple(stale)
    saver.get_tuple(winner)
    saver.put_writes(at(stale, base), [("a", "in time")], "task 1")
    saver.put(at(winner, base), empty_checkpoint(), {}, {})
    with pytest.raises(VersionConflictError):
        saver.put_writes(at(stale, base), [("a", "too late")], "task 2")
    stored = saver.get_tuple(at(thread, base))
    assert stored is not None
    assert stored.pending_writes == [("task 1", "a", "in time")]


def test_a_stale_worker_cannot_write_beside_its_own_last_put(saver: GrpcSaver) -> None:
    thread = new_thread()
    stale = a_run(thread)
    saver.get_tuple(stale)
    saver.put(stale, own := empty_checkpoint(), {}, {})
    winner = a_run(thread)
    saver.get_tuple(winner)
    saver.put(at(winner, own), empty_checkpoint(), {}, {})
    with pytest.raises(VersionConflictError):
        saver.put_writes(at(stale, own), [("a", "too late")], "task")
    with pytest.raises(VersionConflictError):
        saver.put(at(stale, own), empty_checkpoint(), {}, {})
    stored = saver.get_tuple(at(thread, own))
    assert stored is not None
    assert stored.pending_writes == []


@pytest.fixture
def patient(shared_server: ServerProcess) -> Iterator[GrpcSaver]:
    """A saver whose writes wait for their put as long as it takes on a busy machine."""
    with tuned(put_expected_within=60.0)(shared_server.target) as saver:
        yield saver


def test_writes_that_race_their_own_put_fall_with_it(patient: GrpcSaver) -> None:
    saver, thread = patient, new_thread()
    loser, winner = a_run(thread), a_run(thread)
    saver.get_tuple(loser)
    saver.get_tuple(winner)
    own = empty_checkpoint()
    # The writes come first: they wait for the put of their checkpoint.
    early = InThread(lambda: saver.put_writes(at(loser, own), [("a", 1)], "task"))
    until(lambda: saver._runs.in_flight(thread["configurable"]["thread_id"], "", ThreadWaiter()))
    saver.put(winner, empty_checkpoint(), {}, {})
    saver.put(loser, own, {}, {})  # its conflict is raised by the writes
    with pytest.raises(VersionConflictError):
        early.result()
    with pytest.raises(VersionConflictError):
        saver.put(at(loser, own), empty_checkpoint(), {}, {})
    # The lost checkpoint isn't there, nor are its writes.
    saver.put({"configurable": {**thread["configurable"], "checkpoint_ns": ""}}, own, {}, {})
    stored = saver.get_tuple(at(thread, own))
    assert stored is not None
    assert stored.pending_writes == []


async def test_async_writes_that_race_their_own_put_are_stored_with_it(saver: GrpcSaver) -> None:
    thread = new_thread()
    run = a_run(thread)
    await saver.aget_tuple(run)
    own = empty_checkpoint()
    early = asyncio.create_task(saver.aput_writes(at(run, own), [("a", 1)], "task"))
    await asyncio.sleep(0)
    await saver.aput(run, own, {}, {})
    await early
    stored = await saver.aget_tuple(thread)
    assert stored is not None
    assert stored.pending_writes == [("task", "a", 1)]


def test_writes_beside_a_checkpoint_that_is_never_put_are_stored_all_the_same(saver: GrpcSaver) -> None:
    thread = new_thread()
    run = a_run(thread)
    saver.get_tuple(run)
    nowhere, own = empty_checkpoint(), empty_checkpoint()
    saver.put_writes(at(run, nowhere), [("a", 1)], "task")
    saver.put(run, own, {}, {})
    saver.put({"configurable": {**thread["configurable"], "checkpoint_ns": ""}}, nowhere, {}, {})
    stored = saver.get_tuple(at(thread, nowhere))
    assert stored is not None
    assert stored.pending_writes == [("task", "a", 1)]


def test_writes_and_puts_of_a_deleted_thread_are_refused(saver: GrpcSaver) -> None:
    thread = new_thread()
    run = a_run(thread)
    saver.get_tuple(run)
    saver.put(run, own := empty_checkpoint(), {}, {})
    saver.delete_thread(thread["configurable"]["thread_id"])
    for write in (
        lambda: saver.put_writes(at(run, own), [("a", 1)], "task"),
        lambda: saver.put(at(run, own), empty_checkpoint(), {}, {}),
    ):
        with pytest.raises(VersionConflictError) as conflict:
            write()
        assert conflict.value.current_version == 0
    assert list(saver.list(thread)) == []


def test_a_thread_deleted_and_made_anew_is_not_the_one_that_was_read(saver: GrpcSaver) -> None:
    thread = new_thread()
    saver.put(a_run(thread), base := empty_checkpoint(), {}, {})
    run = a_run(thread)
    saver.get_tuple(run)
    saver.delete_thread(thread["configurable"]["thread_id"])
    saver.put({"configurable": {**thread["configurable"], "checkpoint_ns": ""}}, base, {}, {})
    with pytest.raises(VersionConflictError):
        saver.put(at(run, base), empty_checkpoint(), {}, {})


class Answers(TypedDict):
    """A state of answers."""

    answers: Annotated[list[Any], operator.add]


def two_questions(saver: GrpcSaver, gates: dict[str, Gate], memory: bool | None) -> Any:
    """A graph whose subgraph asks, waits at the gate named by the answer, and asks again."""

    def first(state: Answers) -> Answers:
        who = interrupt("first?")
        if who in gates:
            gates[who].wait()
        return {"answers": [who]}

    async def afirst(state: Answers) -> Answers:
        who = interrupt("first?")
        if who in gates:
            await gates[who].await_open()
        return {"answers": [who]}

    inner = StateGraph(Answers)
    inner.add_node("first", RunnableLambda(first, afunc=afirst))
    inner.add_node("second", lambda state: {"answers": [interrupt("second?")]})
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    inner.add_edge("second", END)
    outer = StateGraph(Answers)
    outer.add_node("inner", inner.compile(checkpointer=memory))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", END)
    return outer.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("memory", [None, True], ids=["plain-subgraph", "subgraph-with-memory"])
def test_a_nested_graph_that_lost_and_ends_in_an_interrupt_tells_its_caller(
    saver: GrpcSaver, durability: str, memory: bool | None
) -> None:
    config = new_thread()
    gate = Gate()
    graph = two_questions(saver, {"slow": gate}, memory)
    graph.invoke({"answers": []}, config, durability=durability)
    slow = InThread(lambda: graph.invoke(Command(resume="slow"), config, durability=durability))
    assert gate.arrived.wait(30)
    two_questions(saver, {}, memory).invoke(Command(resume="fast"), config, durability=durability)
    gate.open.set()
    with pytest.raises(VersionConflictError) as conflict:
        slow.result()
    assert conflict.value.checkpoint_ns.startswith("inner")
    final = two_questions(saver, {}, memory).invoke(Command(resume="done"), config, durability=durability)
    assert "slow" not in final["answers"]
    assert final["answers"][-2:] == ["fast", "done"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_an_async_nested_graph_that_lost_and_ends_in_an_interrupt_tells_its_caller(
    saver: GrpcSaver, durability: str
) -> None:
    config = new_thread()
    gate = Gate()
    graph = two_questions(saver, {"slow": gate}, None)
    await graph.ainvoke({"answers": []}, config, durability=durability)
    slow = asyncio.create_task(graph.ainvoke(Command(resume="slow"), config, durability=durability))
    await auntil(gate.arrived.is_set)
    await two_questions(saver, {}, None).ainvoke(Command(resume="fast"), config, durability=durability)
    gate.open.set()
    with pytest.raises(VersionConflictError):
        await slow
    final = await two_questions(saver, {}, None).ainvoke(Command(resume="done"), config, durability=durability)
    assert "slow" not in final["answers"]
