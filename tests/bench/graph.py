"""A graph of six nodes, like a small agent's: the cost of a run with each saver."""

from __future__ import annotations

import itertools
import operator
import uuid
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph

from tests.bench.agents import message

NODES = ("receive", "plan", "search", "read", "draft", "answer")


class State(TypedDict):
    """A chat, and how many steps it took."""

    messages: Annotated[list[AnyMessage], operator.add]
    steps: Annotated[int, operator.add]


def build(saver: BaseCheckpointSaver[Any]) -> Any:
    """Builds the graph on a saver. Its nodes only add a message: the measured time is LangGraph's and the saver's."""

    def node(number: int) -> Any:
        def step(state: State) -> State:
            return {"messages": [message(number)], "steps": 1}

        async def astep(state: State) -> State:
            return step(state)

        return RunnableLambda(step, afunc=astep)

    builder = StateGraph(State)
    for number, name in enumerate(NODES):
        builder.add_node(name, node(number))
    builder.add_edge(START, NODES[0])
    for before, after in itertools.pairwise(NODES):
        builder.add_edge(before, after)
    builder.add_edge(NODES[-1], END)
    return builder.compile(checkpointer=saver)


def new_thread() -> RunnableConfig:
    """The config of an unused thread."""
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


def first_input() -> dict[str, Any]:
    """The input of a run: a chat of 20 messages."""
    return {"messages": [message(number) for number in range(20)], "steps": 0}
