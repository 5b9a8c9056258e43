"""The shapes of LangGraph's own benchmark graphs, rewritten from their description: a fan-out to subgraphs, and an
agent that calls tools.

- Fan-out: the root sends each subject of its input to a subgraph of its own, all in one step; each subgraph edits its
  subject, makes a joke of it and bumps it three times; the root joins the results.
- Agent with tools: a scripted model calls one tool after another, a given number of times, and then answers; the state
  is the chat.

Nothing in them takes time by itself, so the measured time is that of LangGraph and the saver.
"""

from __future__ import annotations

import operator
import uuid
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send

BUMPS = 3
"""The number of bumps of a subject in its subgraph."""
RESULT = "The weather is fine, with some wind from the west. " * 4
"""The result of a tool."""


class Overall(TypedDict):
    """The root's state."""

    subjects: list[str]
    jokes: Annotated[list[str], operator.add]


class Joke(TypedDict):
    """A subgraph's state."""

    subject: str
    jokes: Annotated[list[str], operator.add]
    bumps: int


class Chat(TypedDict):
    """The state of the agent with tools."""

    messages: Annotated[list[AnyMessage], add_messages]


def fan_out(saver: BaseCheckpointSaver[Any]) -> Any:
    """The fan-out, on a saver."""
    joke = StateGraph(Joke)
    joke.add_node("edit", _node(lambda state: {"subject": f"{state['subject']}, edited", "bumps": 0}))
    joke.add_node("generate", _node(lambda state: {"jokes": [f"A joke about {state['subject']}"]}))
    joke.add_node("bump", _node(lambda state: {"bumps": state["bumps"] + 1, "jokes": [f"bump {state['bumps']}"]}))
    joke.add_edge(START, "edit")
    joke.add_edge("edit", "generate")
    joke.add_edge("generate", "bump")
    joke.add_conditional_edges("bump", lambda state: "bump" if state["bumps"] < BUMPS else END, ["bump", END])

    root = StateGraph(Overall)
    root.add_node("generate_joke", joke.compile())
    root.add_conditional_edges(
        START,
        lambda state: [Send("generate_joke", {"subject": subject}) for subject in state["subjects"]],
        ["generate_joke"],
    )
    root.add_edge("generate_joke", END)
    return root.compile(checkpointer=saver)


def fan_out_input(width: int) -> dict[str, Any]:
    """Returns the input for this many subgraphs."""
    return {"subjects": [f"subject {number}" for number in range(width)], "jokes": []}


def react_agent(saver: BaseCheckpointSaver[Any], calls: int) -> Any:
    """Builds the agent that calls tools this many times, on a saver."""

    def model(state: Chat) -> dict[str, Any]:
        asked = sum(isinstance(message, ToolMessage) for message in state["messages"])
        if asked == calls:
            return {"messages": [AIMessage("It is fine.", id=str(uuid.uuid4()))]}
        call = {"name": "weather", "args": {"place": f"place {asked}"}, "id": str(uuid.uuid4()), "type": "tool_call"}
        return {"messages": [AIMessage(f"I ask for place {asked}.", tool_calls=[call], id=str(uuid.uuid4()))]}

    def tools(state: Chat) -> dict[str, Any]:
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        return {
            "messages": [
                ToolMessage(RESULT, tool_call_id=call["id"], name=call["name"], id=str(uuid.uuid4()))
                for call in last.tool_calls
            ]
        }

    def route(state: Chat) -> str:
        last = state["messages"][-1]
        return "tools" if isinstance(last, AIMessage) and last.tool_calls else END

    agent = StateGraph(Chat)
    agent.add_node("agent", _node(model))
    agent.add_node("tools", _node(tools))
    agent.add_edge(START, "agent")
    agent.add_conditional_edges("agent", route, ["tools", END])
    agent.add_edge("tools", "agent")
    return agent.compile(checkpointer=saver)


def react_input() -> dict[str, Any]:
    """The agent's input."""
    return {"messages": [HumanMessage("How is the weather everywhere?", id=str(uuid.uuid4()))]}


def config(steps: int) -> RunnableConfig:
    """Returns the config of a new thread, with room for this many steps."""
    return {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": steps}


def _node(step: Any) -> Any:
    async def astep(state: Any) -> Any:
        return step(state)

    return RunnableLambda(step, afunc=astep)
