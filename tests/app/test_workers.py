"""Several server processes on one port: they start, work and stop together, and are replaced one by one."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checkpointd.v1.checkpoint_service_pb2 import GetCheckpointRequest, PutCheckpointRequest
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.lease_service_pb2 import AcquireLeaseRequest, ReleaseLeaseRequest
from checkpointd.v1.lease_service_pb2_grpc import LeaseServiceStub
from checkpointd.v1.values_pb2 import Metadata, Precondition, TypedValue
from tests.app.checkpoints import is_there
from tests.app.locked_tables import LockedTables
from tests.app.ports import taken_port
from tests.support.authority import Authority, shown_name
from tests.support.cluster import PostgresCluster
from tests.support.commands import assert_one_clear_line, run
from tests.support.pauses import own_pauses
from tests.support.server_process import ServerFailed, ServerProcess
from tests.support.storm import Storm
from tests.support.until import until

SECONDS = 60
"""How long to wait for anything."""


def put_request(thread_id: str, checkpoint_id: str = "1", version: int | None = None) -> PutCheckpointRequest:
    return PutCheckpointRequest(
        thread_id=thread_id,
        checkpoint_id=checkpoint_id,
        body=b"\x80",
        metadata=Metadata(value=TypedValue(type="msgpack", data=b"\x80")),
        precondition=None if version is None else Precondition(if_version_match=version),
    )


def processes(server: ServerProcess) -> list[psutil.Process]:
    """Returns the worker processes, in no particular order."""
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "checkpointd_server.process.worker" in child.cmdline()]


def events(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Returns the log lines of one event so far."""
    # The last line may be incomplete.
    lines = [json.loads(line) for line in server.stderr.splitlines(keepends=True) if line.endswith("}\n")]
    return [line for line in lines if line["event"] == event]


def calls_on(server: ServerProcess, thread_id: str) -> list[dict[str, Any]]:
    """Returns the log lines about calls on a thread so far."""
    return [line for line in events(server, "call") if line.get("thread_id") == thread_id]


@contextmanager
def channels(server: ServerProcess, *, workers: int = 2) -> Iterator[dict[int, grpc.Channel]]:
    """Opens a channel to each worker, by the worker's number."""
    found: dict[int, grpc.Channel] = {}
    deadline = time.monotonic() + SECONDS
    with ExitStack() as stack:
        while len(found) < workers:
            assert time.monotonic() < deadline, f"only workers {list(found)} answer"
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(server.target, options))
            thread_id = str(uuid.uuid4())
            CheckpointServiceStub(channel).GetCheckpoint(GetCheckpointRequest(thread_id=thread_id), timeout=SECONDS)
            line, *_ = until(partial(calls_on, server, thread_id))
            found.setdefault(line["worker"], channel)
        yield found


def until_gone(process: psutil.Process) -> None:
    psutil.wait_procs([process], timeout=SECONDS)
    assert not process.is_running()


def until_logged(server: ServerProcess, event: str, times: int = 1) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]]:
        ended = server.process.poll() is not None
        found = events(server, event)
        assert len(found) >= times or not ended, server.stderr
        return found

    return until(look, lambda found: len(found) >= times, timeout=SECONDS)


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with two workers."""
    options = ("--workers", "2", "--database-url", database_url, "--log-format", "json")
    with ServerProcess(*options, log_dir=tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def shared_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The database of `pair`."""
    with postgres_cluster.borrowed_database() as name:
        yield postgres_cluster.dsn(name)


@pytest.fixture(scope="module")
def pair(shared_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with two workers, for tests that leave it running and use their own threads."""
    options = ("--workers", "2", "--database-url", shared_url, "--log-format", "json")
    with ServerProcess(*options, log_dir=tmp_path_factory.mktemp("pair")) as process:
        yield process


class TestTogether:
    def test_both_answer_on_one_port_and_one_line_tells_it(self, pair: ServerProcess) -> None:
        assert pair.stdout == f"checkpointd ready on {pair.target}\n"
        # Both were serving before it was printed.
        lines = until_logged(pair, "serving", 3)
        assert {line["worker"] for line in lines if "worker" in line} == {1, 2}
        assert [line["workers"] for line in lines if "worker" not in line] == [2]
        assert len(processes(pair)) == 2
        with channels(pair) as found:
            assert set(found) == {1, 2}

    def test_the_schema_is_migrated_once_and_by_nobody_else(self, empty_database_url: str, tmp_path: Path) -> None:
        options = ("--workers", "2", "--database-url", empty_database_url, "--log-format", "json")
        with ServerProcess(*options, log_dir=tmp_path) as server:
            migrated = events(server, "migrated the schema")
        assert migrated
        assert not any("worker" in line for line in migrated)

    def test_a_version_that_one_gave_counts_with_the_other(self, pair: ServerProcess) -> None:
        with channels(pair) as found:
            one, other = (CheckpointServiceStub(found[number]) for number in (1, 2))
            first = one.PutCheckpoint(put_request("versions", "1", 0), timeout=SECONDS).version
            second = other.PutCheckpoint(put_request("versions", "2", first), timeout=SECONDS).version
            assert second > first
            with pytest.raises(grpc.RpcError) as conflict:
                one.PutCheckpoint(put_request("versions", "3", first), timeout=SECONDS)
            assert conflict.value.code() is grpc.StatusCode.ABORTED
            found_there = one.GetCheckpoint(GetCheckpointRequest(thread_id="versions"), timeout=SECONDS)
            assert found_there.tuple.checkpoint_id == "2"

    def test_a_lease_of_one_is_waited_for_at_the_other(self, pair: ServerProcess) -> None:
        with channels(pair) as found:
            one, other = (LeaseServiceStub(found[number]) for number in (1, 2))
            token = one.AcquireLease(AcquireLeaseRequest(thread_id="lease", holder=b"one"), timeout=SECONDS).token
            with pytest.raises(grpc.RpcError) as held:
                other.AcquireLease(AcquireLeaseRequest(thread_id="lease", holder=b"other"), timeout=SECONDS)
            assert held.value.code() is grpc.StatusCode.ABORTED
            waiting = other.AcquireLease.future(
                AcquireLeaseRequest(thread_id="lease", holder=b"other", wait_ms=30_000), timeout=SECONDS
            )
            one.ReleaseLease(ReleaseLeaseRequest(thread_id="lease", holder=b"one"), timeout=SECONDS)
            assert waiting.result().token > token

    def test_together_they_have_no_more_connections_than_one_server(
        self, pair: ServerProcess, postgres_cluster: PostgresCluster, shared_url: str
    ) -> None:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'checkpointd'"
        with channels(pair) as found:
            with LockedTables(shared_url) as lock:
                reads = [
                    CheckpointServiceStub(channel).GetCheckpoint.future(
                        GetCheckpointRequest(thread_id=f"t{number}"), timeout=SECONDS
                    )
                    for channel in found.values()
                    for number in range(20)
                ]
                lock.await_waiters(8)
                time.sleep(1)  # time for a ninth to appear, if one can
                count = postgres_cluster.fetch_value(sessions, urlsplit(shared_url).path.removeprefix("/"))
            for read in reads:
                read.result()
        assert 8 <= count <= 8 + 2  # one more for each worker, which watches slow statements

    def test_several_addresses_and_health_are_shared_too(self, database_url: str, tmp_path: Path) -> None:
        with taken_port() as port:
            health = f"127.0.0.1:{port}"
        options = ("--listen", "127.0.0.1:0", "--listen", "localhost:0", "--health-listen", health)
        with ServerProcess("--workers", "2", *options, "--database-url", database_url, log_dir=tmp_path) as process:
            first, second = process.stdout.removeprefix("checkpointd ready on ").split()
            assert second.startswith("localhost:")
            assert first.partition(":")[2] != second.partition(":")[2]
            with grpc.insecure_channel(first) as channel:
                CheckpointServiceStub(channel).PutCheckpoint(put_request("t"), timeout=SECONDS)
            assert is_there(second, "t")
            with grpc.insecure_channel(health) as channel:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def test_a_new_certificate_is_shown_by_all(self, database_url: str, tmp_path: Path) -> None:
        authority = Authority()
        cert, key = authority.write(tmp_path, "before")
        options = ("--tls-cert", str(cert), "--tls-key", str(key), "--database-url", database_url)
        with ServerProcess("--workers", "2", *options, log_dir=tmp_path) as process:
            # Connections go to workers at random: the chance that all 20 reach the same one is about one in a million.
            assert {shown_name(process.target) for _ in range(20)} == {"before"}
            authority.write(tmp_path, "after")
            assert {shown_name(process.target) for _ in range(20)} == {"after"}

    def test_an_embedded_postgresql_is_started_once_and_ends_all_when_it_ends(
        self, data_dir: Path, tmp_path: Path
    ) -> None:
        options = ("--workers", "2", "--data-dir", str(data_dir), "--log-format", "json")
        with ServerProcess(*options, log_dir=tmp_path) as process:
            with channels(process) as found:
                CheckpointServiceStub(found[1]).PutCheckpoint(put_request("t"), timeout=SECONDS)
                assert (
                    CheckpointServiceStub(found[2])
                    .GetCheckpoint(GetCheckpointRequest(thread_id="t"), timeout=SECONDS)
                    .HasField("tuple")
                )
            assert len(events(process, "embedded PostgreSQL is ready")) == 1
            workers = processes(process)
            os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
            assert process.wait() == 1
            assert "the embedded PostgreSQL stopped by itself" in process.stderr.splitlines()[-1]
            for worker in workers:
                until_gone(worker)


@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.long)])
async def test_a_worker_that_is_killed_under_load_costs_no_run_and_no_write(
    rounds: int, server: ServerProcess, database_url: str, tmp_path: Path
) -> None:
    async with Storm(server.target, tmp_path) as storm:
        for times in range(1, rounds + 1):
            # Both in turn, since the agents may be connected to either.
            for number, worker in enumerate(processes(server)):
                worker.kill()
                until_logged(server, "a worker was replaced", 2 * times - 1 + number)
                await storm.progress()
    counts = await storm.check(target=server.target, dsn=database_url)
    assert counts["put refused"] > 0
    assert len(processes(server)) == 2
    assert server.stdout == f"checkpointd ready on {server.target}\n"


class TestReplacing:
    def test_one_that_dies_again_and_again_is_started_after_longer_and_longer_pauses(
        self, server: ServerProcess
    ) -> None:
        steady = processes(server)[0]
        for times in range(1, 4):
            next(worker for worker in processes(server) if worker != steady).kill()
            until_logged(server, "a worker was replaced", times)
        ended = events(server, "a worker has ended and is replaced")
        assert [line["pause"] for line in ended] == [0.0, 0.5, 1.0]
        assert len({line["worker"] for line in ended}) == 1
        assert all("SIGKILL" in line["reason"] for line in ended)
        with channels(server) as found:
            assert set(found) == {1, 2}

    def test_the_parents_death_ends_all_and_the_next_one_gets_the_port(self, server: ServerProcess) -> None:
        workers, target = processes(server), server.target
        with grpc.insecure_channel(target) as channel:
            CheckpointServiceStub(channel).PutCheckpoint(put_request("kept"), timeout=SECONDS)
        server.kill()
        for worker in workers:
            until_gone(worker)
        server.restart()
        assert server.target == target
        assert is_there(target, "kept")


class TestStopping:
    def test_calls_in_flight_at_all_workers_are_finished(self, server: ServerProcess, database_url: str) -> None:
        workers = processes(server)
        with channels(server) as found, LockedTables(database_url) as lock:
            calls = [
                CheckpointServiceStub(channel).PutCheckpoint.future(put_request(f"late-{number}"), timeout=SECONDS)
                for number, channel in found.items()
            ]
            lock.await_waiters(2)
            server.signal(signal.SIGTERM)
            until_logged(server, "stopping when calls in flight are done", 3)
            for channel in found.values():
                with pytest.raises(grpc.RpcError) as refusal:
                    CheckpointServiceStub(channel).PutCheckpoint(put_request("later"), timeout=SECONDS)
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
            assert server.process.poll() is None
            assert not any(call.done() for call in calls)
            lock.release()
            assert all(call.result().version for call in calls)
        assert server.wait() == 0
        for worker in workers:
            until_gone(worker)
        server.restart()
        assert is_there(server.target, "late-1")
        assert is_there(server.target, "late-2")

    def test_a_second_signal_stops_all_at_once(self, server: ServerProcess, database_url: str) -> None:
        workers = processes(server)
        with channels(server) as found, LockedTables(database_url) as lock:
            calls = [
                CheckpointServiceStub(channel).PutCheckpoint.future(put_request("t"), timeout=SECONDS)
                for channel in found.values()
            ]
            lock.await_waiters(2)
            server.signal(signal.SIGTERM)
            until_logged(server, "stopping when calls in flight are done", 3)
            server.signal(signal.SIGINT)
            assert server.wait() == 0
            for call in calls:
                assert call.exception() is not None
        for worker in workers:
            until_gone(worker)
        assert "Traceback" not in server.stderr

    def test_one_that_does_not_stop_is_killed_and_the_exit_code_tells(self, database_url: str, tmp_path: Path) -> None:
        options = ("--workers", "2", "--drain-seconds", "0", "--kill-after-seconds", "1")
        process = ServerProcess("--database-url", database_url, *options, log_dir=tmp_path).start()
        with own_pauses():
            frozen = processes(process)[0]
            frozen.suspend()
            process.signal()
            assert process.wait() == 1
            until_gone(frozen)
        assert "didn't stop in time and was killed" in process.stderr.splitlines()[-1]

    def test_a_signal_while_it_starts_ends_it_well(self, tmp_path: Path) -> None:
        with taken_port() as port:
            options = ("--workers", "2", "--no-migrate", "--database-url", f"postgresql://u@127.0.0.1:{port}/d")
            process = ServerProcess(*options, log_dir=tmp_path)
            process.launch()
            process.await_log("waiting up to")
            workers = processes(process)
            assert workers
            process.signal()
            assert process.wait() == 0
        assert process.stdout == ""
        assert "Traceback" not in process.stderr
        for worker in workers:
            until_gone(worker)


class TestStarting:
    def test_what_keeps_a_worker_from_starting_is_told_once(self, empty_database_url: str) -> None:
        options = ("--workers", "2", "--no-migrate", "--listen", "127.0.0.1:0")
        result = run("serve", *options, "--database-url", empty_database_url)
        assert_one_clear_line(result, "schema 'checkpointd'", "run `checkpointd migrate`")

    def test_a_worker_that_is_killed_while_it_starts_is_told(self, tmp_path: Path) -> None:
        with taken_port() as port:
            options = ("--workers", "2", "--no-migrate", "--database-url", f"postgresql://u@127.0.0.1:{port}/d")
            process = ServerProcess(*options, log_dir=tmp_path)
            process.launch()
            process.await_log("waiting up to")
            workers = processes(process)
            workers[0].kill()
            with pytest.raises(ServerFailed, match=r"Error: worker \d was ended by SIGKILL"):
                process.wait_ready()
            assert process.process.returncode == 1
        assert process.stdout == ""
        for worker in workers:
            until_gone(worker)

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_a_taken_port_is_told_and_its_owners_are_unharmed(
        self, workers: str, pair: ServerProcess, database_url: str
    ) -> None:
        result = run("serve", "--workers", workers, "--database-url", database_url, "--listen", pair.target)
        assert_one_clear_line(result, f"can't listen on {pair.target}", "taken")
        with channels(pair) as found:
            assert set(found) == {1, 2}

    def test_a_unix_socket_can_not_be_shared_and_that_is_said(self, database_url: str, tmp_path: Path) -> None:
        listen = f"unix:{tmp_path}/socket"
        result = run("serve", "--workers", "2", "--database-url", database_url, "--listen", listen)
        assert_one_clear_line(result, f"can't listen on {listen} with --workers", "one process")

    def test_more_workers_than_connections_are_refused(self, database_url: str) -> None:
        result = run("serve", "--workers", "9", "--database-url", database_url)
        assert result.returncode == 2
        assert "--workers 9 needs a --pool-max-size of at least 9" in result.stderr

    def test_the_password_shows_neither_among_processes_nor_in_the_log(
        self, postgres_cluster: PostgresCluster, database_url: str, tmp_path: Path
    ) -> None:
        url = database_url.replace("postgres@", "postgres:hunter2@")
        env = {"CHECKPOINTD_DATABASE_URL": url}
        with ServerProcess("--workers", "2", log_dir=tmp_path, env=env) as process:
            for worker in processes(process):
                assert "hunter2" not in " ".join(worker.cmdline())
                assert "hunter2" not in str(worker.environ())
        assert "hunter2" not in process.stderr
