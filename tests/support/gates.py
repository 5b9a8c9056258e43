"""A graph whose runs stop where a test wants them to, so that a collision happens in the order that the test says."""

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
"""How long a run waits at a gate, in seconds: on a busy machine, whoever is to open it may have to start first."""


class State(TypedDict):
    """Everything that was said on a thread, in order."""

    said: Annotated[list[str], operator.add]


class Gate:
    """Where a run waits: it says that it has arrived, and goes on when it is told to."""

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
    """A graph of three steps; in the second, the run whose input was in `gates` waits at its gate.

    With `nested`, the second step is taken, and waited in, by a subgraph with checkpoints of its own.
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
    """Whose run this is: the one whose input came last."""
    return next(word for word in reversed(state["said"]) if "." not in word)


def turn(who: str) -> dict[str, list[str]]:
    """The input of a run."""
    return {"said": [who]}


def turns_of(who: str) -> list[str]:
    """What a run that came through has said."""
    return [who, f"{who}.first", f"{who}.middle", f"{who}.last"]


def new_thread() -> RunnableConfig:
    """The config of a thread that nobody has used."""
    return {"configurable": {"thread_id": f"thread-{uuid.uuid4()}"}}


def until_saved(saver: GrpcSaver, config: RunnableConfig, durability: str) -> None:
    """Waits until what a run has done before its gate is stored: with "async" that happens in the background."""
    if durability != "exit":
        until(lambda: build(saver).get_state(config), lambda state: state.next == ("middle",))


class InThread:
    """A call that runs in a thread of its own, as another caller in the same process would make it."""

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
        """What the call returned; raises what it raised."""
        self._thread.join(30)
        assert not self._thread.is_alive(), "the call didn't end"
        if self._error is not None:
            raise self._error
        return self._result


def said(saver: GrpcSaver, config: RunnableConfig) -> list[str]:
    """What the thread's final state holds."""
    return list(build(saver).get_state(config).values.get("said", []))
