"""Threads of real graphs of every kind in a saver, and their continuation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.types import Command

from tests.support import graphs
from tests.support.comparison import Ledger
from tests.support.normal_form import Names, normal_form, readable

Saver = BaseCheckpointSaver[Any]


class Kind(NamedTuple):
    """A kind of graph."""

    build: Callable[[Saver], Any]
    """Compiles the graph."""
    before: Sequence[Any]
    """The inputs before the move, in order; an exception class is expected to end the input before it."""
    after: Sequence[Any]
    """The inputs after the move."""


def _may_fail() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _failing(saver: Saver) -> Any:
    # A new ledger each time: after the move `shaky` runs for the second time.
    ledger = Ledger()
    if list(saver.list({"configurable": {"thread_id": "fails"}}, limit=1)):
        ledger.ran("shaky")
    return graphs.one_fails(ledger, _may_fail()).compile(checkpointer=saver)


def _said(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=text)]}


KINDS: dict[str, Kind] = {
    "chat": Kind(
        lambda s: graphs.chat(Ledger()).compile(checkpointer=s), [_said("one"), _said("two")], [_said("three")]
    ),
    "line": Kind(lambda s: graphs.line(Ledger()).compile(checkpointer=s), [{"path": []}], [{"path": ["again"]}]),
    "asks": Kind(
        lambda s: graphs.approval(Ledger()).compile(checkpointer=s),
        [{"path": ["start"]}, Command(resume="yes")],
        [Command(resume="why not")],
    ),
    "several": Kind(
        lambda s: graphs.several_interrupts(Ledger()).compile(checkpointer=s),
        [{"path": ["start"]}],
        [],
    ),
    "fails": Kind(_failing, [{"path": ["start"]}, ConnectionError], [None]),
    "fans out": Kind(
        lambda s: graphs.fan_out(Ledger(), asks=True).compile(checkpointer=s),
        [{"items": ["a", "b", "c"]}],
        [Command(resume="z")],
    ),
    "nested": Kind(
        lambda s: graphs.nested(Ledger()).compile(checkpointer=s), [{"path": ["start"]}], [Command(resume="deep")]
    ),
    "nested with memory": Kind(
        lambda s: graphs.nested(Ledger(), stateful=True).compile(checkpointer=s),
        [{"path": ["start"]}, Command(resume="deep"), {"path": ["next"]}],
        [Command(resume="deeper")],
    ),
    "deltas": Kind(
        lambda s: graphs.delta(Ledger(), asks=True).compile(checkpointer=s),
        [{"log": ["one"]}, Command(resume="first"), {"log": ["two"]}],
        [Command(resume="second"), {"log": ["three"]}],
    ),
    "workflow": Kind(
        lambda s: graphs.workflow(Ledger(), s),
        [["alpha", "beta"], Command(resume=2), ["gamma"]],
        [Command(resume=3)],
    ),
}


def thread(name: str) -> RunnableConfig:
    """Returns the config of a kind's thread."""
    return {"configurable": {"thread_id": name}}


def invoke(graph: Any, name: str, inputs: Sequence[Any]) -> None:
    """Invokes a graph with each input."""
    for position, one in enumerate(inputs):
        following = inputs[position + 1] if position + 1 < len(inputs) else None
        if isinstance(one, type):
            continue
        try:
            # On SQLite the stock saver serializes in the background, while the graph changes the data.
            graph.invoke(one, thread(name), durability="sync")
        except Exception as error:
            if not isinstance(following, type) or not isinstance(error, following):
                raise


def play(saver: Saver) -> None:
    """Fills a saver with a thread of each kind."""
    for name, kind in KINDS.items():
        invoke(kind.build(saver), name, kind.before)


def contents(saver: Saver, name: str) -> list[CheckpointTuple]:
    """Returns all that a saver has of a thread, in a stable order."""
    found = list(saver.list(thread(name)))
    return sorted(found, key=lambda saved: (saved.checkpoint["id"], saved.config["configurable"]["checkpoint_ns"]))


def go_on(saver: Saver, name: str) -> str:
    """Continues a thread, and returns its visible state as text, with generated ids replaced."""
    kind = KINDS[name]
    graph = kind.build(saver)
    invoke(graph, name, kind.after)
    names = Names()
    history = normal_form(list(graph.get_state_history(thread(name))), names)
    return readable([history, normal_form(graph.get_state(thread(name), subgraphs=True), names)])
