"""A store in graphs: compiled in, used from sync and async nodes, and beside the threads that it outlives."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.grpc import GrpcSaver, GrpcStore, LeaseHeldError
from langgraph.config import get_store
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore, Item

from examples.memory.agent import TEXT, archive, place, remembering_agent
from tests.support.server_process import ServerProcess


def agent_config(thread: str, user: str) -> Any:
    return {"configurable": {"thread_id": thread, "user": user}}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_what_one_thread_learns_another_one_knows(shared_server: ServerProcess, root: str, how: str) -> None:
    async with GrpcSaver(shared_server.target) as saver, GrpcStore.from_saver(saver, text=TEXT) as store:
        graph: Any = remembering_agent().compile(checkpointer=saver, store=store)

        async def say(thread: str, text: str) -> str:
            given = {"messages": [HumanMessage(text)], "remembered": []}
            config = agent_config(f"{root}-{thread}", root)
            result = graph.invoke(given, config) if how == "invoke" else await graph.ainvoke(given, config)
            return str(result["messages"][-1].text)

        assert await say("a", "I like tea.") == "This is visit 1."
        assert await say("b", "Tea or coffee?") == "This is visit 2. I remember: I like tea."


async def test_async_nodes_may_use_a_store_in_both_forms(shared_server: ServerProcess, root: str) -> None:
    async def node(state: MessagesState, runtime: Runtime[Any], *, store: BaseStore) -> dict[str, Any]:
        assert runtime.store is store
        assert get_store() is store
        store.put((root,), "sync", {"n": 1})
        await store.aput((root,), "async", {"n": 2})
        await asyncio.gather(*(store.aput((root,), str(number), {}) for number in range(10)))
        return {"messages": [HumanMessage(str(len(await store.asearch((root,), limit=100))))]}

    async with GrpcStore(shared_server.target) as store:
        builder: Any = StateGraph(MessagesState)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        result = await builder.compile(store=store).ainvoke({"messages": []})
    assert result["messages"][-1].text == "12"


def test_tasks_of_the_functional_api_share_a_store(shared_server: ServerProcess, root: str) -> None:
    with GrpcStore(shared_server.target) as store:

        @task
        def note(number: int) -> None:
            get_store().put((root,), str(number), {"n": number})

        @entrypoint(store=store)
        def flow(count: int) -> int:
            for future in [note(number) for number in range(count)]:
                future.result()
            return len(get_store().search((root,), limit=100))

        assert flow.invoke(20) == 20


def test_a_thread_is_summarized_before_it_is_deleted(
    shared_server: ServerProcess, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GrpcSaver(shared_server.target) as saver, GrpcStore.from_saver(saver, text=TEXT) as store:
        graph: Any = remembering_agent().compile(checkpointer=saver, store=store)
        config = agent_config(root, root)
        graph.invoke({"messages": [HumanMessage("I like tea.")], "remembered": []}, config)

        def crash(thread_id: str) -> None:
            # While both the summary and the thread exist, nobody else can write to the thread.
            with GrpcSaver(shared_server.target) as other, pytest.raises(LeaseHeldError):
                other.delete_thread(thread_id)
            raise OSError("on purpose")

        with monkeypatch.context() as patched:
            patched.setattr(saver, "delete_thread", crash)
            with pytest.raises(OSError, match="on purpose"):
                archive(saver, store, root, root)
        assert saver.get_tuple(config) is not None
        summary = archive(saver, store, root, root)
        assert summary == "Talked about: I like tea."
        assert saver.get_tuple(config) is None
        assert archive(saver, store, root, root) == ""
        kept = store.search(place(root, "summaries"), query="tea")
        assert [item.value["text"] for item in kept] == [summary]


@pytest.mark.parametrize("strict", [True, False])
def test_items_in_a_state_are_stored_as_any_others(
    shared_server: ServerProcess, root: str, strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Recalled(TypedDict):
        profile: Any

    def recall(state: Recalled, *, store: BaseStore) -> dict[str, Any]:
        store.put((root,), "profile", {"name": "Ada"})
        return {"profile": store.get((root,), "profile")}

    with GrpcSaver(shared_server.target, strict=strict) as saver, GrpcStore.from_saver(saver) as store:
        builder: Any = StateGraph(Recalled)
        builder.add_node("recall", recall)
        builder.add_edge(START, "recall")
        graph = builder.compile(checkpointer=saver, store=store)
        graph.invoke({"profile": None}, {"configurable": {"thread_id": root}})
        found = graph.get_state({"configurable": {"thread_id": root}}).values["profile"]
        item = store.get((root,), "profile")
        assert type(found) is Item
        assert found == item
        assert caplog.records == []
        items: list[Any] = [item, *store.search((root,))]
        for one in items:
            for made in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
                assert type(made) is type(one)
                assert (made, made.version, made.expires_at) == (one, one.version, None)
