"""`checkpointd migrate`: alone, concurrently, and through psql where checkpointd may not change the schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import grpc
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd.v1.info_service_pb2 import CAPABILITY_STORE_VECTORS, GetServerInfoRequest
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd_server.store import database_of
from checkpointd_server.store.migrations import load_migrations
from tests.support.calls import config_of
from tests.support.cluster import PostgresCluster
from tests.support.commands import assert_one_clear_line, run
from tests.support.server_process import ServerProcess, clean_environment

COMMAND = [sys.executable, "-m", "checkpointd_server.cli", "migrate"]

KNOWN = len(load_migrations())
"""The number of migrations."""


def migrate(*arguments: str) -> str:
    """Runs it and returns its standard output."""
    result = run("migrate", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def psql(cluster: PostgresCluster, database_url: str, script: str) -> None:
    subprocess.run(
        [cluster.binaries / "psql", "--no-psqlrc", "--quiet", database_url], input=script, text=True, check=True
    )


def test_it_says_what_it_applied_and_the_second_time_that_there_was_nothing(empty_database_url: str) -> None:
    applied = migrate("--database-url", empty_database_url).splitlines()
    assert applied[0].startswith("applied 0001 ")
    url = urlsplit(empty_database_url)
    where = dict(parse_qsl(url.query))
    named = f"database {url.path[1:]} at {where['host']}:{where['port']}"
    assert applied[-1] == f"schema checkpointd is up to date, in {named}"
    assert migrate("--database-url", empty_database_url) == f"schema checkpointd was already up to date, in {named}\n"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://agents:hunter2@db.internal/agents", "database agents at db.internal:5432"),
        ("postgresql://agents:hunter2@a:6432,b/my%20agents?x=y", "database my agents at a:6432,b:5432"),
        ("postgresql://agents:hunter2@[::1]:6432/agents", "database agents at [::1]:6432"),
        ("postgresql:///agents?host=/run/pg&port=6432&password=hunter2", "database agents at /run/pg:6432"),
        ("postgresql://db?dbname=agents&user=agents", "database agents at db:5432"),
        ("postgresql://agents:hunter2@db", "the user's own database at db:5432"),
        ("postgresql:///agents", "database agents at the driver's default host:5432"),
    ],
)
def test_a_database_is_named_without_user_and_password(url: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGHOST", "PGPORT", "PGDATABASE"):
        monkeypatch.delenv(variable, raising=False)
    assert database_of(url) == named


def test_a_server_that_may_not_migrate_serves_after_it(empty_database_url: str, tmp_path: Path) -> None:
    migrate("--database-url", empty_database_url, "--schema", "Mine")
    with ServerProcess("--database-url", empty_database_url, "--schema", "Mine", "--no-migrate", log_dir=tmp_path):
        pass


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.long)])
def test_several_at_once_on_a_fresh_database_all_succeed_and_one_of_them_migrates(
    empty_database_url: str, count: int
) -> None:
    processes = [
        subprocess.Popen(
            [*COMMAND, "--database-url", empty_database_url], stdout=subprocess.PIPE, text=True, env=clean_environment()
        )
        for _ in range(count)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    assert sum("applied 0001" in output for output in outputs) == 1


def test_the_printed_sql_runs_in_psql_twice_and_a_server_serves_on_it(
    postgres_cluster: PostgresCluster, empty_database_url: str, tmp_path: Path
) -> None:
    script = migrate("--print-sql", "--vector-index", "3:l2")
    psql(postgres_cluster, empty_database_url, script)
    psql(postgres_cluster, empty_database_url, script)
    with ServerProcess("--database-url", empty_database_url, "--no-migrate", log_dir=tmp_path) as server:
        assert CAPABILITY_STORE_VECTORS not in capabilities(server)
    # The administrator may create the extension at any time.
    psql(postgres_cluster, empty_database_url, "CREATE EXTENSION vector;" + script)
    psql(postgres_cluster, empty_database_url, script)
    with ServerProcess("--database-url", empty_database_url, "--no-migrate", log_dir=tmp_path) as server:
        assert CAPABILITY_STORE_VECTORS in capabilities(server)
    assert migrate("--database-url", empty_database_url).startswith("schema checkpointd was already up to date, in ")


def capabilities(server: ServerProcess) -> list[int]:
    with grpc.insecure_channel(server.target) as channel:
        return list(InfoServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=20).capabilities)


def test_the_status_tells_what_is_lacking_and_changes_nothing(empty_database_url: str) -> None:
    options = ("--status", "--database-url", empty_database_url)
    for _ in range(2):
        before = run("migrate", *options)
        assert before.returncode == 1
        assert re.search(r"^0001 +core +breaking +pending$", before.stdout, re.MULTILINE)
        assert before.stdout.endswith(f"lacks {KNOWN} of {KNOWN} migrations: run `checkpointd migrate`\n")
    migrate("--database-url", empty_database_url)
    after = run("migrate", *options)
    assert after.returncode == 0
    assert re.search(r"^0001 +core +breaking +applied +\d{4}-\d\d-\d\dT\d\d:", after.stdout, re.MULTILINE)
    assert after.stdout.endswith("is up to date\n")
    told = json.loads(migrate(*options, "--json"))
    assert told["can_serve"] is True
    assert [row["state"] for row in told["migrations"]] == ["applied"] * KNOWN


def test_the_status_tells_of_another_builds_schema_and_a_server_refuses_it_in_one_line(
    postgres_cluster: PostgresCluster, database_url: str
) -> None:
    psql(postgres_cluster, database_url, "UPDATE checkpointd.migrations SET checksum = 'another' WHERE number = 1")
    told = run("migrate", "--status", "--database-url", database_url)
    assert told.returncode == 1
    assert re.search(r"^0001 +core +breaking +changed", told.stdout, re.MULTILINE)
    assert "was made by another build of checkpointd" in told.stdout
    refused = run("serve", "--listen", "127.0.0.1:0", "--database-url", database_url)
    assert_one_clear_line(refused, "made by another build of checkpointd")


@pytest.mark.parametrize(("additive", "code"), [("true", 0), ("false", 1)])
def test_a_server_starts_on_what_the_next_release_has_migrated_if_that_was_additive(
    additive: str, code: int, postgres_cluster: PostgresCluster, database_url: str, tmp_path: Path
) -> None:
    psql(
        postgres_cluster,
        database_url,
        "ALTER TABLE checkpointd.threads ADD COLUMN color text;"
        f"INSERT INTO checkpointd.migrations (number, name, additive) VALUES (9999, 'color', {additive});",
    )
    status = run("migrate", "--status", "--database-url", database_url)
    assert status.returncode == code
    assert re.search(r"^9999 +color +\w+ +unknown ", status.stdout, re.MULTILINE)
    if code:
        refused = run("serve", "--database-url", database_url, "--listen", "127.0.0.1:0")
        assert_one_clear_line(refused, "migration 9999", "newer checkpointd")
    else:
        with (
            ServerProcess("--database-url", database_url, log_dir=tmp_path) as server,
            GrpcSaver(server.target) as saver,
        ):
            config = saver.put(config_of("t"), empty_checkpoint(), {}, {})
            assert saver.get_tuple(config) is not None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--print-sql", "--status"), "--print-sql can't be combined with --status or --json"),
        (("--print-sql", "--json"), "--print-sql can't be combined with --status or --json"),
        (("--json",), "--json goes with --status"),
    ],
)
def test_options_that_do_not_go_together_are_told(options: tuple[str, ...], told: str) -> None:
    refused = run("migrate", *options)
    assert refused.returncode == 2
    assert told in refused.stderr


def test_printing_needs_no_database(tmp_path: Path) -> None:
    script = migrate("--print-sql", "--database-url", "postgresql://nobody@127.0.0.1:1/none", "--schema", "other")
    assert 'CREATE SCHEMA IF NOT EXISTS "other"' in script
    assert "checkpointd." not in script.replace("checkpointd.tenant", "")  # a setting, named the same for every schema


def test_it_can_migrate_the_embedded_database(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert "applied 0001" in migrate("--data-dir", str(data_dir))
    assert migrate("--data-dir", str(data_dir)).endswith(f" in the embedded PostgreSQL in {data_dir.resolve()}\n")
    with ServerProcess("--data-dir", str(data_dir), "--no-migrate", log_dir=tmp_path):
        pass
