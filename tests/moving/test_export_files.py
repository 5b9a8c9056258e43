"""Threads travel in a file from one server to another: exactly, checked, and resumable after a kill."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgpack
import pytest
from click.testing import Result
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.grpc.encryption import Encryption

from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd.v1.export_pb2 import ExportHeader
from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server.moving.content import redacted
from checkpointd_server.moving.export_file import ExportReader, ExportWriter
from checkpointd_server.moving.remote_threads import RemoteThreads
from checkpointd_server.moving.transfer import Report, export_threads, threads_of
from tests.moving.played import KINDS, contents, go_on, thread
from tests.support.api_keys import key_entry
from tests.support.calls import checkpoint, config_of
from tests.support.rpc_client import connected
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.until import until

Command = Callable[..., Result]
NewServer = Callable[[], str]


def exported(file: Path) -> list[str]:
    """Returns the threads of a file."""
    with file.open("rb") as opened:
        return [thread.thread_id for thread, _ in ExportReader(opened).threads()]


def test_all_threads_travel_and_go_on_as_before(
    command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "all.export"
    report = json.loads(command("export", file, "--target", played_server, "--json").stdout)
    assert (report["threads"], report["failed"]) == (len(KINDS), {})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(exported(file)) == sorted(KINDS)
    again = json.loads(command("import", file, "--target", other, "--json").stdout)
    assert again == report
    with GrpcSaver.from_conn_string(played_server) as source, GrpcSaver.from_conn_string(other) as target:
        for name in KINDS:
            assert contents(target, name) == contents(source, name), name
            assert go_on(target, name) == go_on(source, name), name


def test_an_import_given_again_finds_everything_there(
    command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "all.export"
    command("export", file, "--target", played_server)
    command("import", file, "--target", other)
    report = json.loads(command("import", file, "--target", other, "--json").stdout)
    assert (report["threads"], report["there_already"], report["failed"]) == (0, len(KINDS), {})
    assert not list(tmp_path.glob("*.progress"))


def test_a_thread_with_other_contents_is_left_alone_unless_told_otherwise(
    command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "line.export"
    command("export", file, "--thread", "line", "--target", played_server)
    command("import", file, "--target", other)
    with GrpcSaver.from_conn_string(other) as target, GrpcSaver.from_conn_string(played_server) as source:
        go_on(target, "line")
        before = contents(target, "line")
        refused = command("import", file, "--target", other, code=1)
        assert "thread 'line' is there already, with other contents; --replace deletes it first" in refused.stderr
        assert contents(target, "line") == before
        unasked = command("import", file, "--target", other, "--replace", code=2)
        assert "--yes" in unasked.stderr
        assert contents(target, "line") == before
        command("import", file, "--target", other, "--replace", "--yes")
        assert contents(target, "line") == contents(source, "line")


def test_a_dry_run_tells_what_there_is_and_writes_nothing(
    command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "all.export"
    command("export", file, "--target", played_server)
    told = json.loads(command("import", file, "--target", other, "--dry-run", "--json").stdout)["threads"]
    assert {one["thread_id"] for one in told} == set(KINDS)
    assert all(one["checkpoints"] > 0 for one in told)
    with GrpcSaver.from_conn_string(other) as target:
        assert not list(target.list(None))


def test_over_a_pipe(command: Command, played_server: str, new_server: NewServer) -> None:
    other = new_server()
    stream = command("export", "-", "--target", played_server).stdout_bytes
    command("import", "-", "--target", other, input=stream)
    with GrpcSaver.from_conn_string(played_server) as source, GrpcSaver.from_conn_string(other) as target:
        assert all(contents(target, name) == contents(source, name) for name in KINDS)


def test_redaction_keeps_the_shape_and_no_value(
    command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "redacted.export"
    with GrpcSaver.from_conn_string(played_server) as source:
        config: RunnableConfig = {
            "configurable": {"thread_id": "secret", "checkpoint_ns": ""},
            "metadata": {"customer": "a private customer"},
        }
        source.put(config, checkpoint("1", {"a": "a private value"}), {}, {"a": 1})
        command("export", file, "--redact", "--target", played_server)
        assert b"private" not in file.read_bytes()
        refused = command("import", file, "--target", other, code=1)
        assert "--allow-redacted" in refused.stderr
        command("import", file, "--allow-redacted", "--target", other)
        with GrpcSaver.from_conn_string(other) as target:
            for name in KINDS:
                for found, original in zip(contents(target, name), contents(source, name), strict=True):
                    assert (found.config, found.parent_config) == (original.config, original.parent_config)
                    assert found.checkpoint["channel_versions"] == original.checkpoint["channel_versions"]
                    assert set(found.checkpoint["channel_values"].values()) <= {None}
                    assert found.metadata.get("step") == original.metadata.get("step")


@pytest.mark.parametrize("damage", ["cut", "flipped", "not one"])
def test_a_damaged_file_is_refused_before_anything_is_written(
    damage: str, command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "all.export"
    command("export", file, "--target", played_server)
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[-200] ^= 1
    file.write_bytes(bytes({"cut": data[:-10], "flipped": data, "not one": b"PK" + data}[damage]))
    refused = command("import", file, "--target", other, code=1)
    assert {"cut": "ends too early", "flipped": "damaged", "not one": "no export file"}[damage] in refused.stderr
    with GrpcSaver.from_conn_string(other) as target:
        assert not list(target.list(None))


def test_an_export_goes_on_where_it_was_killed(command: Command, played_server: str, tmp_path: Path) -> None:
    file, whole = tmp_path / "all.export", tmp_path / "whole.export"
    command("export", whole, "--target", played_server)
    # As after a kill: three threads are complete, the fourth has begun.
    partial = tmp_path / "all.export.partial"
    with whole.open("rb") as opened:
        reader = ExportReader(opened)
        threads = reader.threads()
        for _ in range(3):
            next(threads)
        next(next(threads)[1])
        partial.write_bytes(whole.read_bytes()[: reader.offset + 100])
    report = json.loads(command("export", file, "--target", played_server, "--json").stdout)
    assert report["there_already"] == 3
    assert report["threads"] == len(KINDS) - 3
    assert sorted(exported(file)) == sorted(KINDS)
    assert not partial.exists()
    other = command("export", file, "--target", played_server, code=1)
    assert "is there already" in other.stderr


@pytest.mark.long
def test_an_import_that_is_killed_goes_on_where_it_was(command: Command, new_server: NewServer, tmp_path: Path) -> None:
    source, other, file = new_server(), new_server(), tmp_path / "many.export"
    with GrpcSaver.from_conn_string(source) as saver:
        for number in range(40):
            for step in range(10):
                config: RunnableConfig = {"configurable": {"thread_id": f"thread-{number}", "checkpoint_ns": ""}}
                saver.put(config, checkpoint(f"{step:03}", {"a": "x" * 1000}, {"a": step}), {}, {"a": step})
    command("export", file, "--target", source)
    importing = [sys.executable, "-m", "checkpointd_server.cli", "import", str(file), "--target", other]
    process = subprocess.Popen(importing, env=clean_environment(), cwd=tmp_path)
    progress = tmp_path / "many.export.progress"
    until(lambda: progress.exists() and progress.read_text().count("done") >= 3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = progress.read_text().count("done")
    assert 3 <= done < 40
    report = json.loads(command("import", file, "--target", other, "--json").stdout)
    # The thread at which it was killed may have been complete, but not recorded.
    assert report["there_already"] in (done, done + 1)
    assert (report["threads"], report["failed"]) == (40 - report["there_already"], {})
    assert not progress.exists()
    with GrpcSaver.from_conn_string(source) as ours, GrpcSaver.from_conn_string(other) as theirs:
        for number in range(40):
            assert contents(theirs, f"thread-{number}") == contents(ours, f"thread-{number}")


@pytest.mark.long
def test_a_server_that_is_killed_and_comes_back_loses_nothing(
    command: Command, new_server: NewServer, database_url: str, tmp_path: Path
) -> None:
    source, file = new_server(), tmp_path / "many.export"
    with GrpcSaver.from_conn_string(source) as saver:
        for number in range(60):
            config: RunnableConfig = {"configurable": {"thread_id": f"thread-{number}", "checkpoint_ns": ""}}
            for step in range(5):
                saver.put(config, checkpoint(f"{step:03}", {"a": "x" * 1000}, {"a": step}), {}, {"a": step})
        command("export", file, "--target", source)
        with ServerProcess("--database-url", database_url, log_dir=tmp_path) as server:
            importing = [sys.executable, "-m", "checkpointd_server.cli", "import", str(file), "--target", server.target]
            process = subprocess.Popen(importing, env=clean_environment(), cwd=tmp_path)
            progress = tmp_path / "many.export.progress"
            until(lambda: progress.exists() and progress.read_text().count("done") >= 3)
            server.kill()
            server.start()
            assert process.wait(60) == 0
            with GrpcSaver.from_conn_string(server.target) as target:
                for number in range(60):
                    assert contents(target, f"thread-{number}") == contents(saver, f"thread-{number}")


def test_large_values_and_patches_travel(command: Command, new_server: NewServer, tmp_path: Path) -> None:
    source, other, file = new_server(), new_server(), tmp_path / "large.export"
    with GrpcSaver.from_conn_string(source) as saver, GrpcSaver.from_conn_string(other) as target:
        text = os.urandom(3 * 1024 * 1024).hex()
        config: RunnableConfig = {"configurable": {"thread_id": "large", "checkpoint_ns": ""}}
        for step in range(5):
            text += f"step {step}"
            config = saver.put(config, checkpoint(f"{step:03}", {"a": text}, {"a": step}), {"step": step}, {"a": step})
            saver.put_writes(config, [("a", text), ("b", step)], f"task-{step}")
        command("export", file, "--target", source)
        assert file.stat().st_size < 2.5 * len(text)  # for ten values
        command("import", file, "--target", other)
        assert contents(target, "large") == contents(saver, "large")


def test_encrypted_threads_travel_as_they_are(command: Command, new_server: NewServer, tmp_path: Path) -> None:
    source, other, file = new_server(), new_server(), tmp_path / "sealed.export"
    keys = Encryption(keys={"k": os.urandom(32)}, current="k")
    with (
        GrpcSaver(source, encryption=keys) as saver,
        GrpcSaver(other, encryption=keys) as target,
    ):
        config: RunnableConfig = {"configurable": {"thread_id": "sealed", "checkpoint_ns": ""}}
        text = "a secret " * 10_000
        for step in range(5):
            text += f"step {step}"
            saved = checkpoint(f"{step:03}", {"a": text}, {"a": step})
            config = saver.put(config, saved, {"step": step, "source": "loop"}, {"a": step})
        command("export", file, "--target", source)
        assert b"secret" not in file.read_bytes()
        command("import", file, "--target", other)
        assert contents(target, "sealed") == contents(saver, "sealed")
        assert len(list(target.list(thread("sealed"), filter={"step": 3}))) == 1


@pytest.mark.parametrize("redact", [False, True], ids=["whole", "redacted"])
def test_what_encrypted_patches_are_built_on_comes_along_when_it_was_pruned(
    redact: bool, command: Command, new_server: NewServer, tmp_path: Path
) -> None:
    source, other, file = new_server(), new_server(), tmp_path / "pruned.export"
    keys = Encryption(keys={"k": os.urandom(32)}, current="k")
    with GrpcSaver(source, encryption=keys) as saver, GrpcSaver(other, encryption=keys) as target:
        config, texts = config_of("sealed"), {"a": "a secret " * 10_000, "b": "another secret " * 10_000}
        for step in range(5):
            texts = {channel: f"{text} step {step}" for channel, text in texts.items()}
            versions: dict[str, str | int | float] = dict.fromkeys(texts, step)
            config = saver.put(config, checkpoint(f"{step:03}", texts, versions), {"step": step}, versions)
        saver.put_writes(config, [("a", texts["a"] + " beside")], "task")
        saver.prune(["sealed"])
        assert len(contents(saver, "sealed")) == 1
        command("export", file, "--target", source, *(["--redact"] if redact else []))
        assert b"secret" not in file.read_bytes()
        assert file.stat().st_size < (10_000 if redact else 500_000)
        command("import", file, "--target", other, *(["--allow-redacted"] if redact else []))
        if redact:
            return
        assert contents(target, "sealed") == contents(saver, "sealed")
        saver.put(config, checkpoint("005", texts, versions), {"step": 5}, {})
        again = tmp_path / "again.export"
        command("export", again, "--target", other)
        command("import", again, "--target", source, "--replace", "--yes")
        assert contents(target, "sealed") == contents(saver, "sealed")


def test_a_thread_that_agents_write_to_is_whole_in_the_file(
    command: Command, new_server: NewServer, tmp_path: Path
) -> None:
    """The file shows the thread at one moment: every checkpoint has its parent."""
    source, other, file = new_server(), new_server(), tmp_path / "busy.export"
    with GrpcSaver.from_conn_string(source) as saver, GrpcSaver.from_conn_string(other) as target:
        config: RunnableConfig = {"configurable": {"thread_id": "busy", "checkpoint_ns": ""}}

        def steps() -> Iterator[int]:
            nonlocal config
            for step in range(1000):
                config = saver.put(config, checkpoint(f"{step:04}", {"a": step}, {"a": step}), {}, {"a": step})
                yield step

        running = steps()
        for _ in range(50):
            next(running)
        for _ in range(5):
            next(running)
            command("export", file, "--target", source)
            file.rename(tmp_path / "one.export")
        command("import", tmp_path / "one.export", "--target", other)
        found = contents(target, "busy")
        assert [one.checkpoint["id"] for one in found] == [f"{step:04}" for step in range(55)]
        assert found == contents(saver, "busy")


@pytest.mark.parametrize("disturbed", [2, 100], ids=["twice", "always"])
def test_a_thread_that_is_written_to_while_it_is_read_is_whole_or_left_out(
    disturbed: int, new_server: NewServer, tmp_path: Path
) -> None:
    source, file = new_server(), io.BytesIO()
    with GrpcSaver.from_conn_string(source) as saver, grpc.insecure_channel(source) as channel:
        threads = RemoteThreads(channel, timeout=30)
        steps, reads = itertools.count(), itertools.count(1)

        def write() -> None:
            step = next(steps)
            saver.put(config_of("busy"), checkpoint(f"{step:04}", {"a": step}, {"a": step}), {}, {"a": step})

        def read() -> Generator[CheckpointTuple, None, None]:
            disturbs = next(reads) <= disturbed
            for position, found in enumerate(threads.read("busy")):
                if position == 2 and disturbs:
                    write()
                yield found

        for _ in range(5):
            write()
        busy = [thread._replace(read=read) for thread in threads_of(threads, ["busy"])]
        writer, report = ExportWriter(file, "a file"), Report()
        writer.begin(ExportHeader())
        export_threads(busy, writer, report, redact=False, all_threads=False, progress=lambda _: None)
        writer.finish()
        now = [found.checkpoint["id"] for found in contents(saver, "busy")]
    file.seek(0)
    found = {thread.thread_id: [one.checkpoint_id for one in read] for thread, read in ExportReader(file).threads()}
    if disturbed == 2:
        assert (report.failed, found) == ({}, {"busy": now})
        assert len(now) == 7
    else:
        assert report.failed == {"busy": "thread 'busy' was changed while it was read"}
        assert found == {}


async def test_tags_and_how_threads_are_kept_come_along(
    command: Command, played_server: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "tagged.export"
    async with connected(played_server) as client:
        tags = [pb.ThreadTag(name="customer", text="7")]
        update = pb.UpdateThreadRequest(thread_id="line", set_tags=tags, pinned=True, ttl_seconds=3600)
        await client.threads.UpdateThread(update)
        await client.threads.ArchiveThread(pb.ArchiveThreadRequest(thread_id="chat"))
    await asyncio.to_thread(command, "export", file, "--target", played_server)
    await asyncio.to_thread(command, "import", file, "--target", other)
    async with connected(other) as client:
        line = (await client.threads.GetThread(pb.GetThreadRequest(thread_id="line"))).thread
        chat = (await client.threads.GetThread(pb.GetThreadRequest(thread_id="chat"))).thread
    assert (list(line.tags), line.pinned, line.ttl_seconds) == (tags, True, 3600)
    assert chat.HasField("archived_at")
    assert not line.HasField("archived_at")


def test_with_a_token(command: Command, database_url: str, played_server: str, tmp_path: Path) -> None:
    keys, file = tmp_path / "keys.toml", tmp_path / "all.export"
    keys.write_text(key_entry("ckd_mover", "acme", "read", "write", "store:read", "store:write"))
    command("export", file, "--target", played_server)
    with ServerProcess("--database-url", database_url, "--keys-file", str(keys), log_dir=tmp_path) as server:
        command("import", file, "--target", server.target, "--token", "ckd_mover")
        again = tmp_path / "again.export"
        command("export", again, "--target", server.target, "--token", "ckd_mover")
        assert sorted(exported(again)) == sorted(KINDS)
        refused = command("export", tmp_path / "no.export", "--target", server.target, code=1)
        assert "UNAUTHENTICATED" in refused.stderr


@pytest.mark.parametrize("type_tag", ["msgpack", "json"])
def test_redaction_keeps_the_family_of_serializers(type_tag: str) -> None:
    """Otherwise an import would take a thread of LangGraph.js for one of Python's."""
    dumps: dict[str, Callable[[Any], bytes]] = {
        "msgpack": msgpack.packb,
        "json": lambda value: json.dumps(value).encode(),
    }
    stored = CheckpointTuple(body=msgpack.packb({}), channels=["a"], channel_versions=["i1"])
    stored.metadata.value.type, stored.metadata.value.data = type_tag, dumps[type_tag]({"step": 1, "user": "ann"})
    stored.values.add(channel="a", version="i1").value.type = type_tag
    stored.pending_writes.add(channel="a").value.type = type_tag
    made = redacted(stored)
    assert (made.metadata.value.type, made.metadata.value.data) == (type_tag, dumps[type_tag]({"step": 1}))
    nothing = {"msgpack": ("null", b""), "json": ("json", b"null")}[type_tag]
    left = [each.value for each in made.values] + [each.value for each in made.pending_writes]
    assert [(value.type, value.data) for value in left] == [nothing] * 2
