"""Names as long as LangGraph makes them are stored; longer ones are refused with an error that names the node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph

from tests.support.calls import config_of
from tests.support.server_process import ServerProcess


def one_node(name: str, node: Any) -> Any:
    return StateGraph(MessagesState).add_node(name, node).add_edge(START, name)


def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [("ai", "hello")]}


def run(saver: GrpcSaver, builder: Any, thread_id: str) -> Any:
    graph = builder.compile(checkpointer=saver)
    return graph.invoke({"messages": [("human", "hi")]}, config_of(thread_id), durability="sync")


@pytest.mark.parametrize("name", ["n" * 250, "节" * 90, "n" * 500])
def test_a_node(name: str, shared_server: ServerProcess, thread_id: str) -> None:
    with GrpcSaver(shared_server.target) as saver:
        assert run(saver, one_node(name, answer), thread_id)["messages"][-1].content == "hello"


def test_nested_graphs(shared_server: ServerProcess, thread_id: str) -> None:
    graph: Any = answer
    for _ in range(25):
        graph = one_node("subgraph", graph).compile()
    with GrpcSaver(shared_server.target) as saver:
        builder = one_node("subgraph", graph)
        assert run(saver, builder, thread_id)["messages"][-1].content == "hello"


async def test_nested_tasks(shared_server: ServerProcess, thread_id: str) -> None:
    @task
    async def deeper(depth: int) -> int:
        return 0 if depth == 0 else 1 + await deeper(depth - 1)

    async with GrpcSaver(shared_server.target) as saver:

        @entrypoint(checkpointer=saver)
        async def agent(depth: int) -> int:
            return await deeper(depth)

        assert await asyncio.wait_for(agent.ainvoke(120, config_of(thread_id)), 60) == 120


def test_a_name_that_is_too_long_is_shown(shared_server: ServerProcess, thread_id: str) -> None:
    with (
        GrpcSaver(shared_server.target) as saver,
        pytest.raises(
            InvalidArgumentError, match=r"at most 512 are allowed; .* nodes: 'branch:to:the_node_n"
        ) as failed,
    ):
        run(saver, one_node("the_node_" + "n" * 600, answer), thread_id)
    assert failed.value.limit == 512
    assert len(str(failed.value)) < 250
