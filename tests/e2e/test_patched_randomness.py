"""Users' tests seed `random` and patch `uuid.uuid4`: what is stored stays the same, and the saver uses up nothing."""

from __future__ import annotations

import random
import uuid
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.grpc import Encryption, GrpcSaver, ServerUnavailableError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from tests.support.calls import Calls, checkpoint, config_of
from tests.support.server_process import ServerProcess

CONSTANT = uuid.UUID(int=7)


@pytest.fixture
def constant_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: CONSTANT)


class State(TypedDict):
    answers: list[str]


def ask(state: State) -> dict[str, list[str]]:
    return {"answers": [interrupt("first?"), interrupt("second?")]}


async def test_every_write_counts_though_ids_are_constant(calls: Calls, constant_ids: None) -> None:
    await calls.put(checkpoint("1", {"a": 1}))
    await calls.put(checkpoint("2", {"a": 2}, {"a": 2}), parent="1")
    await calls.write("2", [("__resume__", ["one"])])
    await calls.write("2", [("__resume__", ["one", "two"])])
    found = await calls.get()
    assert found.checkpoint["channel_values"] == {"a": 2}
    assert found.pending_writes == [("task", "__resume__", ["one", "two"])]


@pytest.mark.parametrize("awaited", [True, False])
async def test_a_run_is_resumed_though_ids_are_constant(
    awaited: bool, shared_server: ServerProcess, thread_id: str, constant_ids: None
) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        builder = StateGraph(State)
        builder.add_node("ask", ask)
        builder.add_edge(START, "ask")
        graph = builder.compile(checkpointer=saver)
        config = config_of(thread_id)
        inputs: list[Any] = [{"answers": []}, Command(resume="one"), Command(resume="two")]
        for given in inputs:
            state: Any = await graph.ainvoke(given, config) if awaited else graph.invoke(given, config)
        assert state["answers"] == ["one", "two"]


async def test_nothing_of_it_is_used_up(
    shared_server: ServerProcess, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected() -> uuid.UUID:
        raise AssertionError("an id that the user's test counts on was taken")

    monkeypatch.setattr(uuid, "uuid4", unexpected)
    random.seed(7)
    before = random.getstate()
    for options in ({}, {"encryption": Encryption(keys={"k": b"k" * 32}, current="k")}):
        name = f"{thread_id}{len(options)}"
        config = config_of(name)
        async with GrpcSaver(shared_server.target, **options) as saver:  # type: ignore[arg-type]
            saved = saver.put(config, checkpoint("1", {"a": 1}), {}, {"a": 1})
            await saver.aput(saved, checkpoint("2", {"a": 2}, {"a": 2}), {}, {"a": 2})
            await saver.aput_writes(config_of(name, "", "2"), [("a", 3)], "task")
            saver.put_writes(config_of(name, "", "2"), [("b", 3)], "task-2")
            saver.get_next_version(None, None)
            saver.copy_thread(name, f"{name}-copy")
            with saver.lease(name):
                saver.prune([name])
            saver.delete_thread(name)
    with GrpcSaver("127.0.0.1:1,127.0.0.1:2", retry_budget=0.3) as away, pytest.raises(ServerUnavailableError):
        away.get_tuple(config_of(thread_id))
    assert random.getstate() == before
