"""A right that the server's role lacks: reported at the start, by every call and by health, with what to grant."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from langgraph.checkpoint.grpc import GrpcSaver, ServerUnavailableError

from tests.support.calls import checkpoint, config_of
from tests.support.cluster import PostgresCluster
from tests.support.server_process import ServerFailed, ServerProcess

ROLE = "borrower"


@pytest.fixture
def database(postgres_cluster: PostgresCluster) -> str:
    """A database whose tables belong to another role; the server's role has been granted all rights on them."""
    name = postgres_cluster.create_migrated_database()
    if not postgres_cluster.fetch_value("SELECT count(*) FROM pg_roles WHERE rolname = $1", ROLE):
        postgres_cluster.execute(f"CREATE ROLE {ROLE} LOGIN")
    for grant in (
        "USAGE ON SCHEMA checkpointd",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA checkpointd",
        "EXECUTE ON ALL FUNCTIONS IN SCHEMA checkpointd",
    ):
        postgres_cluster.execute(f"GRANT {grant} TO {ROLE}", database=name)
    return name


@pytest.mark.parametrize(
    ("right", "named"),
    [
        ("DELETE ON checkpointd.task_writes", "DELETE ON TABLE task_writes"),
        ("SELECT ON checkpointd.lease_waiters", "SELECT ON TABLE lease_waiters"),
    ],
)
def test_at_the_start(right: str, named: str, database: str, postgres_cluster: PostgresCluster, tmp_path: Path) -> None:
    postgres_cluster.execute(f"REVOKE {right} FROM {ROLE}", database=database)
    options = ("--database-url", postgres_cluster.dsn(database, role=ROLE), "--no-migrate")
    with pytest.raises(ServerFailed, match=named) as failed, ServerProcess(*options, log_dir=tmp_path):
        pass
    assert "GRANT" in str(failed.value)


def test_while_it_serves(database: str, postgres_cluster: PostgresCluster, tmp_path: Path) -> None:
    options = ("--database-url", postgres_cluster.dsn(database, role=ROLE), "--no-migrate")
    with ServerProcess(*options, log_dir=tmp_path) as server, GrpcSaver(server.target, retry_budget=0) as saver:
        saver.put(config_of("t"), checkpoint("1", {"a": 1}), {}, {"a": 1})
        postgres_cluster.execute(f"REVOKE INSERT ON checkpointd.channel_values FROM {ROLE}", database=database)
        with pytest.raises(ServerUnavailableError, match=r"lacks rights \(on table channel_values\): GRANT"):
            saver.put(config_of("t", "", "1"), checkpoint("2", {"a": 2}, {"a": 2}), {}, {"a": 2})
        with grpc.insecure_channel(server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            deadline = time.monotonic() + 60
            while health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        postgres_cluster.execute(f"GRANT INSERT ON checkpointd.channel_values TO {ROLE}", database=database)
        saver.put(config_of("t", "", "1"), checkpoint("2", {"a": 2}, {"a": 2}), {}, {"a": 2})
