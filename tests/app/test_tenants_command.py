"""`checkpointd stats`, `top`, `quotas` and `purge` for one tenant and for all, with text and JSON output."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import grpc
import pytest
from click.testing import CliRunner, Result
from langgraph.checkpoint.grpc import GrpcSaver, QuotaExceededError
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from checkpointd.v1.stats_service_pb2 import GetStatsRequest
from checkpointd.v1.stats_service_pb2_grpc import StatsServiceStub
from checkpointd_server.cli import main
from checkpointd_server.remote.retries import Retries, RetryInterceptor
from tests.support.api_keys import key_entry
from tests.support.cluster import PostgresCluster
from tests.support.server_process import ServerProcess
from tests.support.until import until


class State(TypedDict, total=False):
    lines: list[str]


def work(state: State) -> State:
    if state["lines"] == ["asks"]:
        interrupt("sure?")
    return {"lines": [*state["lines"], "x" * 20_000]}


class Commands:
    """Commands on a server with several tenants."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.target = server.target

    def run(self, key: str, *arguments: str, answer: str | None = None) -> Result:
        options = ("--target", self.target, "--token", f"ckd_{key}")
        return CliRunner().invoke(main, [*arguments, *options], input=answer)

    def ok(self, key: str, *arguments: str, answer: str | None = None) -> str:
        result = self.run(key, *arguments, answer=answer)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, key: str, *arguments: str) -> Any:
        return json.loads(self.ok(key, *arguments, "--json"))

    def make(self, tenant: str, thread_id: str, line: str = "one", turns: int = 1, **metadata: Any) -> None:
        """Creates a thread with a graph."""
        builder = StateGraph(State)
        builder.add_node("work", work)
        builder.add_edge(START, "work")
        with GrpcSaver.from_conn_string(self.target, token=f"ckd_{tenant}") as saver:
            graph = builder.compile(checkpointer=saver)
            for _ in range(turns):
                graph.invoke({"lines": [line]}, {"configurable": {"thread_id": thread_id}, "metadata": metadata})


@pytest.fixture(scope="module")
def commands(postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    folder = tmp_path_factory.mktemp("tenants")
    keys = Path(folder, "keys.toml")
    scopes = dict.fromkeys(("acme", "other", "doomed", "empty", "third"), ("admin",)) | {"boss": ("operator",)}
    keys.write_text("\n".join(key_entry(f"ckd_{name}", name, *which) for name, which in scopes.items()))
    database = postgres_cluster.create_migrated_database()
    options = ["--database-url", postgres_cluster.dsn(database), "--keys-file", str(keys)]
    options += ["--quota-refresh-seconds", "0.2"]
    with ServerProcess(*options, log_dir=folder) as server:
        made = Commands(server)
        for tenant in ("acme", "other", "doomed"):
            made.make(tenant, "talk", turns=2, user="ann")
            made.make(tenant, "waits", "asks", user="bob")
        yield made
    postgres_cluster.drop_database(database)


class TestStats:
    def test_for_people(self, commands: Commands) -> None:
        lines = commands.ok("other", "stats").splitlines()
        told = dict(line.split(maxsplit=1) for line in lines[:7])
        assert told["threads"] == "2"
        assert told["interrupted"] == "1"
        assert int(told["running"][1:]) + int(told["idle"][1:]) == 1
        assert next(line for line in lines if line.startswith("logical")).split()[1].startswith("~")
        days = lines.index("") + 1
        assert lines[days].split() == ["DAY", "THREADS", "CHECKPOINTS", "BYTES"]
        assert len(lines[days : lines.index("", days)]) == 8
        assert lines[-3].split()[:2] == ["LARGEST", "THREADS"]
        assert lines[-2].split()[0] == "talk"

    def test_for_programs(self, commands: Commands) -> None:
        told = commands.json("other", "stats")
        assert (told["threads"], told["pinned_threads"]) == (2, 0)
        assert told["threads_by_status"]["interrupted"] == 1
        assert sum(told["threads_by_status"].values()) == 2
        assert told["checkpoints"] == sum(thread["checkpoints"] for thread in told["largest"])
        assert [thread["thread_id"] for thread in told["largest"]] == ["talk", "waits"]
        assert told["stored_bytes"] == sum(thread["bytes"] for thread in told["largest"])
        # Both threads were examined, so task writes are counted.
        assert "writes" not in told["estimates"]
        assert told["writes"] > 0
        assert told["saved_bytes"] == told["logical_bytes"] - told["stored_bytes"] > 0
        # All of it was written today, or partly before midnight.
        assert sum(day["threads"] for day in told["days"]) == 2
        assert abs(sum(day["checkpoints"] for day in told["days"]) - told["checkpoints"]) <= 1
        assert told["mean_session_seconds"] > 0
        assert told["oldest_at"] <= told["measured_at"]

    def test_nothing_is_there_for_who_has_nothing(self, commands: Commands) -> None:
        told = commands.json("empty", "stats")
        assert (told["threads"], told["checkpoints"], told["oldest_at"], told["largest"]) == (0, 0, None, [])
        assert "oldest        -" in commands.ok("empty", "stats")

    def test_the_usage_report_is_for_the_operator(self, commands: Commands) -> None:
        rows = list(csv.DictReader(io.StringIO(commands.ok("boss", "stats", "--by-tenant", "--csv"))))
        own = commands.json("other", "stats")
        (row,) = [row for row in rows if row["tenant"] == "other"]
        assert {key: int(row[key]) for key in ("threads", "checkpoints", "bytes")} == {
            "threads": 2,
            "checkpoints": own["checkpoints"],
            "bytes": own["stored_bytes"],
        }
        told = commands.json("boss", "stats", "--by-tenant")["tenants"]
        # Other tenants may be recorded meanwhile.
        names = [tenant["tenant"] for tenant in told]
        assert names == sorted(names)
        assert set(names) >= {row["tenant"] for row in rows}
        lines = commands.ok("boss", "stats", "--by-tenant").splitlines()
        assert lines[0].startswith("TENANT")
        assert any(line.startswith("other ") for line in lines)
        for key in ("acme", "other"):
            refused = commands.run(key, "stats", "--by-tenant")
            assert refused.exit_code == 1
            assert "needs the scope 'operator'" in refused.output

    @pytest.mark.parametrize("options", [["--csv"], ["--by-tenant", "--csv", "--json"]], ids=" ".join)
    def test_what_makes_no_sense_is_refused(self, options: list[str], commands: Commands) -> None:
        assert commands.run("boss", "stats", *options).exit_code == 2


class TestTop:
    def test_for_programs(self, commands: Commands) -> None:
        commands.make("third", "busy", turns=3)
        told = commands.json("third", "top")
        assert told["calls_per_second"] > 0
        assert told["busiest"][0]["thread_id"] == "busy"
        assert told["busiest"][0]["calls"] > 3
        assert {"method", "thread_id", "seconds", "ago_seconds"} == told["slowest"][0].keys()
        seconds = [one["seconds"] for one in told["slowest"]]
        assert seconds == sorted(seconds, reverse=True)
        assert all("Activity" not in one["method"] for one in (*told["slowest"], *told["live"]))
        assert len(commands.json("third", "top", "--limit", "1")["slowest"]) == 1

    def test_for_people_and_once_where_nobody_looks(self, commands: Commands) -> None:
        commands.make("third", "busy")
        lines = commands.ok("third", "top").splitlines()
        assert "calls in flight, " in lines[0]
        busiest = lines.index("busiest threads")
        assert lines[busiest + 1].split() == ["CALLS", "THREAD"]
        assert "busy" in {line.split()[1] for line in lines[busiest + 2 :]}

    def test_another_tenants_calls_are_for_the_operator_alone(self, commands: Commands) -> None:
        commands.make("third", "secret-thread")
        assert "secret-thread" not in commands.ok("acme", "top", "--json")
        refused = commands.run("acme", "top", "--all-tenants")
        assert "needs the scope 'operator'" in refused.output
        told = commands.json("boss", "top", "--all-tenants", "--limit", "1000")
        assert ("third", "secret-thread") in {(one["tenant"], one["thread_id"]) for one in told["busiest"]}
        assert "TENANT" in commands.ok("boss", "top", "--all-tenants")


class TestQuotas:
    def test_set_and_list(self, commands: Commands) -> None:
        assert commands.json("boss", "quotas", "set", "acme", "--threads", "1000", "--bytes", "5000000000") == {
            "tenant": "acme",
            "quotas": {"max_bytes": 5_000_000_000, "max_threads": 1000, "max_calls_per_second": None},
        }
        (told,) = commands.json("boss", "quotas", "list", "acme")["tenants"]
        assert told["set"] == ["max_bytes", "max_threads"]
        assert told["quotas"]["max_threads"] == 1000
        assert told["used"].keys() == {"bytes", "threads"}
        lines = commands.ok("boss", "quotas", "list").splitlines()
        assert lines[0].startswith("TENANT")
        assert "quotas        4.7 GiB, 1000 threads" in commands.ok("acme", "stats").splitlines()
        assert commands.json("acme", "stats")["quotas"]["max_threads"] == 1000
        assert "quotas        none" in commands.ok("other", "stats").splitlines()
        (line,) = [line for line in lines if line.startswith("acme ")]
        assert line.split()[-3:] == [str(told["used"]["threads"]), "1000*", "-"]
        assert "4.7 GiB*" in line
        assert "threads       1000" in commands.ok("boss", "quotas", "set", "acme", "--calls", "0")
        assert "any number" in commands.ok("boss", "quotas", "set", "acme", "--reset")
        assert commands.json("boss", "quotas", "list", "acme")["tenants"][0]["set"] == []

    def test_what_is_over_is_refused_and_told_as_such(self, commands: Commands) -> None:
        commands.ok("empty", "stats")
        until(lambda: commands.run("boss", "quotas", "set", "empty", "--threads", "1").exit_code == 0)
        commands.make("empty", "first")
        numbers = iter(range(100_000))

        def until_refused() -> None:
            while True:
                commands.make("empty", f"more-{next(numbers)}")

        with pytest.raises(QuotaExceededError) as refused:
            until_refused()
        assert (refused.value.field, refused.value.limit) == ("threads", 1)
        assert refused.value.used is not None
        assert refused.value.used >= 1
        commands.make("empty", "first")  # the thread exists already, so it can continue
        commands.ok("boss", "quotas", "set", "empty", "--reset")
        commands.ok("empty", "purge", "threads", "--all", "--yes")

    def test_a_name_that_nobody_has_called_by_may_be_a_mistake(self, commands: Commands) -> None:
        options = ("quotas", "set", "coming", "--threads", "5")
        refused = commands.run("boss", *options)
        assert refused.exit_code == 2
        assert "no tenant 'coming' was seen" in refused.stderr
        assert "--new" in refused.stderr
        assert commands.run("boss", "quotas", "list", "coming").exit_code == 1
        assert commands.json("boss", *options, "--new")["quotas"]["max_threads"] == 5
        assert commands.json("boss", "quotas", "set", "coming", "--threads", "6")["quotas"]["max_threads"] == 6

    def test_commands_wait_as_long_as_they_are_asked_to(self, commands: Commands) -> None:
        commands.ok("third", "stats")
        until(lambda: commands.run("boss", "quotas", "set", "third", "--calls", "1").exit_code == 0)

        def told_to_wait() -> str:
            result = commands.run("third", "stats")
            assert result.exit_code == 0
            return result.stderr

        # A command that is slow itself needn't wait.
        waited = until(told_to_wait)
        assert waited == f"waiting for {commands.target}: the tenant's quota of 1 calls per second is used up (1)\n"
        commands.ok("boss", "quotas", "set", "third", "--reset")

    def test_they_do_not_wait_for_ever(self, commands: Commands) -> None:
        commands.ok("boss", "quotas", "set", "third", "--new", "--calls", "1")
        with grpc.insecure_channel(commands.target) as channel:
            told: list[str] = []
            retrying = RetryInterceptor(lambda: Retries(max_wait=0.0), told.append)
            stub: Any = StatsServiceStub(grpc.intercept_channel(channel, retrying))

            def until_refused() -> None:
                while True:  # a quota of a tenant that the server doesn't know yet takes effect with a delay
                    stub.GetStats(GetStatsRequest(), metadata=[("authorization", "Bearer ckd_third")])

            with pytest.raises(grpc.RpcError) as refused:
                until_refused()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not told
        commands.ok("boss", "quotas", "set", "third", "--reset")

    def test_a_quota_can_be_lifted_by_whom_it_binds(self, commands: Commands) -> None:
        commands.ok("boss", "quotas", "set", "boss", "--new", "--calls", "1")
        for _ in range(5):
            assert commands.run("boss", "quotas", "list").stderr == ""
        assert commands.run("boss", "quotas", "set", "boss", "--reset").stderr == ""

    def test_only_the_operator_may(self, commands: Commands) -> None:
        for arguments in (["list"], ["set", "acme", "--calls", "0"]):
            refused = commands.run("acme", "quotas", *arguments)
            assert "needs the scope 'operator'" in refused.output
        assert commands.run("boss", "quotas", "set", "acme").exit_code == 2
        assert "no tenant 'nobody' was seen" in commands.run("boss", "quotas", "list", "nobody").output


class TestPurge:
    def test_threads_that_a_filter_finds(self, commands: Commands) -> None:
        commands.make("acme", "found", "asks", user="fay")
        before = commands.json("acme", "threads", "count")["count"]
        others = commands.json("other", "stats")["checkpoints"]
        command = ("purge", "threads", "--metadata", "user=fay")
        told = commands.ok("acme", *command, "--dry-run")
        assert told.startswith("would purge 1 threads with ")
        assert told.endswith(f" at {commands.target}\n")
        assert commands.json("acme", *command, "--dry-run")["would_purge"]["threads"] == 1
        refused = commands.run("acme", *command, answer="n\n")
        assert refused.exit_code == 1
        assert "This can't be undone" in refused.stderr
        assert commands.run("acme", *command).exit_code == 2
        assert commands.json("acme", "threads", "count")["count"] == before
        done = commands.json("acme", *command, "--yes")["purged"]
        assert (done["threads"], done["pinned_threads"]) == (1, 0)
        assert done["rows"]["threads"] == 1
        assert done["rows"]["checkpoints"] == done["checkpoints"]
        assert commands.json("acme", "threads", "count")["count"] == before - 1
        assert commands.json("other", "stats")["checkpoints"] == others

    def test_archived_ones_may_be_meant_alone(self, commands: Commands) -> None:
        for thread in ("old-1", "old-2"):
            commands.make("acme", thread, user="eve")
        commands.ok("acme", "threads", "archive", "old-1")
        every = commands.json("acme", "purge", "threads", "--prefix", "old-", "--dry-run")
        assert every["would_purge"]["threads"] == 2
        done = commands.ok("acme", "purge", "threads", "--prefix", "old-", "--archived", "--yes")
        assert done.startswith("purged 1 threads with ")
        left = ("threads", "list", "--prefix", "old-")
        assert "old-2" in commands.ok("acme", *left)
        assert "old-1" not in commands.ok("acme", *left, "--archived")
        told = commands.ok("acme", "purge", "threads", "--help")
        assert "[default: archived or not]" in " ".join(told.split())

    def test_pinned_ones_stay_and_are_told_of(self, commands: Commands) -> None:
        commands.make("acme", "held", user="cid")
        commands.ok("acme", "threads", "tag", "held", "--pin")
        told = commands.ok("acme", "purge", "threads", "--metadata", "user=cid", "--dry-run")
        assert told.startswith("would purge 0 threads")
        assert told.endswith("; 1 pinned threads are kept\n")
        done = commands.ok("acme", "purge", "threads", "--metadata", "user=cid", "--include-pinned", "--yes")
        assert done.startswith("purged 1 threads with ")
        assert "  threads" in done

    @pytest.mark.parametrize("options", [[], ["--all", "--prefix", "x"]], ids=" ".join)
    def test_all_of_them_must_be_meant(self, options: list[str], commands: Commands) -> None:
        result = commands.run("acme", "purge", "threads", *options, "--yes")
        assert result.exit_code == 2
        assert "--all" in result.output

    def test_a_tenant(self, commands: Commands) -> None:
        for key in ("acme", "doomed"):
            refused = commands.run(key, "purge", "tenant", "doomed", "--yes")
            assert "needs the scope 'operator'" in refused.output
        others = commands.json("other", "stats")["checkpoints"]
        told = commands.ok("boss", "purge", "tenant", "doomed", "--dry-run")
        assert "2 threads" in told
        assert "of tenant 'doomed'" in told
        done = commands.json("boss", "purge", "tenant", "doomed", "--yes")["purged"]
        assert done["threads"] == 2
        assert done["rows"]["threads"] == 2
        assert commands.json("doomed", "stats")["threads"] == 0
        assert commands.json("other", "stats")["checkpoints"] == others

    def test_a_tenant_that_nobody_has_seen_is_not_purged(self, commands: Commands) -> None:
        for options in (["--yes"], ["--dry-run"], []):
            result = commands.run("boss", "purge", "tenant", "typo", *options)
            assert result.exit_code == 1
            assert "no tenant 'typo' was seen" in result.stderr

    def test_purges_are_audited(self, commands: Commands) -> None:
        commands.make("third", "audited", user="dan")
        commands.ok("third", "purge", "threads", "--prefix", "audited", "--yes")

        def audited() -> list[str]:
            return [
                line
                for line in commands.server.stderr.splitlines()
                if "audit" in line
                and "PurgeThreads" in line
                and "thread_id_prefix=audited" in line
                and "dry_run" not in line
                and "purged_threads=1" in line
            ]

        (line,) = until(audited)
        assert "tenant=third" in line
        assert "outcome=OK" in line


@pytest.mark.parametrize(
    "command",
    [["stats"], ["top"], ["purge"], ["purge", "threads"], ["purge", "tenant"], ["quotas"], ["quotas", "set"]],
    ids=" ".join,
)
def test_help_has_examples(command: list[str]) -> None:
    told = CliRunner().invoke(main, [*command, "--help"])
    assert told.exit_code == 0
    assert f"checkpointd {' '.join(command)}" in told.stdout
    assert "Examples:" in told.stdout
