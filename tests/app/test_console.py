"""The commands that query a running server: health, info and show."""

from __future__ import annotations

import json
import operator
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

from checkpointd_server.cli import main
from tests.support.cluster import PostgresCluster
from tests.support.server_process import ServerProcess


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    steps: Annotated[list[str], operator.add]
    blob: bytes


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


@pytest.fixture
def thread_id(shared_server: ServerProcess) -> str:
    """A thread written by a graph: two steps and an interrupt."""

    def first(state: State) -> dict[str, Any]:
        return {"messages": [HumanMessage("hello", id="m1")], "steps": ["first", "again"], "blob": b"12345"}

    def ask(state: State) -> dict[str, Any]:
        return {"steps": [interrupt("sure?")]}

    builder = StateGraph(State)
    builder.add_node("first", first)
    builder.add_node("ask", ask)
    builder.add_edge(START, "first")
    builder.add_edge("first", "ask")
    thread_id = uuid4().hex
    with GrpcSaver.from_conn_string(shared_server.target) as saver:
        builder.compile(checkpointer=saver).invoke(
            {"messages": [], "steps": ["start"], "blob": b""}, {"configurable": {"thread_id": thread_id}}
        )
    return thread_id


class TestShow:
    def test_it_prints_checkpoints_and_values_as_plain_text(self, shared_server: ServerProcess, thread_id: str) -> None:
        result = run("show", thread_id, "--target", shared_server.target)
        assert result.exit_code == 0
        lines = result.output.splitlines()
        assert lines[0] == f"thread '{thread_id}'"
        assert lines[2].split() == ["CHECKPOINT_ID", "NAMESPACE", "STEP", "SOURCE", "WRITTEN"]
        assert [line.split()[1:4] for line in lines[3:6]] == [
            ["-", "1", "loop"],
            ["-", "0", "loop"],
            ["-", "-1", "input"],
        ]
        assert "    messages = [HumanMessage(content='hello', type='human', id='m1')]" in lines
        assert "      'first'," in lines
        assert "    blob = <5 bytes>" in lines
        assert "Interrupt(value='sure?'" in result.output

    def test_json_holds_every_checkpoint_with_its_values(self, shared_server: ServerProcess, thread_id: str) -> None:
        result = run("show", thread_id, "--json", "--target", shared_server.target)
        shown = json.loads(result.output)
        assert shown["thread_id"] == thread_id
        latest, *older = shown["checkpoints"]
        assert len(older) == 2
        assert latest["metadata"]["step"] == 1
        assert latest["parent_checkpoint_id"] == older[0]["checkpoint_id"]
        assert latest["values"]["steps"] == ["start", "first", "again"]
        assert latest["values"]["blob"] == {"$bytes": 5}
        assert latest["values"]["messages"][0]["$type"] == "langchain_core.messages.human.HumanMessage"
        assert latest["values"]["messages"][0]["content"] == "hello"
        assert any(write["channel"] == "__interrupt__" for write in latest["pending_writes"])

    def test_one_checkpoint_can_be_asked_for(self, shared_server: ServerProcess, thread_id: str) -> None:
        everything = json.loads(run("show", thread_id, "--json", "--target", shared_server.target).output)
        oldest = everything["checkpoints"][-1]["checkpoint_id"]
        options = ("--checkpoint-id", oldest, "--target", shared_server.target)
        assert json.loads(run("show", thread_id, "--json", *options).output)["checkpoints"] == [
            everything["checkpoints"][-1]
        ]
        assert f"checkpoint {oldest}" in run("show", thread_id, *options).output

    def test_the_limit_says_that_there_is_more(self, shared_server: ServerProcess, thread_id: str) -> None:
        result = run("show", thread_id, "--limit", "2", "--target", shared_server.target)
        assert "... and older ones (--limit 4)" in result.output
        assert "... and older ones" not in run("show", thread_id, "--target", shared_server.target).output

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "thread 'no such' has no checkpoint\n"),
            (["--ns", "a|b"], "thread 'no such' has no checkpoint in namespace 'a|b'\n"),
            (["--checkpoint-id", "7"], "thread 'no such' has no checkpoint '7'\n"),
        ],
    )
    def test_what_is_not_there_is_said(self, options: list[str], message: str, shared_server: ServerProcess) -> None:
        result = run("show", "no such", *options, "--target", shared_server.target)
        assert result.exit_code == 1
        assert result.output == f"Error: {message}"

    def test_a_bad_thread_id_is_the_server_s_word(self, shared_server: ServerProcess) -> None:
        result = run("show", "x" * 513, "--target", shared_server.target)
        assert result.exit_code == 2
        assert "'THREAD_ID'" in result.output
        assert "512" in result.output

    def test_an_encrypted_value_is_shown_by_its_size(
        self, shared_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

        builder = StateGraph(State)
        builder.add_node("secret", lambda state: {"steps": ["the password is swordfish"]})
        builder.add_edge(START, "secret")
        thread_id = uuid4().hex
        serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
        with GrpcSaver.from_conn_string(shared_server.target, serde=serde) as saver:
            builder.compile(checkpointer=saver).invoke(
                {"messages": [], "steps": [], "blob": b""}, {"configurable": {"thread_id": thread_id}}
            )
        result = run("show", thread_id, "--target", shared_server.target)
        assert result.exit_code == 0
        assert "steps = <msgpack+aes, " in result.output
        assert "swordfish" not in result.output


class TestInfo:
    def test_it_prints_version_capabilities_and_limits(self, shared_server: ServerProcess) -> None:
        result = run("info", "--target", shared_server.target)
        assert result.exit_code == 0
        assert result.output.splitlines()[0] == "version       0.1.0"
        assert "max_thread_id_bytes                512" in result.output

    def test_it_prints_json(self, shared_server: ServerProcess) -> None:
        shown = json.loads(run("info", "--json", "--target", shared_server.target).output)
        assert shown["version"] == "0.1.0"
        assert "versions" in shown["capabilities"]
        assert shown["limits"]["max_message_bytes"] == 64 * 1024 * 1024


class TestHealth:
    @pytest.mark.parametrize("options", [[], ["--service", "checkpointd.v1.CheckpointService"]], ids=["all", "one"])
    def test_a_server_that_serves(self, options: list[str], shared_server: ServerProcess) -> None:
        result = run("health", *options, "--target", shared_server.target)
        assert (result.exit_code, result.output) == (0, "SERVING\n")

    def test_the_target_comes_from_the_environment(self, shared_server: ServerProcess) -> None:
        assert run("health", env={"CHECKPOINTD_TARGET": shared_server.target}).output == "SERVING\n"

    def test_without_a_target_it_asks_where_the_server_listens(self, shared_server: ServerProcess) -> None:
        port = shared_server.target.rpartition(":")[2]
        for listen in (f"127.0.0.1:{port}", f"0.0.0.0:{port} unix:/tmp/other"):
            assert run("health", env={"CHECKPOINTD_LISTEN": listen}).output == "SERVING\n"

    def test_health_looks_first_where_health_alone_is_served(self, shared_server: ServerProcess) -> None:
        env = {"CHECKPOINTD_HEALTH_LISTEN": shared_server.target, "CHECKPOINTD_LISTEN": "127.0.0.1:1"}
        assert run("health", env=env).output == "SERVING\n"
        assert "no answer from checkpointd at 127.0.0.1:1:" in run("info", env=env).output

    @pytest.mark.parametrize("command", [["health"], ["info"], ["show", "42"]], ids=lambda command: command[0])
    def test_every_command_asks_where_the_server_listens_if_no_target_is_named(
        self, command: list[str], shared_server: ServerProcess
    ) -> None:
        env = {"CHECKPOINTD_LISTEN": shared_server.target.replace("127.0.0.1", "0.0.0.0")}
        assert "no answer" not in run(*command, env=env).output
        for named in ({"CHECKPOINTD_TARGET": "127.0.0.1:1"}, {}):
            options = [] if named else ["--target", "127.0.0.1:1"]
            assert "no answer from checkpointd at 127.0.0.1:1:" in run(*command, *options, env={**env, **named}).output

    def test_a_proxy_is_not_asked_about_this_machine(self, shared_server: ServerProcess) -> None:
        env = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
        assert run("health", "--target", shared_server.target, env=env).output == "SERVING\n"

    def test_a_service_that_is_not_there(self, shared_server: ServerProcess) -> None:
        result = run("health", "--service", "no.such.Service", "--target", shared_server.target)
        assert (result.exit_code, result.output) == (1, "SERVICE_UNKNOWN\n")

    @pytest.mark.parametrize("command", [["health"], ["info"], ["show", "42"]], ids=lambda command: command[0])
    def test_a_server_that_is_not_there(self, command: list[str]) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{holder.getsockname()[1]}"
            result = run(*command, "--target", target)
        assert result.exit_code == 1
        assert result.output == (
            f"Error: no answer from checkpointd at {target}: nothing listens there "
            "(`checkpointd serve` starts a server; --target names another one)\n"
        )

    @pytest.mark.parametrize("command", [["show", "42"]], ids=lambda command: command[0])
    def test_a_server_whose_database_is_away(
        self, command: list[str], server: ServerProcess, database_url: str, postgres_cluster: PostgresCluster
    ) -> None:
        """The server answered, so the message doesn't suggest starting one."""
        name = urlsplit(database_url).path.removeprefix("/")
        postgres_cluster.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres_cluster.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        result = run(*command, "--target", server.target)
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: checkpointd can't answer at {server.target}: the database ")
        assert "checkpointd serve" not in result.output
        assert result.output.count("\n") == 1


class TestSeveralServers:
    """A list of targets, as agents set it in CHECKPOINTD_TARGET."""

    @pytest.fixture
    def nowhere(self) -> Iterator[str]:
        """A target where nothing listens."""
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            yield f"127.0.0.1:{holder.getsockname()[1]}"

    def test_health_asks_each(self, shared_server: ServerProcess, nowhere: str) -> None:
        here = shared_server.target
        result = run("health", env={"CHECKPOINTD_TARGET": f"{here}, {here}"})
        assert (result.exit_code, result.output) == (0, f"{here} SERVING\n" * 2)
        result = run("health", "--target", f"{nowhere},{here}")
        assert (result.exit_code, result.stdout) == (1, f"{nowhere} UNAVAILABLE\n{here} SERVING\n")
        assert result.stderr.startswith(f"{nowhere}: ")
        assert result.stderr.count("\n") == 1
        result = run("health", "--service", "no.such.Service", "--target", f"{here},{here}")
        assert (result.exit_code, result.output) == (1, f"{here} SERVICE_UNKNOWN\n" * 2)

    @pytest.mark.parametrize("order", ["{here},{nowhere}", "{nowhere},{here}"])
    def test_the_others_ask_the_first_that_answers(
        self, order: str, shared_server: ServerProcess, nowhere: str, thread_id: str
    ) -> None:
        env = {"CHECKPOINTD_TARGET": order.format(here=shared_server.target, nowhere=nowhere)}
        assert run("info", env=env).output.startswith("version ")
        assert run("show", thread_id, env=env).output.startswith(f"thread '{thread_id}'\n")
        # An error from the server counts as an answer too.
        assert "'THREAD_ID': has 513 bytes" in run("show", "x" * 513, env=env).output

    @pytest.mark.parametrize("command", [["info"], ["show", "42"]], ids=lambda command: command[0])
    def test_where_none_answers_each_is_named(self, command: list[str], nowhere: str) -> None:
        result = run(*command, "--target", f"{nowhere},unix:/no/such/socket")
        assert result.exit_code == 1
        assert result.output.startswith("Error: no answer from checkpointd at any of 2 servers: ")
        assert f" {nowhere}: " in result.output
        assert " unix:/no/such/socket: there is no such socket" in result.output
        assert result.output.count("\n") == 1

    @pytest.mark.parametrize("target", ["", ",", "127.0.0.1:1,", "127.0.0.1:1, ,127.0.0.1:2"])
    def test_an_empty_name_is_refused(self, target: str) -> None:
        for command in (["health"], ["info"], ["show", "42"]):
            result = run(*command, "--target", target)
            assert result.exit_code == 2
            assert "lacks a server" in result.output

    @pytest.mark.parametrize(
        "target", ["127.0.0.1", "localhost", "127.0.0.1:65537", "http://host:50051", "host:port", "a:1 b:1", "[::1]"]
    )
    def test_what_is_no_address_is_refused(self, target: str) -> None:
        # grpc would turn some of them into an address that the user didn't give.
        for command in (["health"], ["info"], ["show", "42"]):
            result = run(*command, "--target", f"127.0.0.1:1,{target}")
            assert result.exit_code == 2
            assert f"the target '{target}' is not an address: it is HOST:PORT" in result.output

    def test_a_password_in_a_target_is_not_repeated(self) -> None:
        result = run("info", "--target", "http://me:hunter2@host:50051")
        assert "the target that was given is not an address" in result.output
        assert "hunter2" not in result.output

    def test_a_token_goes_to_no_other_machine_in_plain_text(self, shared_server: ServerProcess) -> None:
        env = {"CHECKPOINTD_TOKEN": "secret", "CHECKPOINTD_TARGET": f"{shared_server.target},192.0.2.1:50051"}
        result = run("health", env=env)
        assert result.exit_code == 2
        assert "in plain text to 192.0.2.1:50051" in result.output


def test_the_commands_reach_a_unix_socket(database_url: str, tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    with ServerProcess("--database-url", database_url, "--listen", target, log_dir=tmp_path) as process:
        assert process.target == target
        assert run("health", "--target", target).output == "SERVING\n"
        assert run("health", env={"CHECKPOINTD_LISTEN": target}).output == "SERVING\n"
