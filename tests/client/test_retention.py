"""A saver's time to live for its threads, and its hooks before history is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import ExpiringThread, GrpcSaver, InvalidArgumentError
from langgraph.graph import START, MessagesState, StateGraph

from checkpointd.v1 import retention_service_pb2 as pb
from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
from tests.support.server_process import ServerProcess


def config_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def graph(saver: GrpcSaver) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("answer", lambda state: {"messages": [("assistant", "hello")]})
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


class TestTimeToLive:
    @pytest.mark.parametrize("durability", ["async", "sync", "exit"])
    def test_it_belongs_to_the_threads_that_are_written_to(self, durability: Any, shared_server: ServerProcess) -> None:
        thread_id = uuid4().hex
        with GrpcSaver(shared_server.target, ttl_seconds=3600) as saver:
            graph(saver).invoke({"messages": [("user", "hi")]}, config_of(thread_id), durability=durability)
            assert saver.threads.get(thread_id).ttl_seconds == 3600
            saver.threads.update(thread_id, ttl_seconds=60)
            assert saver.threads.get(thread_id).ttl_seconds == 60
            saver.delete_thread(thread_id)
            graph(saver).invoke({"messages": [("user", "hi")]}, config_of(thread_id))
            assert saver.threads.get(thread_id).ttl_seconds == 3600
        with GrpcSaver(shared_server.target) as other:
            graph(other).invoke({"messages": [("user", "again")]}, config_of(thread_id))
            assert other.threads.get(thread_id).ttl_seconds == 3600

    async def test_awaiting(self, shared_server: ServerProcess) -> None:
        thread_id = uuid4().hex
        async with GrpcSaver(shared_server.target, ttl_seconds=3600, reads_count_as_use=True) as saver:
            await graph(saver).ainvoke({"messages": [("user", "hi")]}, config_of(thread_id))
            assert (await saver.threads.aget(thread_id)).ttl_seconds == 3600
            assert await saver.aget_tuple(config_of(thread_id)) is not None

    @pytest.mark.parametrize("ttl", [-1, 1.5, True, "1h", 2**63])
    def test_what_is_none_is_refused(self, ttl: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="ttl_seconds"):
            GrpcSaver(ttl_seconds=ttl)

    def test_what_is_too_long_is_refused(self, shared_server: ServerProcess) -> None:
        with GrpcSaver(shared_server.target, ttl_seconds=2**41) as saver:
            with pytest.raises(InvalidArgumentError, match="ttl_seconds") as caught:
                saver.put(config_of(uuid4().hex), empty_checkpoint(), {}, {})
            assert caught.value.limit == 2**40


class Announced:
    """Two threads for which retention has announced deletions."""

    def __init__(self, target: str) -> None:
        self.prefix = f"{uuid4().hex}:"
        self.stub: Any = RetentionServiceStub(grpc.insecure_channel(target))
        policy = pb.RetentionPolicy(name=self.prefix, thread_id_prefix=self.prefix, keep_newest=1, hold_seconds=3600)
        self.stub.SetPolicy(pb.SetPolicyRequest(policy=policy), timeout=20)

    def run(self) -> list[Any]:
        request, found = pb.RunRetentionRequest(), []
        while True:
            page = self.stub.RunRetention(request, timeout=60)
            found += page.effects
            if not page.next_page_token:
                return [effect for effect in found if effect.thread_id.startswith(self.prefix)]
            request.page_token = page.next_page_token

    def close(self) -> None:
        self.stub.DeletePolicy(pb.DeletePolicyRequest(name=self.prefix), timeout=20)


class TestBeforeItGoes:
    @pytest.fixture
    def announced(self, shared_server: ServerProcess) -> Iterator[Announced]:
        made = Announced(shared_server.target)
        with GrpcSaver(shared_server.target) as saver:
            for name in ("a", "b"):
                graph(saver).invoke({"messages": [("user", name)]}, config_of(f"{made.prefix}{name}"))
        assert {effect.outcome for effect in made.run()} == {pb.RETENTION_OUTCOME_HELD}
        yield made
        made.close()

    def test_a_hook_is_called_with_it_until_it_returns(
        self, announced: Announced, shared_server: ServerProcess
    ) -> None:
        summaries: dict[str, str] = {}
        with GrpcSaver(shared_server.target) as saver:

            def summarize(entry: ExpiringThread) -> None:
                messages = graph(saver).get_state(config_of(entry.thread_id)).values["messages"]
                assert (entry.action, entry.reason, entry.checkpoints) == ("trim", "keep_newest", 2)
                summaries[entry.thread_id[-1]] = messages[0].content

            assert saver.retention.handle(summarize) == 2
            assert summaries == {"a": "a", "b": "b"}
            assert saver.retention.handle(summarize) == 0
            assert {(effect.outcome, effect.checkpoints) for effect in announced.run()} == {
                (pb.RETENTION_OUTCOME_DONE, 2)
            }
            assert len(list(saver.list(config_of(f"{announced.prefix}a")))) == 1

    async def test_awaiting_and_what_a_hook_raises(self, announced: Announced, shared_server: ServerProcess) -> None:
        async with GrpcSaver(shared_server.target) as saver:

            async def fail(entry: ExpiringThread) -> None:
                raise RuntimeError("no model today")

            async def pass_on(entry: ExpiringThread) -> None:
                assert not await saver.retention.aacknowledge(
                    ExpiringThread(
                        thread_id=entry.thread_id,
                        action="delete",
                        reason="",
                        policy="",
                        checkpoints=0,
                        below_checkpoint_id=None,
                        deadline_at=entry.deadline_at,
                        hold_policy="",
                    )
                )

            with pytest.raises(RuntimeError, match="no model today"):
                await saver.retention.ahandle(fail)
            assert await saver.retention.ahandle(pass_on) == 2
