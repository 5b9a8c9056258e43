"""A resumed import trusts its journal only if it is about the same source and target, and both are unchanged."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from langgraph.checkpoint.grpc import GrpcSaver, QuotaExceededError
from langgraph.checkpoint.postgres import PostgresSaver

from tests.moving.interruptions import fill, interrupt_import, put, report_of
from tests.moving.played import contents
from tests.support.server_process import ServerProcess
from tests.support.until import until

Command = Callable[..., Result]
NewServer = Callable[[], str]


@pytest.fixture
def source(new_server: NewServer) -> str:
    """The address of a server with five threads."""
    target = new_server()
    fill(target)
    return target


@pytest.fixture
def file(command: Command, source: str, tmp_path: Path) -> Path:
    """A file with the threads of the source."""
    command("export", tmp_path / "all.export", "--target", source)
    return tmp_path / "all.export"


def same(one: str, other: str, names: list[str]) -> bool:
    """Returns whether some threads are equal on two servers."""
    with GrpcSaver.from_conn_string(one) as first, GrpcSaver.from_conn_string(other) as second:
        return all(contents(first, name) == contents(second, name) for name in names)


NAMES = [f"thread-{number}" for number in range(5)]


@pytest.mark.parametrize("checkpoints", [None, 0, 1, 3, 4])
def test_goes_on_where_it_was(
    checkpoints: int | None, command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    interrupt_import(file, other, done=2, checkpoints=checkpoints)
    report = report_of(command("import", file, "--target", other, "--json"))
    assert (report["there_already"], report["threads"]) in ((2, 3), (3, 2))
    assert report["failed"] == {}
    assert same(source, other, NAMES)
    assert not list(file.parent.glob("*.progress"))


def test_another_server_is_not_taken_for_the_one_that_has_them(
    command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    first, second = new_server(), new_server()
    interrupt_import(file, first, done=3)
    refused = command("import", file, "--target", second, code=1)
    assert "all.export.progress says how far an import into the server" in refused.stderr
    assert "--progress-file" in refused.stderr
    with GrpcSaver.from_conn_string(second) as saver:
        assert not list(saver.list(None))
    command("import", file, "--target", second, "--progress-file", file.with_name("second.progress"))
    assert same(source, second, NAMES)
    assert report_of(command("import", file, "--target", first, "--json"))["there_already"] == 3


def test_another_file_of_the_same_name_is_another_import(
    command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    interrupt_import(file, other, done=3)
    file.unlink()
    command("export", file, "--target", source)
    refused = command("import", file, "--target", other, code=1)
    assert "an import from the export file" in refused.stderr


def test_threads_that_the_target_has_lost_since_are_brought_again(
    command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    interrupt_import(file, other, done=4)
    with GrpcSaver.from_conn_string(other) as saver:
        saver.delete_thread("thread-0")
        saver.delete_thread("thread-2")
    names = [thread["thread_id"] for thread in report_of(command("import", file, "--dry-run", "--json"))["threads"]]
    gone = sum(name in ("thread-0", "thread-2") for name in names[:4])
    report = report_of(command("import", file, "--target", other, "--json"))
    assert (report["there_already"], report["threads"]) == (4 - gone, 1 + gone)
    assert same(source, other, NAMES)


def test_threads_that_somebody_has_changed_there_since_are_reported(
    command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    interrupt_import(file, other, done=5)
    with GrpcSaver.from_conn_string(other) as saver:
        put(saver, "thread-1", 1, first=9)
        before = contents(saver, "thread-1")
        report = report_of(command("import", file, "--target", other, "--json", code=1))
        assert list(report["failed"]) == ["thread-1"]
        assert report["there_already"] == 4
        assert contents(saver, "thread-1") == before
    command("import", file, "--target", other, "--replace", "--yes")
    assert same(source, other, NAMES)


@pytest.mark.parametrize("begins", ["like it", "otherwise"])
def test_what_somebody_has_written_into_a_thread_that_was_begun_is_not_written_into(
    begins: str, command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    (name,) = [thread["thread_id"] for thread in report_of(command("import", file, "--dry-run", "--json"))["threads"]][
        1:2
    ]
    interrupt_import(file, other, done=1, checkpoints=2)
    with GrpcSaver.from_conn_string(other) as saver:
        if begins == "otherwise":
            saver.delete_thread(name)
        put(saver, name, 1, first=9, text="an agent's")
        before = contents(saver, name)
        refused = command("import", file, "--target", other, code=1)
        assert f"thread '{name}' is there already, with other contents" in refused.stderr
        assert contents(saver, name) == before
    command("import", file, "--target", other, "--replace", "--yes")
    assert same(source, other, NAMES)


def test_with_replace_an_interrupted_import_ends_with_what_the_file_has(
    command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    interrupt_import(file, other, done=2, checkpoints=2)
    fill(other, text="something else")
    command("import", file, "--target", other, code=1)
    command("import", file, "--target", other, "--replace", "--yes")
    assert same(source, other, NAMES)


@pytest.mark.parametrize("line", ['["done", "thr', '["begun", "thread-4"'], ids=["done", "begun"])
def test_a_line_that_a_kill_has_cut_short_does_not_count(
    line: str, command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    other = new_server()
    interrupt_import(file, other, done=2)
    progress = file.with_name("all.export.progress")
    progress.write_text(progress.read_text() + line)
    assert report_of(command("import", file, "--target", other, "--json"))["there_already"] == 2
    assert same(source, other, NAMES)


@pytest.mark.parametrize(
    "content", ["notes of my own", "notes\nof my own\n", "[]\n", "{}\n", "\0\xff", '["done", "a"]\n']
)
def test_a_file_that_is_something_else_is_refused_and_stays(
    content: str, command: Command, file: Path, new_server: NewServer, tmp_path: Path
) -> None:
    other, notes = new_server(), tmp_path / "notes"
    notes.write_text(content, encoding="latin-1")
    refused = command("import", file, "--target", other, "--progress-file", notes, code=1)
    assert "can't be used" in refused.stderr
    assert notes.read_text(encoding="latin-1") == content


def test_a_stock_database_that_changed_meanwhile_is_looked_at_again(
    command: Command, stock_url: str, new_server: NewServer, tmp_path: Path
) -> None:
    other = new_server()
    first = report_of(command("import", "--from-postgres", stock_url, "--target", other, "--thread", "line", "--json"))
    assert first["threads"] == 1
    journal = _keep_journal(command, stock_url, other, tmp_path)
    with PostgresSaver.from_conn_string(stock_url) as saver:
        put(saver, "line", 1, first=999)
    report = report_of(command("import", "--from-postgres", stock_url, "--target", other, "--json", code=1))
    assert list(report["failed"]) == ["line"]
    assert journal.exists() is False
    command("import", "--from-postgres", stock_url, "--target", other, "--replace", "--yes")
    with PostgresSaver.from_conn_string(stock_url) as stock, GrpcSaver.from_conn_string(other) as saver:
        found, wanted = contents(saver, "line"), contents(stock, "line")
    assert [one.checkpoint["id"] for one in found] == [one.checkpoint["id"] for one in wanted]


def _keep_journal(command: Command, stock_url: str, target: str, folder: Path) -> Path:
    """Creates a finished journal, at the path that an import of this database into this server uses."""
    import grpc

    from checkpointd_server.moving.journal import Journal, Subject
    from checkpointd_server.moving.remote_writes import RemoteTarget
    from checkpointd_server.moving.server_identity import ServerIdentity
    from checkpointd_server.moving.stock_postgres import PostgresThreads
    from checkpointd_server.moving.transfer import Report, ThreadImport, threads_of

    with grpc.insecure_channel(target) as channel, PostgresThreads(stock_url) as postgres:
        server = RemoteTarget(channel, timeout=20)
        subject = Subject(postgres.name, str(ServerIdentity.ask(channel, 20)))
        path = folder / subject.default_path("import")
        with Journal(path, subject) as journal:
            threads = ThreadImport(server, journal, Report(), replace=False, progress=lambda _: None)
            for thread in threads_of(postgres, ()):
                threads.take(thread)
            journal.is_interrupted = True
    return path


def is_full(saver: GrpcSaver) -> bool:
    """Returns whether a server's quota is used up, which it checks now and then. Leaves no extra thread."""
    try:
        put(saver, "one more", 1)
    except QuotaExceededError:
        return True
    saver.delete_thread("one more")
    return False


class TestQuotas:
    def server(self, tmp_path: Path, database_url: str, *options: str) -> ServerProcess:
        """Returns a server with quotas that are refreshed often."""
        more = ("--quota-refresh-seconds", "0.2")
        return ServerProcess("--database-url", database_url, *more, *options, log_dir=tmp_path)

    def test_one_that_is_used_up_stops_an_import_which_goes_on_when_there_is_room(
        self, command: Command, source: str, file: Path, database_url: str, tmp_path: Path
    ) -> None:
        with self.server(tmp_path, database_url, "--quota-threads", "2") as server:
            command("import", file, "--target", server.target, "--thread", "thread-1", "--thread", "thread-2")
            with GrpcSaver.from_conn_string(server.target) as saver:
                until(lambda: is_full(saver))
            begun = time.monotonic()
            stopped = command("import", file, "--target", server.target, "--json", code=1)
            assert time.monotonic() - begun < 30
            report: Any = report_of(stopped)
            assert (report["threads"], report["failed"]) == (0, {})
            assert "quota of 2 threads is used up" in report["stopped"]
            assert "run the same command again" in stopped.stderr
        with self.server(tmp_path, database_url) as server:
            report = report_of(command("import", file, "--target", server.target, "--json"))
            assert (report["threads"], report["there_already"], report["stopped"]) == (3, 2, None)
            assert same(source, server.target, NAMES)

    def test_one_of_calls_a_second_is_waited_for(
        self, command: Command, source: str, file: Path, database_url: str, tmp_path: Path
    ) -> None:
        with self.server(tmp_path, database_url, "--quota-calls", "10") as server:
            report = report_of(command("import", file, "--target", server.target, "--json"))
            assert (report["threads"], report["failed"]) == (5, {})
        with self.server(tmp_path, database_url) as server:
            assert same(source, server.target, NAMES)
