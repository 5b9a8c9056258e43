"""A node that runs an agent on another thread, is refused there and retries: the server is asked again."""

from __future__ import annotations

import contextvars
import uuid
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, LeaseHeldError, VersionConflictError, WriteConflictError
from langgraph.graph import START, MessagesState, StateGraph

from tests.support.calls import config_of
from tests.support.server_process import ServerProcess

ATTEMPTS = 3


def chat(saver: GrpcSaver, node: Any) -> Any:
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile(checkpointer=saver)


def elsewhere(config: RunnableConfig, thread_id: str) -> RunnableConfig:
    """A node's config for another thread. The agent there belongs to the same execution."""
    return {**config, "configurable": {**config["configurable"], "thread_id": thread_id, "checkpoint_ns": ""}}


class Rival:
    """Obstructs an agent in its first two attempts."""

    def __init__(self, server: ServerProcess, kind: str, thread_id: str) -> None:
        self._saver = GrpcSaver(server.target)
        self._kind = kind
        self._thread_id = thread_id
        self._lease = self._saver.lease(thread_id, ttl=60)
        self.attempts = 0
        if kind == "lease":
            self._lease.__enter__()

    def free(self) -> None:
        """Called before each attempt: releases the lease before the last one."""
        self.attempts += 1
        if self._kind == "lease" and self.attempts == ATTEMPTS:
            self._lease.__exit__(None, None, None)

    def meddle(self, checkpoint_ns: str) -> None:
        """Called during each attempt: writes to its namespace, except in the last one."""
        if self._kind == "write" and self.attempts < ATTEMPTS:
            config = config_of(self._thread_id, checkpoint_ns)
            contextvars.Context().run(self._saver.put, config, empty_checkpoint(), {}, {})


@pytest.mark.parametrize("kind", ["lease", "write"])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("awaited", [True, False])
async def test_the_last_attempt_succeeds(
    awaited: bool, streamed: bool, kind: str, shared_server: ServerProcess
) -> None:
    outer_thread, inner_thread = str(uuid.uuid4()), str(uuid.uuid4())
    rival = Rival(shared_server, kind, inner_thread)
    refusals: list[type[Exception]] = []

    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        # LangGraph numbers the namespaces of the agents that a node runs.
        rival.meddle(config["configurable"]["checkpoint_ns"].rpartition("|")[0])
        return {"messages": [("ai", "hello")]}

    async with GrpcSaver(shared_server.target) as saver:
        agent = chat(saver, answer)
        question = {"messages": [("human", "hi")]}

        def delegate(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
            for attempt in range(ATTEMPTS):
                rival.free()
                try:
                    agent.invoke(question, elsewhere(config, inner_thread))
                    return {"messages": [("ai", f"attempt {attempt}")]}
                except WriteConflictError as error:
                    refusals.append(type(error))
            raise AssertionError("the server would have let it")

        async def adelegate(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
            for attempt in range(ATTEMPTS):
                rival.free()
                try:
                    await agent.ainvoke(question, elsewhere(config, inner_thread))
                    return {"messages": [("ai", f"attempt {attempt}")]}
                except WriteConflictError as error:
                    refusals.append(type(error))
            raise AssertionError("the server would have let it")

        graph = chat(saver, adelegate if awaited else delegate)
        if awaited:
            async for _ in graph.astream(question, config_of(outer_thread), subgraphs=streamed):
                pass
        else:
            for _ in graph.stream(question, config_of(outer_thread), subgraphs=streamed):
                pass
        state = graph.get_state(config_of(outer_thread))
    assert refusals == [LeaseHeldError if kind == "lease" else VersionConflictError] * (ATTEMPTS - 1)
    assert state.values["messages"][-1].content == f"attempt {ATTEMPTS - 1}"
