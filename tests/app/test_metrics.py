"""The metrics of a server, as Prometheus scrapes and parses them."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
import time
import timeit
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, LeaseHeldError, VersionConflictError

from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd_server.domain.metrics import SECONDS, Histogram
from checkpointd_server.observability.endpoint import MAX_HEADER_BYTES
from checkpointd_server.observability.families import FAMILIES, HistogramValue, Snapshot, counters_of, merge
from tests.support.calls import checkpoint, config_of
from tests.support.cluster import PostgresCluster
from tests.support.commands import assert_one_clear_line, run
from tests.support.comparison import Ledger
from tests.support.graphs import line
from tests.support.rpc_client import connected
from tests.support.scrape import OPENMETRICS, Scrape, metrics_address, scrape
from tests.support.server_process import ServerProcess
from tests.support.until import until

METRICS = ("--metrics-listen", "127.0.0.1:0")


@pytest.fixture(scope="module")
def scraped_server(
    postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with metrics. Each test uses its own threads, and checks the difference that it makes."""
    database = postgres_cluster.dsn(postgres_cluster.create_migrated_database())
    with ServerProcess("--database-url", database, *METRICS, log_dir=tmp_path_factory.mktemp("scraped")) as server:
        yield server


def added(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    """How much a counter has grown."""
    return sum(after.values(name, **labels)) - sum(before.values(name, **labels))


def test_a_run_is_counted_operation_by_operation(scraped_server: ServerProcess) -> None:
    before = scrape(scraped_server)
    with GrpcSaver.from_conn_string(scraped_server.target) as saver:
        graph = line(Ledger()).compile(checkpointer=saver)
        graph.invoke({"path": []}, {"configurable": {"thread_id": "counted"}})
        steps = len(list(saver.list({"configurable": {"thread_id": "counted"}})))
    after = scrape(scraped_server)
    put = {"method": "CheckpointService/PutCheckpoint", "code": "OK"}
    assert added(before, after, "checkpointd_calls_total", **put) == steps
    assert added(before, after, "checkpointd_calls_total", via="pipeline", **put) > 0
    assert added(before, after, "checkpointd_calls_total", method="CheckpointService/PutWrites", code="OK") > 0
    assert added(before, after, "checkpointd_calls_total", method="CheckpointService/ListCheckpoints", code="OK") == 1
    for name in ("checkpointd_call_seconds", "checkpointd_request_bytes", "checkpointd_response_bytes"):
        assert added(before, after, f"{name}_count", method="CheckpointService/PutCheckpoint") == steps
    assert added(before, after, "checkpointd_request_bytes_sum", method="CheckpointService/PutCheckpoint") > 100 * steps
    assert 0 < added(before, after, "checkpointd_call_seconds_sum", method="CheckpointService/PutCheckpoint") < 60
    commits = added(before, after, "checkpointd_commits_total", outcome="stored")
    assert 0 < commits == added(before, after, "checkpointd_commit_writes_count")
    assert added(before, after, "checkpointd_commit_writes_sum") >= steps
    statements = ("commit_group", "commit_writes")  # the first commits a single group
    counted = [added(before, after, "checkpointd_statement_seconds_count", statement=name) for name in statements]
    assert sum(counted) == commits
    assert added(before, after, "checkpointd_pool_wait_seconds_count") >= commits


async def test_operations_on_items_are_counted_alone_and_in_batches(scraped_server: ServerProcess) -> None:
    before = scrape(scraped_server)

    def put(key: str, **fields: Any) -> store_pb.PutItemRequest:
        value = store_pb.ItemValue(type="json", data=b"{}")
        return store_pb.PutItemRequest(namespace=["counted"], key=key, value=value, **fields)

    get = store_pb.GetItemRequest(namespace=["counted"], key="a")
    search = store_pb.SearchItemsRequest(namespace_prefix=["counted"], limit=10)
    async with connected(scraped_server.target) as client:
        await client.store.PutItem(put("a"))
        assert (await client.refused(client.store.PutItem(put("a", if_version_match=0)))).reason
        operations = [
            store_pb.StoreOperation(put=put("b")),
            store_pb.StoreOperation(put=put("a", if_version_match=7)),
            store_pb.StoreOperation(put=put("")),
            store_pb.StoreOperation(get=get),
            store_pb.StoreOperation(get=store_pb.GetItemRequest(namespace=["counted"], key="none")),
            store_pb.StoreOperation(search=search),
        ]
        await client.store.Batch(store_pb.BatchRequest(operations=operations))
        await client.store.SearchItems(search)
        await client.store.CountItems(store_pb.CountItemsRequest(namespace_prefix=["counted"]))
        await client.store.ListNamespaces(store_pb.ListNamespacesRequest(limit=10))
        for _ in range(2):
            await client.store.DeleteItem(store_pb.DeleteItemRequest(namespace=["counted"], key="b"))
    after = scrape(scraped_server)

    def counted(operation: str) -> tuple[float, ...]:
        """Returns the number of successes, of failures, and of items."""
        name = "checkpointd_item_operations_total"
        outcomes = [added(before, after, name, operation=operation, outcome=outcome) for outcome in ("ok", "failed")]
        return (*outcomes, added(before, after, "checkpointd_items_total", operation=operation))

    assert counted("put") == (2, 3, 2)
    assert counted("get") == (2, 0, 1)
    assert counted("search") == (2, 0, 3)
    assert counted("count") == (1, 0, 2)
    assert counted("list_namespaces") == (1, 0, 1)
    assert counted("delete") == (2, 0, 1)
    # A request that is rejected before any work isn't timed.
    assert added(before, after, "checkpointd_item_operation_seconds_count", operation="put") == 4
    assert 0 < added(before, after, "checkpointd_item_operation_seconds_sum", operation="put") < 60


def test_counting_is_a_small_part_of_what_a_put_costs(scraped_server: ServerProcess) -> None:
    """Measures CPU time, which other processes don't affect: the number of counter updates times the cost of one."""
    puts = 200
    with GrpcSaver.from_conn_string(scraped_server.target) as saver:

        def put(number: int) -> None:
            saver.put(config_of("weighed"), checkpoint(f"{number:06}", {"a": number}, {"a": number}), {}, {"a": number})

        put(0)
        before = scrape(scraped_server)
        for number in range(1, puts + 1):
            put(number)
        after = scrape(scraped_server)
    names = {sample.name for family in after.families.values() for sample in family.samples}
    counts = [name for name in names if name.endswith(("_count", "_total")) and "process_" not in name]
    counted = sum(added(before, after, name) for name in counts) / puts
    observed = Histogram(SECONDS)
    each = (
        min(timeit.repeat(lambda: observed.observe(0.003), timer=time.process_time, number=20_000, repeat=5)) / 20_000
    )
    whole = added(before, after, "checkpointd_process_cpu_seconds_total") / puts
    print(f"{counted:.1f} are counted a put, {each * 1e9:.0f} ns each, of {whole * 1e6:.0f} us")
    assert 1 < counted < 30
    assert counted * each < 0.05 * whole


async def test_conflicts_leases_and_refusals_are_counted(scraped_server: ServerProcess) -> None:
    before = scrape(scraped_server)
    async with connected(scraped_server.target) as client:
        await client.checkpoints.PutCheckpoint(client.put_request(thread_id="contended"))
        stale = client.put_request(thread_id="contended", checkpoint_id="2")
        stale.precondition.if_version_match = 0
        assert (await client.refused(client.checkpoints.PutCheckpoint(stale))).reason == "VERSION_CONFLICT"
        assert (await client.refused(client.checkpoints.PutCheckpoint(client.put_request(thread_id="")))).reason
    with (
        GrpcSaver.from_conn_string(scraped_server.target) as holder,
        GrpcSaver.from_conn_string(scraped_server.target) as other,
        holder.lease("contended", ttl=30),
        pytest.raises(LeaseHeldError),
    ):
        other.lease("contended", ttl=30, wait=0).__enter__()
    after = scrape(scraped_server)
    assert added(before, after, "checkpointd_conflicts_total") == 1
    put = {"method": "CheckpointService/PutCheckpoint"}
    assert added(before, after, "checkpointd_calls_total", code="ABORTED", **put) == 1
    assert added(before, after, "checkpointd_calls_total", code="INVALID_ARGUMENT", **put) == 1
    assert added(before, after, "checkpointd_call_failures_total", reason="INVALID_ARGUMENT", **put) == 1
    for outcome in ("granted", "held", "released"):
        assert added(before, after, "checkpointd_leases_total", outcome=outcome) == 1, outcome


def test_a_run_that_lost_is_a_conflict_of_the_pipeline(scraped_server: ServerProcess) -> None:
    before = scrape(scraped_server)
    config: RunnableConfig = {"configurable": {"thread_id": "raced"}}
    with (
        GrpcSaver.from_conn_string(scraped_server.target) as winner,
        GrpcSaver.from_conn_string(scraped_server.target) as loser,
    ):

        def intrude(state: object) -> dict[str, list[str]]:
            line(Ledger()).compile(checkpointer=winner).invoke({"path": []}, config)
            return {"path": ["late"]}

        graph = line(Ledger())
        graph.add_node("intrude", intrude)
        graph.add_edge("d", "intrude")
        with pytest.raises(VersionConflictError):
            graph.compile(checkpointer=loser).invoke({"path": []}, config)
    after = scrape(scraped_server)
    assert added(before, after, "checkpointd_conflicts_total") >= 1
    assert added(before, after, "checkpointd_calls_total", via="pipeline", code="ABORTED") >= 1


def test_the_database_the_pool_and_the_process_are_told(scraped_server: ServerProcess) -> None:
    found = scrape(scraped_server)
    assert found.value("checkpointd_database_up") == 1
    assert found.value("checkpointd_serving") == 1
    assert found.value("checkpointd_build_info") == 1
    assert found.value("checkpointd_table_bytes", table="checkpoints") > 0
    assert found.value("checkpointd_pool_limit") == 8
    assert found.value("checkpointd_pool_connections") >= 1
    assert found.value("checkpointd_calls_limit") == 1024
    process = psutil.Process(scraped_server.process.pid)
    assert found.value("checkpointd_process_resident_bytes") == pytest.approx(process.memory_info().rss, rel=0.5)
    assert found.value("checkpointd_process_cpu_seconds_total") > 0


def test_every_family_of_the_table_is_served_and_nothing_else(scraped_server: ServerProcess) -> None:
    for accept in ("", OPENMETRICS):
        found = scrape(scraped_server, accept)
        assert set(found.families) == set(FAMILIES)
        for name, family in found.families.items():
            assert family.type == FAMILIES[name].kind
            assert family.documentation
            assert all(set(FAMILIES[name].labels) <= set(sample.labels) for sample in family.samples)


def test_no_label_names_a_thread_or_a_tenant(scraped_server: ServerProcess) -> None:
    with GrpcSaver.from_conn_string(scraped_server.target) as saver:
        saver.delete_thread("a-very-private-thread")
    assert "a-very-private-thread" not in scrape(scraped_server).text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say(scraped_server: ServerProcess) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(scraped_server).text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 200), ("GET", "/metrics?x=1", 200)],
)
def test_nothing_else_is_served(method: str, path: str, status: int, scraped_server: ServerProcess) -> None:
    connection = http.client.HTTPConnection(metrics_address(scraped_server), timeout=20)
    connection.request(method, path)
    response = connection.getresponse()
    assert (response.status, bool(response.read())) == (status, method != "HEAD")


@pytest.mark.parametrize("garbage", [b"\x00" * 10, b"GET /metrics\r\n\r\n", b"GET " + b"a" * 2 * MAX_HEADER_BYTES])
def test_garbage_is_refused_and_the_next_scrape_served(garbage: bytes, scraped_server: ServerProcess) -> None:
    host, _, port = metrics_address(scraped_server).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert answer == b"" or answer.split()[1].startswith(b"4")
    assert scrape(scraped_server).value("checkpointd_serving") == 1


def test_an_address_that_is_taken_is_one_clear_line(database_url: str, scraped_server: ServerProcess) -> None:
    address = metrics_address(scraped_server)
    done = run("serve", "--listen", "127.0.0.1:0", "--database-url", database_url, "--metrics-listen", address)
    assert_one_clear_line(done, f"can't serve metrics on {address}")


def workers_of(server: ServerProcess) -> list[psutil.Process]:
    """The worker processes."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "checkpointd_server.process.worker" in child.cmdline()]


async def test_worker_processes_are_added_up_and_what_one_counted_outlives_it(
    server_with_workers: ServerProcess,
) -> None:
    server = server_with_workers
    for number in range(12):  # one connection each; Linux spreads them over the workers
        async with connected(server.target) as client:
            await client.checkpoints.PutCheckpoint(client.put_request(thread_id=f"thread-{number}"))
    puts = {"method": "CheckpointService/PutCheckpoint", "code": "OK"}
    before = scrape(server)
    assert before.value("checkpointd_calls_total", **puts) == 12
    assert before.value("checkpointd_workers") == 2
    assert before.value("checkpointd_build_info") == before.value("checkpointd_database_up") == 1
    assert before.value("checkpointd_pool_limit") == 8
    assert len(list(before.values("checkpointd_process_resident_bytes"))) == 2

    workers_of(server)[0].send_signal(signal.SIGKILL)
    until(lambda: scrape(server).value("checkpointd_worker_restarts_total") == 1)
    until(lambda: scrape(server).value("checkpointd_workers") == 2)
    after = scrape(server)
    assert after.value("checkpointd_calls_total", **puts) == 12
    assert after.value("checkpointd_call_seconds_count", method=puts["method"]) == 12


async def test_a_worker_that_hangs_holds_up_no_scrape(server_with_workers: ServerProcess) -> None:
    scrape(server_with_workers)
    hung = workers_of(server_with_workers)[0]
    hung.suspend()
    try:
        assert scrape(server_with_workers).value("checkpointd_workers") == 1
    finally:
        hung.resume()
    until(lambda: scrape(server_with_workers).value("checkpointd_workers") == 2)


@pytest.fixture(scope="module")
def server_with_workers(
    postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of two processes with metrics."""
    database = postgres_cluster.dsn(postgres_cluster.create_migrated_database())
    with ServerProcess(
        "--database-url", database, *METRICS, "--workers", "2", log_dir=tmp_path_factory.mktemp("workers")
    ) as server:
        yield server


def test_snapshots_add_up_by_kind() -> None:
    seconds: HistogramValue = {"bounds": [1.0], "counts": [1, 2], "sum": 9.0}
    one: Snapshot = {
        "checkpointd_conflicts": [([], 2)],
        "checkpointd_database_up": [([], 1)],
        "checkpointd_calls_active": [([], 3)],
        "checkpointd_commit_seconds": [([], seconds)],
    }
    other: Snapshot = {**one, "checkpointd_database_up": [([], 0)]}
    assert merge([one, other]) == {
        "checkpointd_conflicts": [([], 4)],
        "checkpointd_database_up": [([], 1)],
        "checkpointd_calls_active": [([], 6)],
        "checkpointd_commit_seconds": [([], {"bounds": [1.0], "counts": [2, 4], "sum": 18.0})],
    }
    assert set(counters_of(one)) == {"checkpointd_conflicts", "checkpointd_commit_seconds"}
