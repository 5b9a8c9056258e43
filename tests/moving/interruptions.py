"""Imports and exports that stop halfway, as if killed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from langgraph.checkpoint.grpc import GrpcSaver

from checkpointd_server.moving.content import MovableThread
from checkpointd_server.moving.export_file import ExportReader
from checkpointd_server.moving.file_source import open_file
from checkpointd_server.moving.journal import Journal, Subject
from checkpointd_server.moving.remote_writes import RemoteTarget
from checkpointd_server.moving.server_identity import ServerIdentity
from checkpointd_server.moving.transfer import Report, ThreadImport
from tests.support.calls import checkpoint, config_of


def fill(target: str, threads: int = 5, steps: int = 4, *, text: str = "x") -> list[str]:
    """Puts threads on a server, and returns their names."""
    names = [f"thread-{number}" for number in range(threads)]
    with GrpcSaver.from_conn_string(target) as saver:
        for name in names:
            put(saver, name, steps, text=text)
    return names


def put(saver: Any, name: str, steps: int, *, first: int = 0, text: str = "x") -> None:
    """Puts checkpoints, each with a task write."""
    for step in range(first, first + steps):
        saved = checkpoint(f"{step:03}", {"a": f"{text} {step}"}, {"a": step})
        config = saver.put(config_of(name), saved, {"step": step}, {"a": step})
        saver.put_writes(config, [("b", f"{text} beside {step}")], "task")


def interrupt_import(file: Path, target: str, *, done: int, checkpoints: int | None = None) -> None:
    """Imports the first threads of a file and some checkpoints of the next, and stops there for good.

    Args:
        file: The file.
        target: The server.
        done: The number of threads.
        checkpoints: The number of checkpoints of the next thread. None: it isn't begun.
    """
    with grpc.insecure_channel(target) as channel, open_file(file) as source, suppress(KeyboardInterrupt):
        server, report = RemoteTarget(channel, timeout=20), Report()
        subject = Subject(source.name, str(ServerIdentity.ask(channel, 20)))
        with Journal(file.parent / f"{file.name}.progress", subject) as journal:
            threads = ThreadImport(server, journal, report, replace=False, progress=lambda _: None)
            for number, thread in enumerate(source.entries()):
                assert isinstance(thread, MovableThread)
                if number < done:
                    threads.take(thread)
                    continue
                if checkpoints is not None:
                    journal.begin(thread.thread_id)
                    with server.writing(thread.describe()) as writer:
                        for _, one in zip(range(checkpoints), thread.read(), strict=False):
                            writer.write(one)
                assert not report.failed
                raise KeyboardInterrupt


def interrupt_export(whole: Path, partial: Path, threads: int) -> None:
    """Truncates a complete file to its first threads, as a kill during the next one would."""
    with whole.open("rb") as opened:
        reader = ExportReader(opened)
        entries = reader.threads()
        for _ in range(threads):
            next(entries)
        next(next(entries)[1])
        partial.write_bytes(whole.read_bytes()[: reader.offset + 10])


def report_of(result: Any) -> Any:
    """Returns what a command printed as JSON."""
    return json.loads(result.stdout)
