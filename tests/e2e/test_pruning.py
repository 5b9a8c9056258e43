"""Pruning loses nothing of a thread's present state, whatever made it: runs, answers, updates, copies, forks.

Before each prune the thread is copied. The copy isn't pruned, and both continue with the same steps.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from tests.support.calls import Calls, checkpoint, config_of
from tests.support.graphs import extend
from tests.support.server_process import ServerProcess


class State(TypedDict, total=False):
    """Channels that are stored whole, and two logs that are stored as deltas, with snapshots now and then."""

    asks: bool
    fan: int
    plain: Annotated[list[Any], operator.add]
    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=3)]
    rare: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=50)]


def first(state: State) -> dict[str, Any]:
    return {"plain": ["first"], "log": [f"first {len(state.get('log') or ())}"]}


def work(given: dict[str, int]) -> dict[str, Any]:
    return {"log": [f"work {given['number']}"], "rare": [given["number"]]}


def last(state: State) -> dict[str, Any]:
    answer = interrupt("which?") if state.get("asks") else "none"
    return {"log": [f"last {answer}"], "plain": [answer]}


def graph_on(saver: GrpcSaver) -> Any:
    builder: Any = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("work", work)
    builder.add_node("last", last)
    builder.add_edge(START, "first")
    builder.add_conditional_edges(
        "first",
        lambda state: [Send("work", {"number": n}) for n in range(state.get("fan", 0))] or "last",
        ["work", "last"],
    )
    builder.add_edge("work", "last")
    builder.add_edge("last", END)
    return builder.compile(checkpointer=saver)


class UncountingSaver(GrpcSaver):
    """Stores what LangGraph stored up to 1.2.11: only its loop counted updates of delta channels."""

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if "__pregel_runtime" not in config["configurable"]:
            metadata.pop("counters_since_delta_snapshot", None)
        return super().put(config, checkpoint, metadata, new_versions)


@pytest.fixture(params=[GrpcSaver, UncountingSaver])
def saver(request: pytest.FixtureRequest, shared_server: ServerProcess) -> Iterator[GrpcSaver]:
    with request.param(shared_server.target) as saver:
        yield saver


def seen(graph: Any, thread: str) -> tuple[Any, ...]:
    """Returns what a user sees of a thread's present state."""
    state = graph.get_state(config_of(thread))
    tasks = [(task.name, [found.value for found in task.interrupts]) for task in state.tasks]
    return state.values, state.next, tasks


def test_a_copied_head_keeps_its_deltas(saver: GrpcSaver, thread_id: str) -> None:
    graph = graph_on(saver)
    graph.invoke({"log": ["in"], "rare": ["in"]}, config_of(thread_id))
    graph.update_state(config_of(thread_id), None, as_node="__copy__")
    before = seen(graph, thread_id)
    assert before[0]["rare"] == ["in"]
    saver.prune([thread_id])
    assert seen(graph, thread_id) == before


def step(graph: Any, thread: str, choice: random.Random) -> None:
    """Does one thing that users do. The same choices do the same on a copy of the thread."""
    config = config_of(thread)
    state = graph.get_state(config)
    pending = [found for task in state.tasks for found in task.interrupts]
    number = choice.randrange(100)
    kind = choice.choice(["run", "run", "run", "resume", "update", "copy", "input", "end", "fork", "replay"])
    given = {"log": [number], "plain": [number], "asks": choice.random() < 0.3, "fan": choice.randrange(3)}
    back = choice.randrange(4)
    durability = choice.choice(["sync", "async", "exit"])
    if kind == "resume" and pending:
        graph.invoke(Command(resume=number), config, durability=durability)
    elif kind in ("update", "input") and state.values:
        graph.update_state(
            config,
            given if kind == "input" else {"log": [number]},
            as_node="first" if kind == "update" else "__input__",
        )
    elif kind == "copy" and state.values:
        graph.update_state(config, None, as_node="__copy__")
    elif kind == "end" and state.values:
        graph.update_state(config, None, as_node=END)
    elif kind in ("fork", "replay") and state.values:
        history = list(graph.get_state_history(config))
        past = history[min(back, len(history) - 1)].config
        if kind == "fork":
            past = graph.update_state(past, {"log": [f"fork {number}"]}, as_node="first")
        graph.invoke(None, past, durability=durability)
    else:
        graph.invoke(given, config, durability=durability)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_at_random(saver: GrpcSaver, thread_id: str, seed: int) -> None:
    graph = graph_on(saver)
    choice = random.Random(seed)
    graph.invoke({"log": ["in"], "rare": [], "plain": []}, config_of(thread_id))
    for turn in range(14):
        step(graph, thread_id, choice)
        if choice.random() < 0.5:
            continue
        copy = f"{thread_id} {turn}"
        saver.copy_thread(thread_id, copy)
        before = seen(graph, thread_id)
        saver.prune([thread_id])
        assert seen(graph, thread_id) == before == seen(graph, copy)
        for thread in (thread_id, copy):
            on: Any = (
                Command(resume="on")
                if any(questions for _, questions in before[2])
                else {"log": ["on"], "rare": ["on"]}
            )
            graph.invoke(on, config_of(thread))
        assert seen(graph, thread_id) == seen(graph, copy)


async def test_sends_that_wait_beside_the_parent_stay(calls: Calls) -> None:
    """As they were stored up to format 3."""
    await calls.put(checkpoint("1", {"a": 1}, v=3))
    await calls.put(checkpoint("2", {"a": 1}, v=3), parent="1")
    await calls.put(checkpoint("3", {"a": 1}, v=3), parent="2")
    await calls.write("2", [("__pregel_tasks", "send")])
    before = await calls.get()
    assert before.checkpoint["channel_values"]["__pregel_tasks"] == ["send"]
    await calls.do("prune", [calls.thread_id])
    after = await calls.get()
    assert after.checkpoint["channel_values"] == before.checkpoint["channel_values"]
    assert await calls.ids(config_of(calls.thread_id)) == ["3", "2"]


async def test_the_kept_head_has_no_parent(calls: Calls) -> None:
    await calls.put(checkpoint("1", {"a": 1}))
    await calls.put(checkpoint("2", {"a": 2}, {"a": 2}), parent="1")
    await calls.do("prune", [calls.thread_id])
    assert (await calls.get()).parent_config is None
    [listed] = await calls.listed(config_of(calls.thread_id))
    assert listed.parent_config is None


@pytest.mark.parametrize("strategy", ["delete", "delete_all"])
async def test_the_whole_thread_goes_by_either_name(calls: Calls, strategy: str) -> None:
    await calls.put(checkpoint("1", {"a": 1}))
    await calls.do("prune", [calls.thread_id], strategy=strategy)
    assert await calls.ids(config_of(calls.thread_id)) == []
