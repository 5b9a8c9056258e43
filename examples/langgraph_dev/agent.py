"""An agent that asks before it sends: no model, no key."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import interrupt


class State(TypedDict, total=False):
    """The agent's state."""

    request: str
    seconds: float
    """How long a draft takes: time to send the next message into the run, or to roll it back."""
    log: Annotated[list[str], operator.add]


async def draft(state: State) -> dict[str, Any]:
    """Writes a draft."""
    await asyncio.sleep(state.get("seconds", 0))
    return {"log": [f"draft: {state['request']}"]}


def review(state: State) -> dict[str, Any]:
    """Asks a human, who answers in Studio or by the API."""
    answer = interrupt({"question": "Send it?", "draft": state["log"][-1]})
    return {"log": [f"review: {answer}"]}


def send(state: State, *, store: BaseStore) -> dict[str, Any]:
    """Sends it or doesn't, and records which in the store, for other threads."""
    outcome = "sent" if state["log"][-1] == "review: yes" else "dropped"
    store.put(("requests",), state["request"], {"outcome": outcome})
    return {"log": [outcome]}


builder: Any = StateGraph(State)
builder.add_node("draft", draft)
builder.add_node("review", review)
builder.add_node("send", send)
builder.add_edge(START, "draft")
builder.add_edge("draft", "review")
builder.add_edge("review", "send")
builder.add_edge("send", END)

# Without a checkpointer: LangGraph's server gives it the one that langgraph.json names.
graph = builder.compile()
