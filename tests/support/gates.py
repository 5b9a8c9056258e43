"""A graph whose runs stop at gates, so conflicts happen in the order that a test chooses."""

from __future__ import annotations

import operator
import threading
import uuid
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import END, START, StateGraph

from tests.support.until import auntil, until

DURABILITIES = ("sync", "async", "exit")
LONGEST_WAIT = 100.0
"""How long a run waits at a gate, in seconds: on a busy machine, the process that opens it may have to start first."""


class State(TypedDict):
    """Everything that was said in a thread, in order."""

    said: Annotated[list[str], operator.add]


class Gate:
    """A gate, where a run reports its arrival and waits to continue."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.open = threading.Event()

    def wait(self) -> None:
        """Waits in a thread."""
        self.arrived.set()
        assert self.open.wait(LONGEST_WAIT), "nobody opened the gate"

    async def await_open(self) -> None:
        """Waits in an event loop."""
        self.arrived.set()
        await auntil(self.open.is_set, timeout=LONGEST_WAIT)


def build(saver: BaseCheckpointSaver[Any], *, gates: dict[str, Gate] | None = None, nested: bool = False) -> Any:
    """Builds a graph of three steps; in the second, a run whose input is in `gates` waits at its gate.

    With `nested`, the second step, with the gate, is a subgraph with its own checkpoints.
    """
    stops = gates or {}

    def step(name: str) -> Any:
        return lambda state: {"said": [f"{_speaker(state)}.{name}"]}

    def middle(state: State) -> State:
        if (gate := stops.get(_speaker(state))) is not None:
            gate.wait()
        return {"said": [f"{_speaker(state)}.middle"]}

    async def amiddle(state: State) -> State:
        if (gate := stops.get(_speaker(state))) is not None:
            await gate.await_open()
        return {"said": [f"{_speaker(state)}.middle"]}

    within = StateGraph(State)
    within.add_node("inner", RunnableLambda(middle, afunc=amiddle))
    within.add_edge(START, "inner")
    within.add_edge("inner", END)
    subgraph = within.compile()

    def call_subgraph(state: State) -> State:
        return {"said": subgraph.invoke(state)["said"][-1:]}

    async def acall_subgraph(state: State) -> State:
        return {"said": (await subgraph.ainvoke(state))["said"][-1:]}

    builder = StateGraph(State)
    builder.add_node("first", step("first"))
    if nested:
        builder.add_node("middle", RunnableLambda(call_subgraph, afunc=acall_subgraph))
    else:
        builder.add_node("middle", RunnableLambda(middle, afunc=amiddle))
    builder.add_node("last", step("last"))
    builder.add_edge(START, "first")
    builder.add_edge("first", "middle")
    builder.add_edge("middle", "last")
    builder.add_edge("last", END)
    return builder.compile(checkpointer=saver)


def _speaker(state: State) -> str:
    """Identifies the run by its last input."""
    return next(word for word in reversed(state["said"]) if "." not in word)


def turn(who: str) -> dict[str, list[str]]:
    """The input of a run."""
    return {"said": [who]}


def turns_of(who: str) -> list[str]:
    """The messages of a completed run."""
    return [who, f"{who}.first", f"{who}.middle", f"{who}.last"]


def new_thread() -> RunnableConfig:
    """The config of an unused thread."""
    return {"configurable": {"thread_id": f"thread-{uuid.uuid4()}"}}


def until_saved(saver: GrpcSaver, config: RunnableConfig, durability: str) -> None:
    """Waits until the run's steps before its gate are stored: with "async" that happens in the background."""
    if durability != "exit":
        until(lambda: build(saver).get_state(config), lambda state: state.next == ("middle",))


class InThread:
    """A call in its own thread, like one by another caller in the same process."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Returns the call's result, or raises its error."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "the call didn't end"
        if self._error is not None:
            raise self._error
        return self._result


def said(saver: GrpcSaver, config: RunnableConfig) -> list[str]:
    """Returns the contents of the thread's final state."""
    return list(build(saver).get_state(config).values.get("said", []))
