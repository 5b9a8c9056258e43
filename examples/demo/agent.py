"""The support agent: an ordinary LangGraph graph. Its model is a script, so that no key is needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from examples.demo.shop import Shop

TICKET = "The lamp from order 1042 arrived broken. I'd like my money back."


class Ticket(MessagesState):
    """The agent's state: the conversation, and what it proposes to pay back."""

    order_id: str
    refund: float


class ScriptedModel:
    """Takes the place of a language model.

    Args:
        stalls: True for a model that never answers the second question, so that there is time to kill the agent.
    """

    def __init__(self, *, stalls: bool = False) -> None:
        self._stalls = stalls

    def invoke(self, messages: Sequence[AnyMessage]) -> AIMessage:
        """Returns the next message: first a tool call, then a proposal."""
        last = messages[-1]
        if isinstance(last, HumanMessage):
            call = {"name": "look_up_order", "args": {"order_id": "1042"}, "id": "call-1"}
            return AIMessage("I'll look up the order.", tool_calls=[call])
        if self._stalls:
            time.sleep(60)
        return AIMessage("It was paid and arrived broken: I propose to pay back 49.90 EUR.")


def support_agent(shop: Shop, model: ScriptedModel) -> StateGraph[Ticket, Any, Any, Any]:
    """Builds the graph: read_ticket, tools, propose, ask_human, and then refund or decline."""

    @tool
    def look_up_order(order_id: str) -> dict[str, Any]:
        """Looks up an order of the shop."""
        return shop.look_up(order_id)

    def read_ticket(state: Ticket) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    def propose(state: Ticket) -> dict[str, Any]:
        answer = model.invoke(state["messages"])
        found = next(message for message in reversed(state["messages"]) if isinstance(message, ToolMessage))
        return {"messages": [answer], "order_id": "1042", "refund": 49.90 if "49.9" in str(found.content) else 0.0}

    def ask_human(state: Ticket) -> Command[Literal["refund", "decline"]]:
        answer = interrupt({"question": f"Pay back {state['refund']:.2f} EUR for order {state['order_id']}?"})
        return Command(goto="refund" if answer == "yes" else "decline")

    def refund(state: Ticket) -> dict[str, Any]:
        shop.pay_back(state["order_id"], state["refund"])
        return {"messages": [AIMessage(f"We have paid back {state['refund']:.2f} EUR. Sorry for the trouble!")]}

    def decline(state: Ticket) -> dict[str, Any]:
        return {"messages": [AIMessage("We can't pay this back, but a new lamp is on its way to you.")]}

    builder = StateGraph(Ticket)
    builder.add_node("read_ticket", read_ticket)
    builder.add_node("tools", ToolNode([look_up_order]))
    builder.add_node("propose", propose)
    builder.add_node("ask_human", ask_human)
    builder.add_node("refund", refund)
    builder.add_node("decline", decline)
    builder.add_edge(START, "read_ticket")
    builder.add_edge("read_ticket", "tools")
    builder.add_edge("tools", "propose")
    builder.add_edge("propose", "ask_human")
    builder.add_edge("refund", END)
    builder.add_edge("decline", END)
    return builder
