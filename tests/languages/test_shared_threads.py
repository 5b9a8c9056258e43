"""Threads that Python and JavaScript share: begun in one language, continued in the other, there and back."""

from __future__ import annotations

import json
import operator
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import grpc
import pytest
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, PortableSerializer, SerializerMismatchError
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from checkpointd.v1.checkpoint_service_pb2 import GetCheckpointRequest
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from tests.support.javascript import LONGEST_SECONDS, build, run
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]

QUESTION = {"question": "go on?", "options": ["yes", "no"]}
CALL = {"name": "look", "args": {"at": "it"}, "id": "call", "type": "tool_call"}

Agent = Callable[..., dict[str, Any]]


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    done: Annotated[list[str], operator.add]
    note: Any


class Item(TypedDict):
    item: str


def plan(state: State) -> State:
    message = AIMessage(f"py plans {len(state['messages'])}", tool_calls=[CALL])
    return {"messages": [message], "note": {"by": "py", "tags": ["a", None, 1.5], "bytes": b"\x00\xff"}}


def ask(state: State) -> State:
    answer = interrupt(QUESTION)
    return {"messages": [ToolMessage(f"py heard {answer}", tool_call_id="call")]}


def work(state: Item) -> State:
    return {"done": [f"py {state['item']}"]}


def spread(state: State) -> list[Send]:
    return [Send("work", {"item": item}) for item in ("one", "two")]


def compiled(saver: GrpcSaver) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The agent of clients/js/test/agent.js, in Python."""
    builder = StateGraph(State).add_node(plan).add_node(ask).add_node("work", work)
    builder.add_edge(START, "plan").add_edge("plan", "ask").add_edge("work", END)
    return builder.add_conditional_edges("ask", spread, ["work"]).compile(checkpointer=saver)


def beside(config: Any, checkpoint_id: str) -> Any:
    """The config of a checkpoint."""
    return {"configurable": {**config["configurable"], "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}


@pytest.fixture(scope="module")
def client() -> Any:
    return build()


@pytest.fixture
def thread() -> str:
    return f"shared-{uuid.uuid4()}"


@pytest.fixture
def javascript(client: Any, shared_server: ServerProcess, thread: str) -> Agent:
    def act(action: str = "look", given: str = "", serde: str = "portable") -> dict[str, Any]:
        said = run("node", "test/agent.js", shared_server.target, thread, serde, action, given, cwd=client)
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    return act


@pytest.fixture
def python(shared_server: ServerProcess, thread: str) -> Agent:
    def act(action: str = "look", given: str = "", serde: str = "portable") -> dict[str, Any]:
        config: Any = {"configurable": {"thread_id": thread}}
        with GrpcSaver(shared_server.target, serde=PortableSerializer() if serde == "portable" else None) as saver:
            graph = compiled(saver)
            match action:
                case "say":
                    graph.invoke({"messages": [("human", given)]}, config)
                case "resume":
                    graph.invoke(Command(resume=given), config)
                case "resume-to-work":
                    graph.invoke(Command(resume=given), config, interrupt_before=["work"])
                case "continue":
                    graph.invoke(None, config)
                case "put":
                    saver.put(beside(config, given), empty_checkpoint(), {"source": "update", "step": 1}, {})
                case "put-writes":
                    saver.put_writes(beside(config, given), [("note", b"1")], "task")
                case "update":
                    graph.update_state(config, {"messages": [("human", given)]}, as_node="ask")
            state = graph.get_state(config)
            saved = saver.get_tuple(config)
        messages = state.values.get("messages", [])
        note = dict(state.values.get("note") or {})
        pending = saved.pending_writes or [] if saved else []
        return {
            "messages": [[message.type, message.content, message.id] for message in messages],
            "calls": [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls],
            "done": state.values.get("done", []),
            "note": {**note, "bytes": list(note.get("bytes", b""))},
            "next": list(state.next),
            "waits": [each.value for _, channel, found in pending if channel == "__interrupt__" for each in found],
        }

    return act


@pytest.fixture
def agents(python: Agent, javascript: Agent) -> dict[str, Agent]:
    return {"py": python, "js": javascript}


@pytest.mark.parametrize(("first", "second"), [("py", "js"), ("js", "py")])
def test_a_conversation_is_continued_in_the_other_language_and_back(
    agents: dict[str, Agent], first: str, second: str
) -> None:
    """Interrupts included: one asks, the other takes the answer."""
    begun = agents[first]("say", "hello")
    assert [message[:2] for message in begun["messages"]] == [["human", "hello"], ["ai", f"{first} plans 1"]]
    assert (begun["next"], begun["waits"]) == (["ask"], [QUESTION])

    seen = agents[second]()
    assert seen == begun
    assert (seen["calls"], seen["note"]) == ([CALL], {"by": first, "tags": ["a", None, 1.5], "bytes": [0, 255]})

    answered = agents[second]("resume", "yes")
    assert answered["messages"][:2] == begun["messages"]
    assert answered["messages"][2][:2] == ["tool", f"{second} heard yes"]
    assert (sorted(answered["done"]), answered["next"]) == ([f"{second} one", f"{second} two"], [])
    assert agents[first]() == answered

    again = agents[second]("say", "and now?")
    assert again["messages"][-1][1] == f"{second} plans 4"
    assert again["waits"] == [QUESTION]
    back = agents[first]("resume", "no")
    assert back["messages"][-1][1] == f"{first} heard no"
    assert sorted(back["done"]) == sorted([*answered["done"], f"{first} one", f"{first} two"])
    assert agents[second]() == back


@pytest.mark.parametrize(("first", "second"), [("py", "js"), ("js", "py")])
def test_work_that_one_has_spread_is_done_by_the_other(agents: dict[str, Agent], first: str, second: str) -> None:
    agents[first]("say", "hello")
    waiting = agents[first]("resume-to-work", "yes")
    assert waiting["next"] == ["work", "work"]
    assert sorted(agents[second]("continue")["done"]) == [f"{second} one", f"{second} two"]


@pytest.mark.parametrize(("first", "second"), [("py", "js"), ("js", "py")])
def test_what_one_has_updated_the_other_goes_on_from(agents: dict[str, Agent], first: str, second: str) -> None:
    agents[first]("say", "hello")
    updated = agents[first]("update", "never mind")
    assert updated["next"] == ["work", "work"]
    done = agents[second]("continue")
    assert done["messages"] == updated["messages"]
    assert sorted(done["done"]) == [f"{second} one", f"{second} two"]


def test_a_thread_of_pythons_own_form_is_refused_in_javascript(agents: dict[str, Agent]) -> None:
    before = agents["py"]("say", "hello", serde="own")
    for serde in ("portable", "own"):
        refused = agents["js"]("say", "hello", serde=serde)
        assert refused["error"] == "SerializerMismatchError"
        assert "PortableSerializer" in refused["message"]
    assert agents["py"](serde="own") == before


def test_a_thread_of_javascripts_form_is_refused_by_another_serializer(agents: dict[str, Agent], thread: str) -> None:
    before = agents["js"]("say", "hello", serde="own")
    with pytest.raises(SerializerMismatchError, match="PortableSerializer") as refused:
        agents["py"]("say", "hello", serde="own")
    assert (refused.value.thread_id, refused.value.type) == (thread, "json")
    assert agents["js"](serde="own") == before


@pytest.mark.parametrize("action", ["put", "put-writes"])
@pytest.mark.parametrize(
    ("first", "second", "family"), [("py", "js", "langgraph-msgpack"), ("js", "py", "langgraph-json")]
)
def test_the_server_refuses_what_either_writes_without_having_read(
    agents: dict[str, Agent],
    shared_server: ServerProcess,
    thread: str,
    first: str,
    second: str,
    family: str,
    action: str,
) -> None:
    before = agents[first]("say", "hello", serde="own")
    with GrpcSaver(shared_server.target) as saver:
        assert saver.threads.get(thread).serializer_family == family
        latest = str(saver.threads.get(thread).checkpoint_id)
    if second == "js":
        refused = agents["js"](action, latest, serde="own")
        assert (refused["error"], refused["family"]) == ("SerializerMismatchError", family)
        assert "serde=PortableSerializer()" in refused["message"]
    else:
        with pytest.raises(SerializerMismatchError, match="PortableSerializer") as told:
            agents["py"](action, latest, serde="own")
        assert told.value.family == family
    assert agents[first](serde="own") == before


def test_javascript_reads_what_python_has_stored_as_patches(
    agents: dict[str, Agent], shared_server: ServerProcess, thread: str
) -> None:
    for turn in range(3):
        agents["py"]("say", f"turn {turn} " * 5000)
        seen = agents["py"]("resume", "yes")
    with grpc.insecure_channel(shared_server.target) as channel:
        stub: Any = CheckpointServiceStub(channel)
        found = stub.GetCheckpoint(GetCheckpointRequest(thread_id=thread, patches=True), timeout=30)
    assert any(stored.value.HasField("patch") for stored in found.stored_values)
    assert agents["js"]() == seen


def test_javascript_is_told_that_python_holds_the_lease(
    agents: dict[str, Agent], shared_server: ServerProcess, thread: str
) -> None:
    with GrpcSaver(shared_server.target) as saver, saver.lease(thread):
        assert agents["js"]("say", "hello")["error"] == "LeaseHeldError"
    assert agents["js"]("say", "hello")["next"] == ["ask"]
