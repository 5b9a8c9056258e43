"""Clients and servers of different minor versions: fields that one doesn't know, and features that the other lacks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, VersionConflictError
from langgraph.graph import START, MessagesState, StateGraph

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info_pb
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from tests.support.other_version import UNKNOWN_FIELD, newer_server, older_server
from tests.support.rpc_client import connected
from tests.support.server_process import ServerProcess

Other = Callable[[str], AbstractContextManager[str]]


@pytest.mark.parametrize("other", [newer_server, older_server])
@pytest.mark.parametrize("flavour", ["invoke", "ainvoke"])
def test_a_saver_works_with_a_server_of_another_version(
    shared_server: ServerProcess, other: Other, flavour: str
) -> None:
    config: Any = {"configurable": {"thread_id": f"version-{uuid.uuid4()}"}}

    def reply(state: MessagesState) -> dict[str, Any]:
        if state["messages"][-1].content == "collide":
            with GrpcSaver(shared_server.target, concurrency="last_write_wins") as another:
                graph_of(another).update_state(config, {"messages": [("human", "other")]})
        return {"messages": [AIMessage(f"to {state['messages'][-1].content}")]}

    def graph_of(saver: GrpcSaver) -> Any:
        return StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").compile(checkpointer=saver)

    with other(shared_server.target) as target, GrpcSaver(target) as saver:
        graph = graph_of(saver)

        def say(text: str) -> Any:
            given = {"messages": [("human", text)]}
            return asyncio.run(graph.ainvoke(given, config)) if flavour == "ainvoke" else graph.invoke(given, config)

        say("one")
        # Large enough to be stored as patches, and read in parts.
        assert say("two" * 500_000)["messages"][0].content == "one"
        with pytest.raises(VersionConflictError) as conflict:
            say("collide")
        assert conflict.value.current_version > conflict.value.expected_version
        assert len(list(saver.list(config))) >= 4
        with pytest.raises(InvalidArgumentError) as refused:
            saver.get_tuple({"configurable": {"thread_id": "x" * 1000}})
        assert (refused.value.field, refused.value.limit) == ("thread_id", 512)
        saver.delete_thread(config["configurable"]["thread_id"])
        assert saver.get_tuple(config) is None


async def test_a_server_passes_over_fields_that_it_does_not_know(shared_server: ServerProcess) -> None:
    async with connected(shared_server.target) as client:
        put = client.put_request(thread_id=f"version-{uuid.uuid4()}")
        later = pb.PutCheckpointRequest.FromString(put.SerializeToString() + UNKNOWN_FIELD)
        later.metadata.MergeFromString(UNKNOWN_FIELD)
        stored = await client.checkpoints.PutCheckpoint(later)
        read = pb.GetCheckpointRequest.FromString(
            pb.GetCheckpointRequest(thread_id=put.thread_id).SerializeToString() + UNKNOWN_FIELD
        )
        found = await client.checkpoints.GetCheckpoint(read)
        assert (found.version, found.tuple.checkpoint_id) == (stored.version, put.checkpoint_id)


def test_capabilities_that_nobody_knows_yet_are_passed_over(shared_server: ServerProcess) -> None:
    with newer_server(shared_server.target) as target, grpc.insecure_channel(target) as channel:
        info = InfoServiceStub(channel).GetServerInfo(info_pb.GetServerInfoRequest(), timeout=10)
    assert 99 in info.capabilities
    assert {info_pb.CAPABILITY_VERSIONS, info_pb.CAPABILITY_PIPELINE} <= set(info.capabilities)
