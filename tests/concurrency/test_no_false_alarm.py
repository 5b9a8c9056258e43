"""Without collisions, users don't notice that versions exist."""

from __future__ import annotations

import asyncio
import itertools
import operator
import time
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import langgraph.checkpoint.base.id as checkpoint_ids
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, StateUpdate, interrupt

from tests.concurrency.ways import durabilities
from tests.support.gates import State, build, new_thread, said, turn, turns_of


@durabilities
def test_turns_one_after_another_from_different_savers(saver: GrpcSaver, other: GrpcSaver, durability: str) -> None:
    config = new_thread()
    for number, each in enumerate([saver, other, other, saver, saver, other]):
        build(each).invoke(turn(f"turn {number}"), config, durability=durability)
    assert said(saver, config) == [word for number in range(6) for word in turns_of(f"turn {number}")]


@durabilities
async def test_sync_and_async_turns_alternate_through_one_saver(saver: GrpcSaver, durability: str) -> None:
    config = new_thread()
    for number in range(6):
        if number % 2:
            await build(saver).ainvoke(turn(f"turn {number}"), config, durability=durability)
        else:
            build(saver).invoke(turn(f"turn {number}"), config, durability=durability)
    assert len(said(saver, config)) == 24


@durabilities
def test_many_threads_at_once_through_one_saver(saver: GrpcSaver, durability: str) -> None:
    async def main() -> None:
        await asyncio.gather(
            *(build(saver).ainvoke(turn("hello"), new_thread(), durability=durability) for _ in range(16))
        )

    asyncio.run(main())


@durabilities
def test_replays_and_forks_of_every_past_checkpoint(saver: GrpcSaver, other: GrpcSaver, durability: str) -> None:
    config = new_thread()
    graph = build(saver)
    graph.invoke(turn("one"), config)
    graph.invoke(turn("two"), config)
    for past in list(graph.get_state_history(config)):
        build(other).invoke(None, past.config, durability=durability)
        build(other).invoke(turn("a branch"), past.config, durability=durability)
        forked = graph.update_state(past.config, turn("a person"), as_node="first")
        graph.invoke(None, forked, durability=durability)


@durabilities
async def test_replays_and_forks_of_every_past_checkpoint_async(saver: GrpcSaver, durability: str) -> None:
    config = new_thread()
    graph = build(saver)
    await graph.ainvoke(turn("one"), config)
    async for past in graph.aget_state_history(config):
        await graph.ainvoke(None, past.config, durability=durability)
        forked = await graph.aupdate_state(past.config, turn("a person"), as_node="first")
        await graph.ainvoke(None, forked, durability=durability)


def test_updates_one_after_another_and_in_bulk(saver: GrpcSaver, other: GrpcSaver) -> None:
    config = new_thread()
    build(saver).update_state(config, turn("first of all"), as_node="last")
    for number in range(4):
        build(other if number % 2 else saver).update_state(config, turn(f"update {number}"), as_node="last")
    build(saver).bulk_update_state(
        config, [[StateUpdate(turn("bulk 1"), "last")], [StateUpdate(turn("bulk 2"), "last")]]
    )
    build(other).invoke(turn("then"), config)
    assert said(saver, config)[:1] == ["first of all"]
    assert len(said(saver, config)) == 7 + 4


def test_reading_the_state_first_changes_nothing(saver: GrpcSaver, other: GrpcSaver) -> None:
    """A read without a run is a base for updates only, and each update reads again."""
    config = new_thread()
    graph = build(saver)
    graph.get_state(config)
    build(other).invoke(turn("one"), config)
    graph.get_state(config)
    build(other).invoke(turn("two"), config)
    graph.update_state(config, turn("a person"), as_node="last")
    graph.invoke(turn("three"), config)


def test_a_put_by_hand_is_unconditional(saver: GrpcSaver, other: GrpcSaver) -> None:
    config = new_thread()
    build(saver).invoke(turn("one"), config)
    mine = saver.get_tuple(config)
    assert mine is not None
    build(other).invoke(turn("two"), config)
    hand_made: RunnableConfig = {
        "configurable": {"thread_id": config["configurable"]["thread_id"], "checkpoint_ns": ""}
    }
    saver.put(hand_made, empty_checkpoint(), {"step": 7}, {})


@durabilities
def test_a_thread_deleted_and_made_anew(saver: GrpcSaver, other: GrpcSaver, durability: str) -> None:
    config = new_thread()
    for _ in range(3):
        build(saver).invoke(turn("one"), config, durability=durability)
        other.delete_thread(config["configurable"]["thread_id"])
        build(saver).invoke(turn("two"), config, durability=durability)
        assert said(saver, config) == turns_of("two")


class Ask(TypedDict):
    """A state of answers."""

    answers: Annotated[list[Any], operator.add]


def asking(saver: BaseCheckpointSaver[Any], *, memory: bool | None = None) -> Any:
    """A graph with two subgraphs side by side, each of which asks two questions; its first step fails once."""
    tries = itertools.count()

    def flaky(state: Ask) -> Ask:
        if next(tries) == 0:
            raise ConnectionError("once")
        return {"answers": ["ready"]}

    def subgraph(name: str) -> Any:
        inner = StateGraph(Ask)
        inner.add_node("one", lambda state: {"answers": [interrupt(f"{name} one?")]})
        inner.add_node("two", lambda state: {"answers": [interrupt(f"{name} two?")]})
        inner.add_edge(START, "one")
        inner.add_edge("one", "two")
        inner.add_edge("two", END)
        return inner.compile(checkpointer=memory)

    builder = StateGraph(Ask)
    builder.add_node("flaky", flaky, retry_policy=RetryPolicy(initial_interval=0.001, retry_on=ConnectionError))
    builder.add_node("left", subgraph("left"))
    builder.add_node("right", subgraph("right"))
    builder.add_node("worker", lambda state: {"answers": [state["number"]]})
    builder.add_edge(START, "flaky")
    builder.add_edge("flaky", "left")
    builder.add_edge("flaky", "right")
    builder.add_conditional_edges(
        "left", lambda state: [Send("worker", {"number": number}) for number in range(5)], ["worker"]
    )
    builder.add_edge("worker", END)
    return builder.compile(checkpointer=saver)


@durabilities
@pytest.mark.parametrize("memory", [None, True], ids=["plain-subgraphs", "subgraphs-with-memory"])
def test_questions_of_nested_graphs_answered_elsewhere(
    saver: GrpcSaver, other: GrpcSaver, durability: str, memory: bool | None
) -> None:
    def talk(savers: Sequence[BaseCheckpointSaver[Any]]) -> list[Any]:
        config = new_thread()
        for _ in range(2):
            asking(savers[0], memory=memory).invoke({"answers": []}, config, durability=durability)
            for each in itertools.cycle(savers):
                questions = asking(each, memory=memory).get_state(config).interrupts
                if not questions:
                    break
                answers = {question.id: f"yes to {question.value}" for question in questions}
                asking(each, memory=memory).invoke(Command(resume=answers), config, durability=durability)
        return list(asking(savers[0], memory=memory).get_state(config).values["answers"])

    assert talk([saver, other]) == talk([InMemorySaver()])


@durabilities
async def test_questions_of_nested_graphs_answered_elsewhere_async(
    saver: GrpcSaver, other: GrpcSaver, durability: str
) -> None:
    config = new_thread()
    await asking(saver).ainvoke({"answers": []}, config, durability=durability)
    while questions := (await asking(other).aget_state(config)).interrupts:
        # One at a time: the other question is still open after the resumption.
        await asking(other).ainvoke(Command(resume={questions[0].id: "yes"}), config, durability=durability)
    assert (await asking(saver).aget_state(config)).next == ()


@durabilities
def test_a_stream_that_nobody_reads_to_its_end(saver: GrpcSaver, durability: str) -> None:
    config = new_thread()
    for number in range(5):
        for _ in build(saver).stream(turn(f"turn {number}"), config, durability=durability):
            break
        build(saver).invoke(turn("another"), config, durability=durability)


@durabilities
def test_clocks_that_step_backwards_between_two_hosts(
    saver: GrpcSaver, other: GrpcSaver, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are not in order then: the last checkpoint isn't the one with the greatest id."""
    config = new_thread()
    build(saver).invoke(turn("by the right clock"), config, durability=durability)
    hour = 3600 * 10**9
    with monkeypatch.context() as slow_clock:
        slow_clock.setattr(time, "time_ns", lambda now=time.time_ns: now() - hour)
        slow_clock.setattr(checkpoint_ids, "_last_v6_timestamp", None)
        for number in range(3):
            build(other).invoke(turn(f"by a slow clock {number}"), config, durability=durability)
    monkeypatch.setattr(checkpoint_ids, "_last_v6_timestamp", None)
    build(saver).invoke(turn("by the right clock again"), config, durability=durability)
    assert said(saver, config) == [*turns_of("by the right clock"), *turns_of("by the right clock again")]


@durabilities
def test_a_pruned_thread_goes_on(
    saver: GrpcSaver, other: GrpcSaver, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = new_thread()
    build(saver).invoke(turn("one"), config, durability=durability)
    saver.prune([config["configurable"]["thread_id"]])
    with monkeypatch.context() as slow_clock:
        slow_clock.setattr(time, "time_ns", lambda now=time.time_ns: now() - 3600 * 10**9)
        slow_clock.setattr(checkpoint_ids, "_last_v6_timestamp", None)
        build(other).invoke(turn("two"), config, durability=durability)
    monkeypatch.setattr(checkpoint_ids, "_last_v6_timestamp", None)
    build(saver).invoke(turn("three"), config, durability=durability)


def test_values_come_through_a_state_graph(saver: GrpcSaver) -> None:
    """The graph of the other tests returns the state that they rely on."""
    config = new_thread()
    state: State = build(saver).invoke(turn("one"), config)
    assert state["said"] == turns_of("one")
