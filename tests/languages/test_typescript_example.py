"""clients/js/examples: a thread that a Python graph wrote, read and continued with the protocol alone."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.grpc import GrpcSaver, TlsOptions
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from tests.support.api_keys import key_entry
from tests.support.authority import Authority
from tests.support.javascript import LONGEST_SECONDS, build, run
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]

KEY = "ckd_known"


def reply(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"to {state['messages'][-1].content}")]}


def ask(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"heard {interrupt({'question': 'go on?'})}")]}


@pytest.fixture(scope="module")
def example() -> Path:
    return build() / "build" / "examples"


def shown(output: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    return found


def test_a_thread_of_a_python_graph_is_read_forked_and_continued_over_tls(
    example: Path, database_url: str, tmp_path: Path
) -> None:
    keys, ca = tmp_path / "keys.toml", tmp_path / "ca.pem"
    keys.write_text(key_entry(KEY, "acme", "read", "write"))
    authority = Authority()
    ca.write_bytes(authority.pem)
    cert, key = authority.write(tmp_path)
    options = ("--keys-file", str(keys), "--tls-cert", str(cert), "--tls-key", str(key))
    config: Any = {"configurable": {"thread_id": f"ts-{uuid.uuid4()}"}}
    with (
        ServerProcess("--database-url", database_url, *options, log_dir=tmp_path) as server,
        GrpcSaver(server.target, token=KEY, tls=TlsOptions(root_certificates=authority.pem)) as saver,
    ):
        graph = StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").compile(checkpointer=saver)
        for text in ("one", "two"):
            given: Any = {"messages": [("human", text)]}
            graph.invoke(given, config)
        arguments = (server.target, config["configurable"]["thread_id"], "reply", str(ca))
        found = shown(run("node", "conversation.js", *arguments, cwd=example, env={"CHECKPOINTD_TOKEN": KEY}))
        before = ["human: one", "ai: to one", "human: two", "ai: to two"]
        added = ["human: first from TypeScript", "human: second from TypeScript"]
        assert [json.loads(line) for line in found["messages"]] == [before, before + added]
        assert json.loads(found["history"][0]) == [4, 3, 2, 1, 0, -1]
        assert found["fork"] == ["true"]
        assert found["conflict"] == ["true true"]

        state = graph.get_state(config)
        assert state.next == ("reply",)
        messages = graph.invoke(None, config)["messages"]
        assert [f"{message.type}: {message.content}" for message in messages] == [
            *before,
            *added,
            "ai: to second from TypeScript",
        ]


def test_what_a_thread_waits_for_is_answered(example: Path, shared_server: ServerProcess) -> None:
    config: Any = {"configurable": {"thread_id": f"ts-{uuid.uuid4()}"}}
    with GrpcSaver(shared_server.target) as saver:
        graph = StateGraph(MessagesState).add_node(ask).add_edge(START, "ask").compile(checkpointer=saver)
        given: Any = {"messages": [("human", "hi")]}
        graph.invoke(given, config)
        arguments = (shared_server.target, config["configurable"]["thread_id"], "ask")
        found = shown(run("node", "conversation.js", *arguments, cwd=example, env={"ANSWER": "yes"}))
        assert found["waits"] == ['[{"question":"go on?"}] __interrupt__']
        assert graph.invoke(None, config)["messages"][-1].content == "heard yes"
