"""`checkpointd threads`: every command, with text and JSON output."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, TypedDict
from uuid import uuid4

import grpc
import pytest
from click.testing import CliRunner, Result
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
from checkpointd_server.cli import main
from tests.support.server_process import ServerProcess


class State(TypedDict, total=False):
    name: str
    lines: list[str]


def work(state: State) -> State:
    if state["name"] == "asks":
        interrupt({"question": "sure?\x1b[31m"})
    if state["name"] == "fails":
        raise ValueError("no such animal")
    return {"lines": ["one", "two"]}


class Commands:
    """Commands on one server, for threads under a separate prefix."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.prefix = f"{uuid4().hex}:"

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(main, ["threads", *arguments, "--target", self.target], input=answer)

    def ok(self, *arguments: str, answer: str | None = None) -> str:
        result = self.run(*arguments, answer=answer)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def listed(self, *arguments: str) -> list[str]:
        lines = self.ok("list", "--prefix", self.prefix, *arguments, "--json").splitlines()
        return [json.loads(line)["thread_id"].removeprefix(self.prefix) for line in lines]

    def id(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def make(self, name: str, as_what: str | None = None, **metadata: Any) -> str:
        """Creates a thread with a graph."""
        builder = StateGraph(State)
        builder.add_node("work", work)
        builder.add_edge(START, "work")
        with GrpcSaver.from_conn_string(self.target) as saver, suppress(ValueError):
            builder.compile(checkpointer=saver).invoke(
                {"name": as_what or name, "lines": ["one"]},
                {"configurable": {"thread_id": self.id(name)}, "metadata": metadata},
            )
        return self.id(name)


@pytest.fixture(scope="class")
def commands(shared_server: ServerProcess) -> Commands:
    """Threads that the tests of a class share. Tests that read all of them change none."""
    made = Commands(shared_server.target)
    made.make("done", user="ann", tries=1)
    made.make("asks", user="ann")
    made.make("fails", user="bob")
    return made


class TestList:
    def test_for_people(self, commands: Commands) -> None:
        lines = commands.ok("list", "--prefix", commands.prefix).splitlines()
        assert lines[0].split() == ["THREAD", "STATUS", "CHECKPOINTS", "SIZE", "CREATED", "ACTIVE", "NOTE"]
        assert [line.split()[1] for line in lines[1:]] == ["failed", "interrupted", "idle"]
        assert "no such animal" in lines[1]
        # Contents of a thread can't control the terminal.
        assert "sure?\\x1b[31m" in lines[2]
        assert "\x1b" not in "".join(lines)

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ([], ["fails", "asks", "done"]),
            (["--status", "interrupted"], ["asks"]),
            (["--status", "failed", "--status", "idle"], ["fails", "done"]),
            (["--metadata", "user=ann"], ["asks", "done"]),
            (["--metadata", "user=ann", "--metadata", "tries=1"], ["done"]),
            (["--metadata", 'tries="1"'], []),
            (["--limit", "2"], ["fails", "asks"]),
            (["--all"], ["fails", "asks", "done"]),
            (["--active-from", "1h"], ["fails", "asks", "done"]),
            (["--created-before", "2020-01-01"], []),
            (["--archived"], []),
            (["--tag", "a=b"], []),
        ],
        ids=" ".join,
    )
    def test_filters(self, options: list[str], found: list[str], commands: Commands) -> None:
        assert commands.listed(*options) == found

    def test_says_that_there_are_more(self, commands: Commands) -> None:
        assert "... and more (--limit 4, or --all)" in commands.ok("list", "--prefix", commands.prefix, "--limit", "2")

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--metadata", "user"], "'user' is not KEY=VALUE"),
            (["--tag", "=x"], "'=x' is not NAME=TEXT"),
            (["--active-from", "soon"], "'soon' is neither a time"),
            (["--status", "waiting"], "'waiting' is not one of"),
            (["--prefix", "x" * 513], "'--prefix': has 513 bytes, at most 512"),
        ],
    )
    def test_what_makes_no_sense_is_refused_by_name(self, options: list[str], problem: str, commands: Commands) -> None:
        result = commands.run("list", *options)
        assert result.exit_code in (1, 2)
        assert problem in " ".join(result.output.split())

    def test_count(self, commands: Commands) -> None:
        assert commands.ok("count", "--prefix", commands.prefix) == "3\n"
        assert commands.json("count", "--prefix", commands.prefix) == {"count": 3, "at_least": False}


class TestViews:
    def test_get(self, commands: Commands) -> None:
        shown = commands.json("get", commands.id("asks"))
        assert shown["status"] == "interrupted"
        assert shown["next"] == ["work"]
        assert shown["interrupts"][0]["value"][0]["value"]["question"] == "sure?\x1b[31m"
        assert shown["metadata"]["user"] == "ann"
        lines = commands.ok("get", commands.id("asks")).splitlines()
        assert lines[0] == f"thread       {commands.id('asks')}"
        assert "status       interrupted" in lines
        assert "interrupt    {'question': 'sure?\\x1b[31m'}" in lines

    def test_tree_shows_forks(self, commands: Commands) -> None:
        thread_id = commands.make("forked", "done")
        builder = StateGraph(State)
        builder.add_node("work", work)
        builder.add_edge(START, "work")
        with GrpcSaver.from_conn_string(commands.target) as saver:
            graph = builder.compile(checkpointer=saver)
            history = list(graph.get_state_history({"configurable": {"thread_id": thread_id}}))
            graph.update_state(history[1].config, {"name": "again"})
        lines = commands.ok("tree", thread_id).splitlines()
        assert lines[0] == "root graph"
        assert [line.count("─") for line in lines[1:]] == [0, 0, 1, 1]
        assert lines[1].endswith("step -1  input")
        shown = commands.json("tree", thread_id)
        assert [node["source"] for node in shown["checkpoints"]][-1] == "input"
        assert len(shown["checkpoints"]) == 4
        assert "INTERRUPTED" in commands.ok("tree", commands.id("asks"), "--ns", "")

    def test_diff(self, commands: Commands) -> None:
        tree = commands.json("tree", commands.id("done"))
        nodes = {node["step"]: node["checkpoint_id"] for node in tree["checkpoints"]}
        shown = commands.json("diff", commands.id("done"), nodes[0], nodes[1])
        assert shown["values"]["changed"]["lines"] == {"before": ["one"], "after": ["one", "two"]}
        assert shown["metadata"]["changed"]["step"] == {"before": 0, "after": 1}
        assert "branch:to:work" in shown["values"]["removed"]
        lines = commands.ok("diff", commands.id("done"), nodes[0], nodes[1]).splitlines()
        assert lines[:2] == [f"--- {nodes[0]}", f"+++ {nodes[1]}"]
        assert "    +'two'" in lines
        assert "    -'one'" not in lines

    @pytest.mark.parametrize("command", [["get"], ["tree"], ["diff", "1", "2"]], ids=lambda command: command[0])
    def test_what_is_not_there_is_said(self, command: list[str], commands: Commands) -> None:
        result = commands.run(command[0], "no such", *command[1:])
        assert result.exit_code == 1
        assert "thread 'no such'" in result.output


def test_one_checkpoint_is_shown_by_the_server_as_plain_data(commands: Commands) -> None:
    with grpc.insecure_channel(commands.target) as channel:
        stub = ThreadServiceStub(channel)
        latest = json.loads(stub.ShowCheckpoint(pb.ShowCheckpointRequest(thread_id=commands.id("asks"))).json)
        assert latest["values"]["name"] == "asks"
        assert latest["metadata"]["user"] == "ann"
        assert latest["pending_writes"][0]["value"][0]["$type"] == "langgraph.types.Interrupt"
        request = pb.ShowCheckpointRequest(thread_id=commands.id("asks"), checkpoint_id=latest["parent_checkpoint_id"])
        assert json.loads(stub.ShowCheckpoint(request).json)["metadata"]["step"] == -1
        request.checkpoint_id = "gone"
        with pytest.raises(grpc.RpcError) as refusal:
            stub.ShowCheckpoint(request)
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_value_that_is_large_is_shown_by_its_size(commands: Commands) -> None:
    thread_id = commands.id("large")
    with GrpcSaver.from_conn_string(commands.target) as saver:
        builder = StateGraph(State)
        builder.add_node("work", lambda state: {"lines": ["x" * 300_000]})
        builder.add_edge(START, "work")
        builder.compile(checkpointer=saver).invoke({"name": "n"}, {"configurable": {"thread_id": thread_id}})
    with grpc.insecure_channel(commands.target) as channel:
        shown = json.loads(
            ThreadServiceStub(channel).ShowCheckpoint(pb.ShowCheckpointRequest(thread_id=thread_id)).json
        )
    assert shown["values"]["lines"]["$serialized"] == "msgpack"
    assert shown["values"]["lines"]["$bytes"] > 300_000
    assert shown["values"]["name"] == "n"


class TestChanges:
    def test_tag(self, commands: Commands) -> None:
        thread_id = commands.make("tagged", "done")
        assert "tag          customer=acme\n" in commands.ok("tag", thread_id, "customer=acme", "note=", "--pin")
        assert commands.listed("--tag", "customer=acme") == ["tagged"]
        shown = commands.json("tag", thread_id, "--remove", "note", "--unpin", "--ttl", "86400")
        assert (shown["tags"], shown["pinned"], shown["ttl_seconds"]) == ({"customer": "acme"}, False, 86400)
        assert commands.run("tag", thread_id, "customer").exit_code == 2

    def test_archive_and_back(self, commands: Commands) -> None:
        thread_id = commands.make("old", "done")
        assert commands.ok("archive", thread_id) == f"{thread_id}: archived\n"
        assert commands.ok("archive", thread_id) == f"{thread_id}: was already archived\n"
        assert "old" not in commands.listed()
        assert commands.listed("--archived") == ["old"]
        result = commands.run("delete", thread_id, "--yes")
        assert result.exit_code == 1
        assert "is archived, and read-only: unarchive it first" in result.output
        assert commands.json("unarchive", thread_id) == {"changed": [thread_id]}
        assert commands.ok("unarchive", thread_id) == f"{thread_id}: was not archived\n"

    def test_copy_and_fork(self, commands: Commands) -> None:
        thread_id = commands.make("source", "done")
        assert f"3 checkpoints copied from {thread_id}" in commands.ok("copy", thread_id, f"{thread_id}-copy")
        first = commands.json("tree", thread_id)["checkpoints"][-1]["checkpoint_id"]
        assert commands.json("fork", thread_id, first, f"{thread_id}-fork")["copied_checkpoints"] == 1
        assert "ALREADY_EXISTS" in commands.run("copy", thread_id, f"{thread_id}-copy").output
        assert "there is no thread 'none': nothing was copied" in commands.run("copy", "none", "other").output

    def test_delete_tells_asks_and_says_what_it_did(self, commands: Commands) -> None:
        thread_id = commands.make("doomed", "done")
        told = commands.ok("delete", thread_id, "--dry-run")
        assert told.startswith("would delete 1 thread with 3 checkpoints, ")
        assert told.endswith(f" at {commands.target}\n")
        assert commands.json("delete", thread_id, "none", "--dry-run") == {
            "would_delete": {thread_id: 3},
            "missing": ["none"],
        }
        refused = commands.run("delete", thread_id, answer="n\n")
        assert refused.exit_code == 1
        assert "Delete 1 thread with 3 checkpoints, " in refused.stderr
        unanswered = commands.run("delete", thread_id)
        assert unanswered.exit_code == 2
        assert "give --yes" in unanswered.stderr
        assert commands.json("get", thread_id)["checkpoints"] == 3
        assert commands.ok("delete", thread_id, answer="y\n") == f"{thread_id}: deleted, 3 checkpoints\n"
        assert "nothing to delete" in commands.run("delete", thread_id, "--yes").output
