"""The graphs of the scenarios. Each builder takes the ledger in which its nodes record that they ran.

Nodes are plain functions: they run on the event loop's thread pool under `ainvoke`, and in place under `invoke`. Those
that call something asynchronous have both forms (`RunnableCallable`, as LangGraph makes it of two functions).
"""

from __future__ import annotations

import itertools
import operator
import threading
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph._internal._runnable import RunnableCallable
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.pregel import Pregel
from langgraph.types import Command, Send, interrupt

from tests.support.comparison import Ledger

AnyGraph = StateGraph[Any, Any, Any, Any]
AnyPregel = Pregel[Any, Any, Any, Any]


class Chat(TypedDict, total=False):
    """A conversation."""

    messages: Annotated[list[AnyMessage], add_messages]
    topic: str
    turns: Annotated[int, operator.add]
    scratch: dict[str, Any]


def chat(ledger: Ledger) -> AnyGraph:
    """A model that answers, after a node that counts turns and records the topic once."""

    def listen(state: Chat) -> dict[str, Any]:
        ledger.ran("listen")
        first = state["messages"][0].text
        return {"turns": 1} if "topic" in state else {"turns": 1, "topic": first}

    def answer(state: Chat) -> dict[str, Any]:
        ledger.ran("answer")
        heard = state["messages"][-1]
        # Has its own id: add_messages would otherwise assign one while InMemorySaver serializes it in another thread.
        reply = AIMessage(f"You said: {heard.text}", id=f"reply-{len(state['messages'])}")
        return {"messages": [reply], "scratch": {"heard": (heard.text, len(heard.text))}}

    builder: AnyGraph = StateGraph(Chat)
    builder.add_node("listen", listen)
    builder.add_node("answer", answer)
    builder.add_edge(START, "listen")
    builder.add_edge("listen", "answer")
    return builder


class Trail(TypedDict, total=False):
    """Where a run has been."""

    path: Annotated[list[str], operator.add]
    answers: Annotated[list[Any], operator.add]


def line(ledger: Ledger, names: str = "abcd") -> AnyGraph:
    """Nodes one after another."""
    builder: AnyGraph = StateGraph(Trail)
    for name in names:

        def step(state: Trail, name: str = name) -> dict[str, Any]:
            ledger.ran(name)
            return {"path": [f"{name}{len(state['path'])}"]}

        builder.add_node(name, step)
    builder.add_edge(START, names[0])
    for before, after in itertools.pairwise(names):
        builder.add_edge(before, after)
    return builder


def approval(ledger: Ledger) -> AnyGraph:
    """A node that asks twice, between one before and one after. The answer decides where it goes."""

    def draft(state: Trail) -> dict[str, Any]:
        ledger.ran("draft")
        return {"path": ["draft"]}

    def review(state: Trail) -> Command[Any]:
        ledger.ran("review")
        verdict = interrupt({"question": "send it?", "draft": state["path"]})
        reason = interrupt(f"why {verdict}?")
        return Command(goto="send" if verdict == "yes" else END, update={"answers": [verdict, reason]})

    def send(state: Trail) -> dict[str, Any]:
        ledger.ran("send")
        return {"path": ["send"]}

    builder: AnyGraph = StateGraph(Trail)
    builder.add_node("draft", draft)
    builder.add_node("review", review, destinations=("send", END))
    builder.add_node("send", send)
    builder.add_edge(START, "draft")
    builder.add_edge("draft", "review")
    return builder


def several_interrupts(ledger: Ledger, asking: Sequence[str] = ("left", "middle", "right")) -> AnyGraph:
    """Parallel nodes that each ask something, and one that doesn't."""
    builder: AnyGraph = StateGraph(Trail)
    for name in asking:

        def ask(state: Trail, name: str = name) -> dict[str, Any]:
            ledger.ran(name)
            return {"answers": [(name, interrupt(f"{name}?"))]}

        builder.add_node(name, ask)
        builder.add_edge(START, name)
        builder.add_edge(name, "gather")

    def quiet(state: Trail) -> dict[str, Any]:
        ledger.ran("quiet")
        return {"path": ["quiet"]}

    def gather(state: Trail) -> dict[str, Any]:
        ledger.ran("gather")
        return {"path": ["gather"]}

    builder.add_node("quiet", quiet)
    builder.add_node("gather", gather, defer=True)
    builder.add_edge(START, "quiet")
    builder.add_edge("quiet", "gather")
    return builder


def one_fails(ledger: Ledger, may_fail: threading.Event) -> AnyGraph:
    """Two parallel nodes, one of which fails the first time, when allowed to."""

    def steady(state: Trail) -> dict[str, Any]:
        ledger.ran("steady")
        return {"path": ["steady"]}

    def shaky(state: Trail) -> dict[str, Any]:
        if ledger.ran("shaky") == 1:
            assert may_fail.wait(60)
            raise ConnectionError("the tool is away")
        return {"path": ["shaky"]}

    def join(state: Trail) -> dict[str, Any]:
        ledger.ran("join")
        return {"path": ["join"]}

    builder: AnyGraph = StateGraph(Trail)
    builder.add_node("steady", steady)
    builder.add_node("shaky", shaky)
    builder.add_node("join", join)
    builder.add_edge(START, "steady")
    builder.add_edge(START, "shaky")
    builder.add_edge(["steady", "shaky"], "join")
    return builder


class Work(TypedDict, total=False):
    """Items to work on and what came of them."""

    items: list[str]
    results: Annotated[list[str], operator.add]


class Item(TypedDict):
    """What a worker is sent."""

    item: str
    number: int


def fan_out(ledger: Ledger, *, asks: bool = False) -> AnyGraph:
    """A worker for each item, through Send; each may send another item. With `asks`, one asks before it works."""

    def plan(state: Work) -> dict[str, Any]:
        ledger.ran("plan")
        return {"results": [f"plan {len(state['items'])}"]}

    def send(state: Work) -> list[Send]:
        return [Send("worker", {"item": item, "number": number}) for number, item in enumerate(state["items"])]

    def worker(state: Item) -> Any:
        ledger.ran(f"worker {state['item']}")
        item = state["item"]
        if asks and item == "b":
            item = interrupt("which letter?")
        if item == "a":
            return Command(update={"results": ["a1"]}, goto=Send("worker", {"item": "aa", "number": 9}))
        return {"results": [f"{item}{state['number']}"]}

    def collect(state: Work) -> dict[str, Any]:
        ledger.ran("collect")
        return {"results": ["collected"], "items": []}

    builder: AnyGraph = StateGraph(Work)
    builder.add_node("plan", plan)
    builder.add_node("worker", worker)
    builder.add_node("collect", collect, defer=True)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", send, ["worker"])
    builder.add_edge("worker", "collect")
    return builder


def nested(ledger: Ledger, *, stateful: bool = False) -> AnyGraph:
    """A graph in a graph in a graph; the innermost asks. With `stateful`, the nested ones have their own memory."""
    memory = True if stateful else None

    def inner_work(state: Trail) -> dict[str, Any]:
        ledger.ran("inner_work")
        return {"path": [f"inner {len(state['path'])}"]}

    def inner_ask(state: Trail) -> dict[str, Any]:
        ledger.ran("inner_ask")
        return {"answers": [interrupt({"depth": 2, "seen": state["path"]})]}

    def middle_work(state: Trail) -> dict[str, Any]:
        ledger.ran("middle_work")
        return {"path": [f"middle {len(state['path'])}"]}

    def outer_work(state: Trail) -> dict[str, Any]:
        ledger.ran("outer_work")
        return {"path": ["outer"]}

    def outer_end(state: Trail) -> dict[str, Any]:
        ledger.ran("outer_end")
        return {"path": ["end"]}

    inner: AnyGraph = StateGraph(Trail)
    inner.add_node("inner_work", inner_work)
    inner.add_node("inner_ask", inner_ask)
    inner.add_edge(START, "inner_work")
    inner.add_edge("inner_work", "inner_ask")

    middle: AnyGraph = StateGraph(Trail)
    middle.add_node("middle_work", middle_work)
    middle.add_node("inner", inner.compile(checkpointer=memory))
    middle.add_edge(START, "middle_work")
    middle.add_edge("middle_work", "inner")

    outer: AnyGraph = StateGraph(Trail)
    outer.add_node("outer_work", outer_work)
    outer.add_node("middle", middle.compile(checkpointer=memory))
    outer.add_node("outer_end", outer_end)
    outer.add_edge(START, "outer_work")
    outer.add_edge("outer_work", "middle")
    outer.add_edge("middle", "outer_end")
    return outer


def called_within(ledger: Ledger) -> AnyGraph:
    """A node that calls a graph itself, blocking, whichever way it was called: it mustn't deadlock."""
    subgraph = approval(ledger).compile()

    def caller(state: Trail) -> dict[str, Any]:
        ledger.ran("caller")
        result = subgraph.invoke({"path": ["called"]})
        return {"path": result["path"], "answers": result["answers"]}

    async def acaller(state: Trail) -> dict[str, Any]:
        return caller(state)

    builder: AnyGraph = StateGraph(Trail)
    builder.add_node("caller", RunnableCallable(caller, acaller))
    builder.add_edge(START, "caller")
    return builder


def extend(state: list[Any], batches: Sequence[list[Any]]) -> list[Any]:
    """The reducer of a log."""
    return [*state, *(item for batch in batches for item in batch)]


class Log(TypedDict, total=False):
    """A log stored as deltas, with a snapshot every third update, and one that is too short for a snapshot."""

    log: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=3)]
    quiet: Annotated[list[Any], DeltaChannel(extend, list, snapshot_frequency=1000)]
    count: Annotated[int, operator.add]


def delta(ledger: Ledger, *, asks: bool = False) -> AnyGraph:
    """Two parallel nodes that write to one delta channel, then one more. With `asks`, that one asks first."""

    def left(state: Log) -> dict[str, Any]:
        ledger.ran("left")
        return {"log": [f"left {len(state['log'])}"], "count": 1}

    def right(state: Log) -> dict[str, Any]:
        ledger.ran("right")
        return {"log": [f"right {len(state['log'])}"], "quiet": [state.get("count")]}

    def last(state: Log) -> dict[str, Any]:
        ledger.ran("last")
        return {"log": [interrupt("what?") if asks else "last"]}

    builder: AnyGraph = StateGraph(Log)
    builder.add_node("left", left)
    builder.add_node("right", right)
    builder.add_node("last", last)
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge(["left", "right"], "last")
    return builder


def workflow(ledger: Ledger, saver: BaseCheckpointSaver[str], *, fails_once: bool = False) -> AnyPregel:
    """The functional API: parallel tasks, a question, and the value saved by the previous run."""

    @task
    def measure(word: str) -> int:
        if ledger.ran(f"measure {word}") == 1 and fails_once and word == "beta":
            raise ValueError("the scale is broken")
        return len(word)

    @entrypoint(checkpointer=saver)
    def flow(words: list[str], *, previous: dict[str, Any] | None = None) -> entrypoint.final[Any, Any]:
        ledger.ran("flow")
        lengths = [measure(word).result() for word in words] if fails_once else _all(measure, words)
        factor = interrupt({"lengths": lengths, "previous": previous})
        total = sum(lengths) * factor + (previous or {}).get("total", 0)
        return entrypoint.final(value=f"total {total}", save={"total": total, "words": tuple(words)})

    return flow


def _all(measure: Any, words: list[str]) -> list[int]:
    under_way = [measure(word) for word in words]
    return [future.result() for future in under_way]
