"""An agent with memory across threads: an ordinary LangGraph graph with a store. Its model is a script."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, GrpcStore, TextIndexConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.base import BaseStore

TEXT: TextIndexConfig = {"fields": ["text"], "language": "english"}
"""Facts are found by their words, so that the demo needs no embedding model."""


class Talk(MessagesState):
    """The agent's state in one thread, and what it remembered."""

    remembered: list[str]


def place(user: str, *labels: str) -> tuple[str, ...]:
    """Returns the namespace of a user's memory."""
    return ("users", user, *labels)


def facts_in(text: str) -> list[str]:
    """Returns what users say about themselves. A real agent would have a model extract facts."""
    return [sentence.strip() for sentence in re.findall(r"(?:I|My) [^.!?]*[.!?]", text)]


def remembering_agent(on_read: Callable[[int], None] = lambda visits: None) -> StateGraph[Talk, Any, Any, Any]:
    """Builds the graph: recall, answer, remember.

    Args:
        on_read: Called with the visits in a profile that was read to be changed.
    """

    def recall(state: Talk, config: RunnableConfig, *, store: BaseStore) -> dict[str, Any]:
        found = store.search(place(config["configurable"]["user"]), query=state["messages"][-1].text, limit=3)
        return {"remembered": [item.value["text"] for item in found]}

    def answer(state: Talk, config: RunnableConfig, *, store: BaseStore) -> dict[str, Any]:
        profile = store.get(place(config["configurable"]["user"]), "profile")
        visits = profile.value["visits"] if profile is not None else 0
        known = f" I remember: {' / '.join(state['remembered'])}" if state["remembered"] else ""
        return {"messages": [AIMessage(f"This is visit {visits + 1}.{known}")]}

    def remember(state: Talk, config: RunnableConfig, *, store: BaseStore) -> dict[str, Any]:
        user = config["configurable"]["user"]
        for fact in facts_in(state["messages"][-2].text):
            store.put(place(user, "facts"), fact, {"text": fact, "thread": config["configurable"]["thread_id"]})

        def one_more(profile: dict[str, Any] | None) -> dict[str, Any]:
            visits = (profile or {"visits": 0})["visits"]
            on_read(visits)
            return {"visits": visits + 1}

        assert isinstance(store, GrpcStore)  # BaseStore has no method `update`
        store.update(place(user), "profile", one_more, index=False)
        return {}

    builder = StateGraph(Talk)
    builder.add_node("recall", recall)
    builder.add_node("answer", answer)
    builder.add_node("remember", remember)
    builder.add_edge(START, "recall")
    builder.add_edge("recall", "answer")
    builder.add_edge("answer", "remember")
    builder.add_edge("remember", END)
    return builder


def summarize(messages: Sequence[AnyMessage]) -> str:
    """Returns what to keep of a conversation. A real agent would have a model write it."""
    return f"Talked about: {' '.join(message.text for message in messages if message.type == 'human')}"


def archive(saver: GrpcSaver, store: GrpcStore, thread_id: str, user: str) -> str:
    """Leaves a summary of a thread in the store, deletes the thread, and returns the summary.

    Nobody writes to the thread in between: that is what the lease is for. After a crash it can be done again.
    """
    with saver.lease(thread_id):
        saved = saver.get_tuple({"configurable": {"thread_id": thread_id}})
        if saved is None:
            return ""
        summary = summarize(saved.checkpoint["channel_values"]["messages"])
        store.put(place(user, "summaries"), thread_id, {"text": summary, "ended": saved.checkpoint["ts"]})
        saver.delete_thread(thread_id)
    return summary
