"""A resumed export has each thread as of one moment of its last run, and never mixes two sources in one file."""

from __future__ import annotations

import itertools
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.moving.export_file import ExportReader
from checkpointd_server.moving.remote_threads import RemoteThreads
from tests.moving.interruptions import fill, interrupt_export, put, report_of
from tests.moving.played import contents
from tests.support.api_keys import key_entry
from tests.support.calls import config_of
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.until import until

Command = Callable[..., Result]
NewServer = Callable[[], str]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command in a separate process."""
    command = [sys.executable, "-m", "checkpointd_server.cli", *map(str, arguments)]
    return subprocess.run(
        command, env=clean_environment(), stderr=subprocess.PIPE, text=True, check=False, timeout=60, **options
    )


@pytest.fixture
def source(new_server: NewServer) -> str:
    """The address of a server with five threads."""
    target = new_server()
    fill(target)
    return target


@pytest.fixture
def file(command: Command, source: str, tmp_path: Path) -> Path:
    """A file in which a killed export has left three of five threads, and the beginning of the fourth."""
    command("export", tmp_path / "whole.export", "--target", source)
    interrupt_export(tmp_path / "whole.export", tmp_path / "all.export.partial", 3)
    return tmp_path / "all.export"


def threads(file: Path) -> list[str]:
    with file.open("rb") as opened:
        return [thread.thread_id for thread, _ in ExportReader(opened).threads()]


def check_imports(command: Command, file: Path, source: str, target: str) -> None:
    """Imports a file, and asserts that both servers then have the same threads."""
    command("import", file, "--target", target)
    with GrpcSaver.from_conn_string(source) as ours, GrpcSaver.from_conn_string(target) as theirs:
        names = {one.config["configurable"]["thread_id"] for one in ours.list(None)}
        assert names == {one.config["configurable"]["thread_id"] for one in theirs.list(None)} == set(threads(file))
        assert all(contents(ours, name) == contents(theirs, name) for name in names)


def test_what_was_changed_or_deleted_meanwhile_is_not_stale_in_the_file(
    command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    changed, deleted, same = threads(file.with_name("whole.export"))[:3]
    with GrpcSaver.from_conn_string(source) as saver:
        put(saver, changed, 1, first=9)
        saver.delete_thread(deleted)
    report = report_of(command("export", file, "--target", source, "--json"))
    assert (report["read_again"], report["there_already"], report["threads"]) == (2, 1, 3)
    assert same in threads(file)
    assert not list(file.parent.glob("all.export.*"))
    check_imports(command, file, source, new_server())


@pytest.mark.parametrize("change", ["task writes", "made anew", "tags"])
def test_every_change_is_noticed(change: str, command: Command, source: str, file: Path, new_server: NewServer) -> None:
    name = threads(file.with_name("whole.export"))[0]
    with GrpcSaver.from_conn_string(source) as saver:
        if change == "task writes":
            saver.put_writes(config_of(name, checkpoint_id="003"), [("b", 1)], "another task")
        elif change == "made anew":
            saver.delete_thread(name)
            put(saver, name, 4)
        else:
            saver.threads.tag(name, customer="7")
    report = report_of(command("export", file, "--target", source, "--json"))
    assert (report["read_again"], report["there_already"]) == (1, 2)
    check_imports(command, file, source, new_server())


@pytest.mark.parametrize("other", ["server", "selection", "items", "values"])
def test_another_export_does_not_go_on_with_it(
    other: str, command: Command, source: str, file: Path, new_server: NewServer
) -> None:
    before = file.with_name("all.export.partial").read_bytes()
    target = new_server() if other == "server" else source
    options = {"selection": ["--thread", "thread-1", "--items"], "items": ["--no-items"], "values": ["--redact"]}
    refused = command("export", file, "--target", target, *options.get(other, []), code=1)
    said = {"server": "from another server", "values": "with values"}.get(other, "for other threads or items")
    assert f"all.export.partial was begun {said}" in refused.stderr
    assert file.with_name("all.export.partial").read_bytes() == before
    command("export", file, "--target", source)


def test_another_tenant_does_not_go_on_with_it(command: Command, database_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    scopes = ("read", "write", "store:read")
    keys.write_text(key_entry("ckd_a", "acme", *scopes) + key_entry("ckd_b", "other", *scopes))
    with ServerProcess("--database-url", database_url, "--keys-file", str(keys), log_dir=tmp_path) as server:
        with GrpcSaver(server.target, token="ckd_a") as saver:
            put(saver, "one", 3)
            put(saver, "two", 3)
        reach = ("--target", server.target, "--token")
        command("export", "whole.export", *reach, "ckd_a")
        interrupt_export(tmp_path / "whole.export", tmp_path / "all.export.partial", 1)
        refused = command("export", "all.export", *reach, "ckd_b", code=1)
        assert "for another tenant ('acme')" in refused.stderr


def test_one_name_that_is_not_there_leaves_nothing(command: Command, source: str, tmp_path: Path) -> None:
    refused = command("export", "some.export", "--target", source, "--thread", "thread-1", "--thread", "nobody", code=1)
    assert "there is no thread 'nobody'" in refused.stderr
    assert not list(tmp_path.glob("some.export*"))


def test_a_thread_that_can_not_be_exported_is_told_of_and_the_others_are_there(
    command: Command, source: str, new_server: NewServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is written constantly has always changed since the export began to read it."""
    file, steps = tmp_path / "all.export", itertools.count(3)
    with GrpcSaver.from_conn_string(source) as saver:
        put(saver, "busy", 3)
        read = RemoteThreads.read

        def read_beside_a_writer(self: RemoteThreads, thread_id: str) -> Iterator[Any]:
            for checkpoint in read(self, thread_id):
                if thread_id == "busy":
                    put(saver, "busy", 1, first=next(steps))
                yield checkpoint

        monkeypatch.setattr(RemoteThreads, "read", read_beside_a_writer)
        result = command("export", file, "--target", source, "--json", code=1)
    report = report_of(result)
    assert report["failed"] == {"busy": "thread 'busy' was changed while it was read"}
    assert (report["threads"], sorted(threads(file))) == (5, [f"thread-{number}" for number in range(5)])
    imported = command("import", file, "--target", new_server())
    assert "the file lacks thread 'busy', which couldn't be exported" in imported.stderr


@pytest.mark.parametrize("name", [".", "..", "folder", "nowhere/all.export"])
def test_what_can_not_be_a_file_is_refused(name: str, command: Command, source: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused = command("export", name, "--target", source, code=1)
    assert "folder" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_server_that_is_not_there_leaves_nothing(command: Command, tmp_path: Path) -> None:
    command("export", "all.export", "--target", "127.0.0.1:1", code=1)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_export_is_left_alone(command: Command, source: str, tmp_path: Path) -> None:
    (tmp_path / "all.export.partial").write_text("notes of my own")
    refused = command("export", "all.export", "--target", source, code=1)
    assert "is no export file" in refused.stderr
    assert (tmp_path / "all.export.partial").read_text() == "notes of my own"


def test_only_one_export_writes_a_file(command: Command, source: str, file: Path) -> None:
    import fcntl

    with file.with_name("all.export.partial").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = command("export", file, "--target", source, code=1)
    assert "another export writes" in refused.stderr


def test_a_full_disk_behind_standard_output_is_told_in_a_line(source: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        failed = run("export", "-", "--target", source, stdout=full, cwd=tmp_path)
    assert failed.returncode == 1
    assert "can't write standard output: No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_whoever_interrupts_it_is_told_how_to_go_on(
    command: Command, new_server: NewServer, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "all.export"
    at_database = ("--database-url", database_url)
    with ServerProcess(*at_database, log_dir=tmp_path) as server:
        fill(server.target, 15)  # 13,000 bytes
    # Slow enough to be still at work when interrupted.
    with ServerProcess(*at_database, "--quota-calls", "10", log_dir=tmp_path) as slow:
        exporting = [sys.executable, "-m", "checkpointd_server.cli", "export", str(file), "--target", slow.target]
        process = subprocess.Popen(exporting, env=clean_environment(), stderr=subprocess.PIPE, text=True)
        partial = tmp_path / "all.export.partial"
        until(lambda: partial.exists() and partial.stat().st_size > 2500)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again to continue" in said
    assert "Traceback" not in said
    with ServerProcess(*at_database, log_dir=tmp_path) as server:
        report = report_of(command("export", file, "--target", server.target, "--json"))
        assert report["there_already"] > 0
        check_imports(command, file, server.target, new_server())


def test_a_disk_that_is_full_says_how_to_go_on(command: Command, source: str, tmp_path: Path) -> None:
    def leave_little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    failed = run("export", "all.export", "--target", source, cwd=tmp_path, preexec_fn=leave_little_room)
    assert failed.returncode == 1
    assert "can't write all.export.partial: File too large; run the same command again" in failed.stderr
    report = report_of(command("export", "all.export", "--target", source, "--json"))
    assert report["there_already"] > 0
