"""`checkpointd retention`: every command with text and JSON output, and the server's retention runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.cli import main
from tests.support.cluster import PostgresCluster
from tests.support.scrape import scrape
from tests.support.server_process import ServerProcess
from tests.support.until import until


class Commands:
    """Commands on one server, for threads under a separate prefix."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.prefix = f"{uuid4().hex}:"

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(main, ["retention", *arguments, "--target", self.target], input=answer)

    def ok(self, *arguments: str, answer: str | None = None) -> str:
        result = self.run(*arguments, answer=answer)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def make(self, name: str, checkpoints: int) -> str:
        """Creates a thread with this many checkpoints."""
        thread_id = f"{self.prefix}{name}"
        with GrpcSaver.from_conn_string(self.target) as saver:
            config: Any = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
            for _ in range(checkpoints):
                config = saver.put(config, empty_checkpoint(), {}, {})
        return thread_id

    def ids(self, thread_id: str) -> int:
        with GrpcSaver.from_conn_string(self.target) as saver:
            return len(list(saver.list({"configurable": {"thread_id": thread_id}})))


@pytest.fixture
def commands(shared_server: ServerProcess) -> Iterator[Commands]:
    made = Commands(shared_server.target)
    yield made
    for policy in made.json("list"):
        made.ok("delete", policy["name"], "--yes")


class TestPolicies:
    def test_set_list_get_and_delete(self, commands: Commands) -> None:
        options = ("--max-idle", "90d", "--max-bytes", "5MiB", "--hold", "12h", "--metadata", "app=x", "--interrupted")
        stored = commands.json("set", "chats", "--prefix", commands.prefix, *options, "--yes")
        assert {key: value for key, value in stored.items() if key != "updated_at"} == {
            "name": "chats",
            "prefix": commands.prefix,
            "metadata": {"app": "x"},
            "max_idle_seconds": 90 * 86_400,
            "delete_interrupted": True,
            "max_age_seconds": None,
            "keep_newest": None,
            "keep_last_of_run": False,
            "max_bytes": 5 * 1024 * 1024,
            "hold_seconds": 12 * 3600,
        }
        assert commands.json("get", "chats") == stored
        assert commands.json("list") == [stored]
        lines = commands.ok("list").splitlines()
        assert lines[0].split() == ["POLICY", "THREADS", "LIMITS"]
        assert "idle 90d, interrupted too, at most 5.0 MiB, held 12h" in lines[1]
        assert "limits   idle 90d" in commands.ok("get", "chats")
        assert commands.json("delete", "chats", "--dry-run") == {"would_delete": "chats"}
        assert "would delete the policy chats" in commands.ok("delete", "chats", "--dry-run")
        assert commands.run("delete", "chats", answer="n\n").exit_code == 1
        assert commands.ok("delete", "chats", answer="y\n").endswith("chats: deleted\n")
        assert commands.json("list") == []

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("get", "none"), "there is no retention policy 'none'"),
            (("delete", "none", "--yes"), "there is no retention policy 'none'"),
            (("set", "p", "--yes"), "has no limit"),
            (("set", "p", "--max-idle", "soon"), "is not a length of time"),
            (("set", "p", "--max-bytes", "much"), "is not a size"),
            (("set", "p", "--hold", "1h", "--yes"), "--hold alone deletes nothing"),
            (("set", "p", "--interrupted", "--prefix", "x", "--yes"), "--interrupted alone deletes nothing"),
            (("set", "p", "--keep-newest", "2147483648"), "'--keep-newest'"),
            (("set", "p", "--max-bytes", "1025TiB"), "'--max-bytes'"),
            (("set", "p", "--hold", "4000w"), "'--hold'"),
            (("set", "p", "--keep-newest", "1", "--prefix", "x" * 513), "'--prefix': has 513 bytes"),
            (("set", "p", "--keep-newest", "1"), "no answer on standard input: give --yes"),
            (("set", "p" * 200, "--keep-newest", "1", "--yes"), "'NAME': has 200 bytes, at most 128"),
            (("acknowledge", "none"), "nothing to acknowledge"),
        ],
        ids=" ".join,
    )
    def test_problems_are_said(self, arguments: tuple[str, ...], problem: str, commands: Commands) -> None:
        result = commands.run(*arguments)
        assert result.exit_code != 0
        assert problem in result.output

    def test_a_question_that_nobody_answers_is_asked_once(self, commands: Commands) -> None:
        result = commands.run("set", "p", "--keep-newest", "1")
        assert result.exit_code == 2
        assert result.stderr.count("Store p at") == 1
        assert result.stderr.count("--yes") == 1
        assert commands.json("list") == []


class TestRuns:
    def test_a_dry_run_tells_what_the_run_does(self, commands: Commands) -> None:
        thread_id = commands.make("a", 4)
        options = ("set", "p", "--prefix", commands.prefix, "--keep-newest", "1")
        would = commands.json(*options, "--dry-run")["would_delete"]
        effect = {"thread_id": thread_id, "action": "trim", "reason": "keep_newest", "policy": "p", "checkpoints": 3}
        not_held = {"held_until": None, "hold_policy": None}
        assert would == [{**effect, "outcome": "planned", **not_held}]
        assert "would delete 0 threads, and 3 checkpoints of 1 others" in commands.ok(*options, "--dry-run")
        assert commands.json("list") == []
        asked = commands.run(*options, answer="y\n")
        assert "By itself it would delete 0 threads, and 3 checkpoints of 1 others now." in asked.output
        assert commands.json("preview") == commands.json("run", "--dry-run") == would
        lines = commands.ok("preview").splitlines()
        assert lines[0].split() == ["THREAD", "ACTION", "OUTCOME", "CHECKPOINTS", "REASON", "POLICY", "HELD", "BY"]
        assert lines[1].split() == [thread_id, "trim", "planned", "3", "keep_newest", "p", "-"]
        assert commands.ids(thread_id) == 4
        assert commands.run("run", answer="n\n").exit_code == 1
        assert commands.json("run", "--yes") == [{**effect, "outcome": "done", **not_held}]
        assert commands.ids(thread_id) == 1
        assert commands.ok("run", "--yes") == ""

    def test_what_others_delete_is_not_counted_as_a_tried_policys(self, commands: Commands) -> None:
        commands.make("a", 4)
        commands.ok("set", "p", "--prefix", commands.prefix, "--keep-newest", "1", "--yes")
        options = ("set", "q", "--prefix", f"{commands.prefix}b", "--keep-newest", "2")
        assert commands.json(*options, "--dry-run") == {"would_delete": [], "would_hold": []}
        thread_id = commands.make("b", 4)
        (effect,) = commands.json(*options, "--dry-run")["would_delete"]
        assert (effect["thread_id"], effect["policy"], effect["checkpoints"]) == (thread_id, "q", 2)

    def test_what_is_held_is_not_said_to_go(self, commands: Commands) -> None:
        thread_id = commands.make("a", 4)
        options = ("set", "p", "--prefix", commands.prefix, "--keep-newest", "1", "--hold", "1h")
        would = commands.json(*options, "--dry-run")
        assert would["would_delete"] == []
        assert [(one["outcome"], one["hold_policy"]) for one in would["would_hold"]] == [("held", "p")]
        commands.ok(*options, "--yes")
        for command in (("preview",), ("run", "--dry-run")):
            last = commands.ok(*command).splitlines()[-1]
            assert last == (
                "would delete 0 threads, and 0 checkpoints of 0 others, "
                "and hold back 0 threads, and 3 checkpoints of 1 others"
            )
        asked = commands.run("run", answer="n\n")
        assert "They would delete 0 threads, and 0 checkpoints of 0 others, and hold back 0 threads" in asked.stderr
        commands.ok("run", "--yes")
        commands.ok("acknowledge", thread_id, "--yes")
        (effect,) = commands.json("preview")
        assert (effect["outcome"], effect["checkpoints"]) == ("planned", 3)

    def test_what_is_held_is_listed_and_acknowledged(self, commands: Commands) -> None:
        thread_id = commands.make("a", 3)
        commands.ok("set", "p", "--prefix", commands.prefix, "--keep-newest", "2", "--hold", "1h", "--yes")
        (held,) = commands.json("run", "--yes")
        assert (held["outcome"], held["checkpoints"]) == ("held", 1)
        (entry,) = commands.json("expiring")
        assert (entry["thread_id"], entry["deadline_at"]) == (thread_id, held["held_until"])
        assert entry["hold_policy"] == "p"
        line = commands.ok("expiring").splitlines()[1].split()
        assert line[:6] == [thread_id, "trim", "1", "keep_newest", "p", "p"]
        assert commands.json("acknowledge", thread_id, "--dry-run") == {"would_acknowledge": [thread_id], "missing": []}
        assert commands.json("acknowledge", thread_id, "--yes") == {"acknowledged": [thread_id], "missing": []}
        assert commands.json("expiring") == []
        (done,) = commands.json("run", "--yes")
        assert (done["outcome"], done["checkpoints"]) == ("done", 1)


@pytest.mark.parametrize("command", ["", "set", "list", "get", "delete", "preview", "run", "expiring", "acknowledge"])
def test_help(command: str) -> None:
    result = CliRunner().invoke(main, ["retention", *command.split(), "--help"])
    assert result.exit_code == 0
    assert "checkpointd retention" in result.stdout


def test_a_server_sweeps_counts_and_tells(postgres_cluster: PostgresCluster, database_url: str, tmp_path: Path) -> None:
    options = ("--retention-interval", "0.2", "--metrics-listen", "127.0.0.1:0")
    with ServerProcess("--database-url", database_url, *options, log_dir=tmp_path) as server:
        commands = Commands(server.target)
        thread_id = commands.make("a", 5)
        commands.ok("set", "p", "--keep-newest", "2", "--yes")
        until(lambda: commands.ids(thread_id) == 2)
        until(lambda: "RetentionTrimmedThread" in server.stderr)
        line = next(line for line in server.stderr.splitlines() if "RetentionTrimmedThread" in line)
        for told in ("checkpointd.audit", "deleted_checkpoints=3", "tenant=default", "policy=p", thread_id):
            assert told in line
        assert "SetPolicy" in server.stderr
        until(lambda: scrape(server).value("checkpointd_retention_checkpoints_total") == 3)
        assert scrape(server).value("checkpointd_retention_threads_total") == 1
        assert scrape(server).value("checkpointd_retention_runs_total", outcome="ok") >= 1


@pytest.mark.long  # a server that was applying retention counts as dead after half a minute
@pytest.mark.timeout(240)
def test_a_server_that_is_killed_in_the_middle_is_followed_by_another(database_url: str, tmp_path: Path) -> None:
    options = ("--database-url", database_url, "--retention-interval", "0.2", "--retention-batch", "1")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with ServerProcess(*options, log_dir=tmp_path / "first") as first:
        commands = Commands(first.target)
        # Enough that deleting them one by one takes seconds.
        threads = [commands.make(f"{n}", 700) for n in range(3)]
        commands.ok("set", "p", "--keep-newest", "1", "--yes")
        with ServerProcess(*options, log_dir=tmp_path / "second") as second:
            until(lambda: commands.ids(threads[0]) + commands.ids(threads[1]) + commands.ids(threads[2]) < 2090)
            first.kill()
            after = Commands(second.target)
            left = [after.ids(thread) for thread in threads]
            assert sum(left) > 3
            assert "RetentionTrimmedThread" not in second.stderr
            until(lambda: [after.ids(thread) for thread in threads] == [1, 1, 1], timeout=120)
