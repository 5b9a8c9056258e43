"""A thread's writer chooses the classes that its values become, unless the saver names the allowed ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph

from tests.support.server_process import ServerProcess, clean_environment

CALL = 0
"""The code with which LangGraph's serializer marks a call with one argument."""


@dataclass
class Ours:
    """A class defined by the agent."""

    number: int


class Hostile(JsonPlusSerializer):
    """A serializer whose values run a command when they are read."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self._command = command

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if obj != "hostile":
            return super().dumps_typed(obj)
        return "msgpack", ormsgpack.packb(ormsgpack.Ext(CALL, ormsgpack.packb(("os", "system", self._command))))


def write(target: str, thread_id: str, value: Any, **options: Any) -> dict[str, Any]:
    """Writes a thread whose channel `channel` has this value, and returns its config."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"channel": value}
    checkpoint["channel_versions"] = {"channel": "1"}
    config: dict[str, Any] = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    with GrpcSaver(target, **options) as saver:
        saver.put(config, checkpoint, {"step": 1}, {"channel": "1"})  # type: ignore[arg-type]
    return config


def read(target: str, config: Any, **options: Any) -> Any:
    with GrpcSaver(target, **options) as saver:
        found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]["channel"]


@pytest.mark.parametrize("strict", [True, [Ours], [("tests.security.test_strict", "Ours")]], ids=str)
def test_a_strict_saver_runs_nothing_of_what_others_wrote(
    shared_server: ServerProcess, tmp_path: Path, strict: Any
) -> None:
    target, trace = shared_server.target, tmp_path / "trace"
    config = write(target, f"hostile {tmp_path}", "hostile", serde=Hostile(f"touch {trace}"))
    read(target, config, strict=strict)
    assert not trace.exists()


@pytest.mark.skipif(bool(os.environ.get("LANGGRAPH_STRICT_MSGPACK")), reason="LangGraph is strict by itself")
@pytest.mark.parametrize("options", [{}, {"strict": False}], ids=str)
def test_another_one_does(shared_server: ServerProcess, tmp_path: Path, options: Any) -> None:
    target, trace = shared_server.target, tmp_path / "trace"
    config = write(target, f"hostile {tmp_path}", "hostile", serde=Hostile(f"touch {trace}"))
    read(target, config, **options)
    assert trace.exists()


def test_messages_and_the_named_classes_are_built(shared_server: ServerProcess) -> None:
    target = shared_server.target
    value = [HumanMessage("hi"), AIMessage("hello"), {1, 2}, Ours(7)]
    config = write(target, "allowed", value)
    assert read(target, config, strict=[Ours]) == value
    assert read(target, config, strict=True) == [*value[:3], {"number": 7}]


@pytest.mark.parametrize("strict", ["Ours", [1], [("one",)], 1, b"x"])
def test_what_names_no_classes_is_refused(strict: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="strict: must be"):
        GrpcSaver("localhost:1", strict=strict)


def test_a_serializer_of_ones_own_says_it_itself() -> None:
    with pytest.raises(InvalidArgumentError, match="allowed_msgpack_modules"):
        GrpcSaver("localhost:1", strict=True, serde=JsonPlusSerializer())


PROGRAM = """
import sys
from dataclasses import dataclass
from typing import Annotated, TypedDict
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, StateGraph

@dataclass
class Note:
    text: str

class State(TypedDict):
    note: Note
    channel: str

with GrpcSaver(sys.argv[1]) as saver:
    builder = StateGraph(State).add_node("write", lambda state: {"note": Note("mine")}).add_edge(START, "write")
    graph = builder.compile(checkpointer=saver)
    graph.invoke({"channel": "x"}, {"configurable": {"thread_id": "langgraph is strict"}})
    assert graph.get_state({"configurable": {"thread_id": "langgraph is strict"}}).values["note"] == Note("mine")
    print(saver.get_tuple({"configurable": {"thread_id": sys.argv[2]}}) is not None)
"""


def test_with_langgraphs_own_switch_a_graph_has_its_classes_and_others_run_nothing(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    target, trace, thread_id = shared_server.target, tmp_path / "trace", f"hostile {tmp_path}"
    write(target, thread_id, "hostile", serde=Hostile(f"touch {trace}"))
    environment = {**clean_environment(), "LANGGRAPH_STRICT_MSGPACK": "true"}
    command = (sys.executable, "-c", PROGRAM, target, thread_id)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "True\n", ran.stderr
    assert not trace.exists()


class State(TypedDict):
    """A state with a class defined by the agent."""

    ours: Ours


@pytest.mark.skipif(bool(os.environ.get("LANGGRAPH_STRICT_MSGPACK")), reason="LangGraph is strict by itself")
@pytest.mark.parametrize(("strict", "found"), [(True, {"number": 7}), ([Ours], Ours(7)), (False, Ours(7))], ids=str)
def test_without_that_switch_langgraph_tells_no_classes_so_strict_is_not_the_default(
    strict: Any, found: Any, shared_server: ServerProcess
) -> None:
    """Once it does, the first case returns the class itself, and `strict` can become the default."""
    config: Any = {"configurable": {"thread_id": f"told {strict}"}}
    with GrpcSaver(shared_server.target, strict=strict) as saver:
        builder = StateGraph(State).add_node("write", lambda state: {"ours": Ours(7)}).add_edge(START, "write")
        graph = builder.compile(checkpointer=saver)
        graph.invoke({}, config)  # type: ignore[call-overload]
        assert graph.get_state(config).values["ours"] == found
