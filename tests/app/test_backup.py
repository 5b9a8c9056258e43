"""Backup and restore: runs each command of docs/operating.md as written."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from checkpointd_server.embedded_postgres.server import find_binaries
from tests.support.cluster import PostgresCluster
from tests.support.document import Document
from tests.support.server_process import ServerProcess, clean_environment

THREADS: list[Any] = [{"configurable": {"thread_id": name}} for name in ("done", "asking")]


class State(TypedDict):
    said: Annotated[list[str], operator.add]
    blob: bytes


def graph(saver: GrpcSaver) -> Any:
    """A graph that says something, and asks a question if the thread's name is "asking"."""

    def speak(state: State) -> dict[str, object]:
        return {"said": ["spoke"], "blob": b"\x00\xff" * 40_000}

    def ask(state: State) -> dict[str, list[str]]:
        return {"said": [interrupt("well?")] if state["said"][0] == "asking" else []}

    builder = StateGraph(State)
    builder.add_node("speak", speak)
    builder.add_node("ask", ask)
    builder.add_edge(START, "speak")
    builder.add_edge("speak", "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def fill(target: str) -> None:
    """Runs one thread to its end, and another until its question."""
    with GrpcSaver(target) as saver:
        for thread in THREADS:
            graph(saver).invoke({"said": [thread["configurable"]["thread_id"]], "blob": b""}, thread)


def all_of(target: str) -> list[Any]:
    """Returns everything readable of the threads."""
    with GrpcSaver(target) as saver:
        return [
            (saved.config, saved.checkpoint, saved.metadata, saved.parent_config, saved.pending_writes)
            for thread in THREADS
            for saved in saver.list(thread)
        ]


def go_on(target: str) -> None:
    """Continues the threads where they stopped."""
    with GrpcSaver(target) as saver:
        assert graph(saver).invoke(Command(resume="yes"), THREADS[1])["said"] == ["asking", "spoke", "yes"]
        assert graph(saver).invoke({"said": ["again"], "blob": b""}, THREADS[0])["said"][-2:] == ["again", "spoke"]


def commands(word: str) -> str:
    """Returns the only block of commands in the document that contains this word."""
    (found,) = (code for _, code in Document("docs/operating.md").blocks("bash") if word in code)
    return found


def shell(code: str, folder: Path, **variables: str | Path) -> None:
    """Runs commands as a user would, with these variables set."""
    path = os.pathsep.join([str(find_binaries()), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**clean_environment(), "PATH": path, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def restored_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of another, empty database."""
    name = postgres_cluster.create_database()
    yield postgres_cluster.dsn(name)
    postgres_cluster.drop_database(name)


def test_a_dump_is_restored_into_another_database(
    server: ServerProcess, database_url: str, restored_url: str, tmp_path: Path
) -> None:
    fill(server.target)
    before = all_of(server.target)
    shell(
        commands('--file=checkpointd.dump "$CHECKPOINTD_DATABASE_URL"'), tmp_path, CHECKPOINTD_DATABASE_URL=database_url
    )
    go_on(server.target)  # later changes aren't in the dump
    for word in ("CREATE EXTENSION", "--no-privileges"):
        shell(commands(word), tmp_path, RESTORED_URL=restored_url)
    logs = tmp_path / "restored"
    logs.mkdir()
    with ServerProcess("--database-url", restored_url, "--no-migrate", log_dir=logs) as restored:
        assert all_of(restored.target) == before
        go_on(restored.target)


def test_the_embedded_database_is_dumped_and_restored_and_its_folder_copied(data_dir: Path, tmp_path: Path) -> None:
    copy_dir, other_dir = tmp_path / "copy", tmp_path / "other"
    where: dict[str, str | Path] = {"DATA_DIR": data_dir, "COPY_DIR": copy_dir}
    with ServerProcess("--data-dir", str(data_dir), log_dir=tmp_path) as server:
        fill(server.target)
        before = all_of(server.target)
        shell(commands("$BIN/pg_dump"), tmp_path, **where)
    shell(commands("cp --archive"), tmp_path, **where)
    with ServerProcess("--data-dir", str(copy_dir), log_dir=tmp_path) as server:
        assert all_of(server.target) == before
        go_on(server.target)
    with ServerProcess("--data-dir", str(other_dir), log_dir=tmp_path) as server:
        shell(commands("$BIN/pg_restore"), tmp_path, DATA_DIR=data_dir, COPY_DIR=other_dir)
        server.restart()
        assert all_of(server.target) == before
        go_on(server.target)
