"""After a run a saver holds none of the user's objects: not its context, not its state, not its exceptions."""

from __future__ import annotations

import gc
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.grpc import GrpcSaver, WriteConflictError
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import Command, interrupt

from tests.support.calls import config_of
from tests.support.server_process import ServerProcess

RUNS = 5
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "custom": {"stream_mode": "custom"},
    "subgraphs": {"subgraphs": True},
    "exit": {"durability": "exit"},
}
alive: weakref.WeakSet[Any] = weakref.WeakSet()


@dataclass(eq=False)
class Context:
    """An object that a user passes to a run: a connection, say, or a megabyte of data."""

    kind: str
    payload: bytearray = field(default_factory=lambda: bytearray(1000))

    def __post_init__(self) -> None:
        alive.add(self)


class Value(dict[str, int]):
    """A part of the state that can be counted."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        alive.add(self)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


class State(TypedDict, total=False):
    values: Annotated[list[Any], lambda old, new: [*old, *new][-2:]]


class Failure(Exception):
    pass


def graph_on(saver: BaseCheckpointSaver[str]) -> Any:
    inner: Any = StateGraph(State, context_schema=Context)
    inner.add_node("deep", lambda state, runtime: {"values": [Value(a=1)]})
    inner.add_edge(START, "deep")
    other = inner.compile(checkpointer=saver)

    def work(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
        assert get_runtime(Context).context is runtime.context
        kind = runtime.context.kind
        runtime.stream_writer("event")
        if kind == "fails":
            raise Failure
        if kind == "asks":
            interrupt("?")
        if kind == "nests":
            # Agents on threads of their own, one after the other.
            for name in ("one", "two"):
                other.invoke({"values": [Value(b=1)]}, config_of(f"{id(saver)} {name}"), context=runtime.context)
        if kind == "loses" and isinstance(saver, GrpcSaver):
            rival = graph_on(saver.__copy__())
            rival.update_state(config_of(f"{id(saver)}"), {"values": []}, as_node="work")
        return {"values": [Value(a=1)]}

    builder: Any = StateGraph(State, context_schema=Context)
    builder.add_node("work", work)
    builder.add_node("inner", inner.compile())
    builder.add_edge(START, "work")
    builder.add_edge("work", "inner")
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=["grpc", "memory"])
def saver(request: pytest.FixtureRequest, shared_server: ServerProcess) -> Iterator[BaseCheckpointSaver[str]]:
    """Each saver: with InMemorySaver the tests show that LangGraph itself holds nothing."""
    alive.clear()
    if request.param == "memory":
        yield InMemorySaver()
        return
    with GrpcSaver(shared_server.target) as saver:
        yield saver


def await_collected() -> None:
    """Waits until nothing is left: threads and tasks of LangGraph may still be ending."""
    for _ in range(100):
        gc.collect()
        if not alive:
            return
        time.sleep(0.05)
    assert list(alive) == []


def given() -> dict[str, Any]:
    return {"values": [Value(a=1)]}


@pytest.mark.parametrize("kind", ["plain", "fails", "asks", "nests", "loses"])
@pytest.mark.parametrize("mode", MODES)
def test_blocking(saver: BaseCheckpointSaver[str], kind: str, mode: str) -> None:
    graph = graph_on(saver)
    config = config_of(f"{id(saver)}")
    for _ in range(RUNS):
        with suppress(Failure, WriteConflictError):
            deque(graph.stream(given(), config, context=Context(kind), **MODES[mode]), maxlen=0)
        if kind == "asks":
            graph.invoke(Command(resume="yes"), config, context=Context(kind))
    await_collected()


@pytest.mark.parametrize("kind", ["plain", "fails", "asks", "nests"])
@pytest.mark.parametrize("mode", ["values", "custom"])
async def test_awaiting(saver: BaseCheckpointSaver[str], kind: str, mode: str) -> None:
    graph = graph_on(saver)
    config = config_of(f"{id(saver)}")
    for _ in range(RUNS):
        try:
            async for _event in graph.astream(given(), config, context=Context(kind), stream_mode=mode):
                pass
        except Failure:
            pass
        _event = None
    await_collected()
