"""Log lines about successful calls: who deleted what, which calls were slow, and which checkpoints are large."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd.v1 import lease_service_pb2 as lease_pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd_server.rpc.calls.audit import MOST_NAMES
from checkpointd_server.rpc.calls.log_rate_limit import FIRST_LINES
from tests.support.api_keys import key_entry
from tests.support.cluster import PostgresCluster
from tests.support.comparison import Ledger
from tests.support.graphs import line
from tests.support.operations import operation, results_of, send
from tests.support.rpc_client import bearer, connected
from tests.support.scrape import scrape
from tests.support.server_process import ServerProcess
from tests.support.until import until

LARGE = 100_000
"""The size from which a checkpoint is large for the server of these tests."""


@pytest.fixture(scope="module")
def logging_server(
    postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that treats every call as slow."""
    folder = tmp_path_factory.mktemp("audit")
    database = postgres_cluster.dsn(postgres_cluster.create_migrated_database())
    options = ["--metrics-listen", "127.0.0.1:0", "--slow-call-seconds", "0.000001"]
    options += ["--warn-checkpoint-bytes", str(LARGE), "--log-format", "json", "--log-level", "info"]
    with ServerProcess("--database-url", database, *options, log_dir=folder) as server:
        yield server


def lines(server: ServerProcess, event: str, **fields: Any) -> list[dict[str, Any]]:
    """The lines of one event in a server's log that have these fields."""
    found = [json.loads(text) for text in server.stderr.splitlines() if text.startswith("{")]
    return [one for one in found if one["event"] == event and fields.items() <= one.items()]


async def test_what_deletes_copies_and_prunes_has_a_line(logging_server: ServerProcess) -> None:
    async with connected(logging_server.target) as client:
        for thread in ("gone", "kept"):
            for number in "12":
                put = client.put_request(thread_id=thread, checkpoint_id=number)
                put.metadata.CopyFrom(client.metadata({"run_id": f"run-{thread}"}))
                await client.checkpoints.PutCheckpoint(put)
        await client.threads.CopyThread(pb.CopyThreadRequest(source_thread_id="kept", target_thread_id="copy"))
        await client.threads.PruneThreads(
            pb.PruneThreadsRequest(thread_ids=["kept"], strategy=pb.PRUNE_STRATEGY_KEEP_LATEST)
        )
        await client.threads.DeleteRuns(pb.DeleteRunsRequest(run_ids=["run-kept"]))
        await client.threads.DeleteThread(pb.DeleteThreadRequest(thread_id="gone"))
    (copy,) = until(lambda: lines(logging_server, "audit", action="CopyThread"))
    assert (copy["source_thread_id"], copy["target_thread_id"], copy["copied_checkpoints"]) == ("kept", "copy", 2)
    assert copy["peer"].startswith("ipv4:127.0.0.1:")
    (prune,) = until(lambda: lines(logging_server, "audit", action="PruneThreads", outcome="OK"))
    assert (prune["thread_ids"], prune["thread_ids_count"], prune["deleted_checkpoints"]) == (["kept"], 1, 1)
    assert prune["strategy"] == "PRUNE_STRATEGY_KEEP_LATEST"
    (runs,) = until(lambda: lines(logging_server, "audit", action="DeleteRuns"))
    assert (runs["run_ids"], runs["deleted_checkpoints"], runs["outcome"]) == (["run-kept"], 3, "OK")
    (deletion,) = until(lambda: lines(logging_server, "audit", action="DeleteThread", thread_id="gone"))
    assert (deletion["thread_id"], deletion["deleted_checkpoints"], deletion["level"]) == ("gone", 2, "info")


async def test_what_failed_half_way_has_a_line_too_and_tokens_are_in_none(logging_server: ServerProcess) -> None:
    async with connected(logging_server.target) as client:
        await client.checkpoints.PutCheckpoint(client.put_request(thread_id="leased"))
        lease = await client.leases.AcquireLease(lease_pb.AcquireLeaseRequest(thread_id="leased", holder=b"h"))
        many = [f"many-{number}" for number in range(MOST_NAMES + 5)]
        refused = await client.refused(
            client.threads.PruneThreads(pb.PruneThreadsRequest(thread_ids=["leased", *many]))
        )
        assert refused.reason == "LEASE_HELD"
        await client.threads.DeleteThread(pb.DeleteThreadRequest(thread_id="leased", lease_token=lease.token))
    (failed,) = until(lambda: lines(logging_server, "audit", action="PruneThreads", outcome="ABORTED"))
    assert (len(failed["thread_ids"]), failed["thread_ids_count"]) == (MOST_NAMES, MOST_NAMES + 6)
    until(lambda: lines(logging_server, "audit", thread_id="leased"))
    assert str(lease.token) not in logging_server.stderr


async def test_changes_of_how_a_thread_is_kept_have_lines(logging_server: ServerProcess) -> None:
    async with connected(logging_server.target) as client:
        await client.checkpoints.PutCheckpoint(client.put_request(thread_id="noted"))
        update = pb.UpdateThreadRequest(thread_id="noted", pinned=False, ttl_seconds=60)
        update.set_tags.add(name="customer", text="a private name")
        await client.threads.UpdateThread(update)
        await client.threads.ArchiveThread(pb.ArchiveThreadRequest(thread_id="noted"))
        await client.threads.GetThread(pb.GetThreadRequest(thread_id="noted"))
    (update_line,) = until(lambda: lines(logging_server, "audit", action="UpdateThread", thread_id="noted"))
    assert (update_line["pinned"], update_line["ttl_seconds"], update_line["set_tags_count"]) == (False, 60, 1)
    (archive_line,) = until(lambda: lines(logging_server, "audit", action="ArchiveThread", thread_id="noted"))
    assert archive_line["outcome"] == "OK"
    assert not lines(logging_server, "audit", action="GetThread")
    assert "a private name" not in logging_server.stderr


async def test_deleted_items_have_lines_one_by_one_and_in_batches(logging_server: ServerProcess) -> None:
    delete = store_pb.DeleteItemRequest(namespace=["users", "1"], key="profile")
    value = store_pb.ItemValue(type="json", data=b"{}")
    put = store_pb.PutItemRequest(namespace=["users", "2"], key="profile", value=value)
    async with connected(logging_server.target) as client:
        await client.store.DeleteItem(delete)
        await client.refused(client.store.DeleteItem(store_pb.DeleteItemRequest(key="profile")))
        await client.store.Batch(store_pb.BatchRequest(operations=[store_pb.StoreOperation(put=put)]))
        both = [store_pb.StoreOperation(put=put), store_pb.StoreOperation(delete=delete)]
        await client.store.Batch(store_pb.BatchRequest(operations=both))
        stream = client.checkpoints.Pipeline()
        await send(stream, operation(1, store_pb.BatchRequest(operations=[*both, *both])))
        await results_of(stream, 1)
    (one,) = until(lambda: lines(logging_server, "audit", action="DeleteItem", outcome="OK"))
    assert (one["namespace"], one["key"]) == (["users", "1"], "profile")
    (refused,) = until(lambda: lines(logging_server, "audit", action="DeleteItem", outcome="INVALID_ARGUMENT"))
    assert refused["key"] == "profile"
    until(lambda: len(lines(logging_server, "audit", action="Batch")) == 2)
    batch, streamed = lines(logging_server, "audit", action="Batch")
    assert (streamed["deletes_count"], streamed["operations_count"], streamed["outcome"]) == (2, 4, "OK")
    assert (batch["deletes"], batch["deletes_count"], batch["operations_count"]) == (["users/1/profile"], 1, 2)


async def test_every_deletion_has_its_line_and_only_failures_are_counted(logging_server: ServerProcess) -> None:
    number = 3 * FIRST_LINES
    async with connected(logging_server.target) as client:
        await client.leases.AcquireLease(lease_pb.AcquireLeaseRequest(thread_id="held", holder=b"h"))
        for count in range(number):
            await client.threads.DeleteThread(pb.DeleteThreadRequest(thread_id=f"one-of-many-{count}"))
            await client.refused(client.threads.DeleteThread(pb.DeleteThreadRequest(thread_id="held")))

    def deleted() -> int:
        return sum(one.get("thread_id", "").startswith("one-of-many") for one in lines(logging_server, "audit"))

    until(lambda: deleted() == number)
    assert FIRST_LINES <= len(lines(logging_server, "audit", thread_id="held")) < number


def test_slow_operations_have_warnings_with_thread_size_and_time(logging_server: ServerProcess) -> None:
    before = scrape(logging_server).value("checkpointd_slow_calls_total")
    with GrpcSaver.from_conn_string(logging_server.target) as saver:
        graph = line(Ledger()).compile(checkpointer=saver)
        graph.invoke({"path": []}, {"configurable": {"thread_id": "slow"}})
    (first, *_) = until(
        lambda: lines(logging_server, "slow call", method="CheckpointService/GetCheckpoint", thread_id="slow")
    )
    assert first["level"] == "warning"
    assert first["duration_ms"] > 0
    assert first["request_bytes"] > 0
    assert first["response_bytes"] >= 0
    puts = until(lambda: lines(logging_server, "slow call", method="CheckpointService/PutCheckpoint"))
    assert 1 <= len(puts) <= 2 * FIRST_LINES + 10
    assert scrape(logging_server).value("checkpointd_slow_calls_total") > before


async def test_waiting_for_a_lease_is_not_slow(logging_server: ServerProcess) -> None:
    async with connected(logging_server.target) as client:
        request = lease_pb.AcquireLeaseRequest(thread_id="patient", holder=b"h", wait_ms=1000)
        await client.leases.AcquireLease(request)
        await client.leases.GetLease(lease_pb.GetLeaseRequest(thread_id="patient"))
    until(lambda: lines(logging_server, "slow call", method="LeaseService/GetLease"))
    assert not lines(logging_server, "slow call", method="LeaseService/AcquireLease", thread_id="patient")


def test_a_large_checkpoint_has_a_warning_by_what_it_is_when_it_is_whole(logging_server: ServerProcess) -> None:
    before = scrape(logging_server).value("checkpointd_large_checkpoints_total")
    with GrpcSaver.from_conn_string(logging_server.target) as saver:
        config: RunnableConfig = {"configurable": {"thread_id": "large"}}
        graph = line(Ledger()).compile(checkpointer=saver)
        graph.invoke({"path": ["x" * 2 * LARGE]}, config)  # each step adds a few bytes, and is sent as a patch
        size = len(list(saver.list(config)))
    found = until(lambda: lines(logging_server, "large checkpoint", thread_id="large"))
    until(lambda: scrape(logging_server).value("checkpointd_large_checkpoints_total") - before >= size - 1)
    assert all(one["changed_bytes"] > LARGE and one["limit"] == LARGE for one in found)
    assert all("xxxx" not in json.dumps(one) for one in found)


async def test_a_log_of_errors_alone_says_who_too_where_the_server_knows_it(database_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(key_entry("ckd_broom", "acme", "delete", name="janitor"))
    quiet = ("--log-format", "json", "--log-level", "error")
    with ServerProcess("--database-url", database_url, "--keys-file", str(keys), *quiet, log_dir=tmp_path) as server:
        async with connected(server.target) as client:
            request = pb.DeleteThreadRequest(thread_id="theirs")
            await client.threads.DeleteThread(request, metadata=bearer("ckd_broom"))
            copy = pb.CopyThreadRequest(source_thread_id="a", target_thread_id="b")
            denied = client.threads.CopyThread(copy, metadata=bearer("ckd_broom"))
            assert (await client.refused(denied)).reason == "PERMISSION_DENIED"
        (deletion,) = until(lambda: lines(server, "audit"))
    assert (deletion["tenant"], deletion["subject"], deletion["thread_id"]) == ("acme", "janitor", "theirs")
