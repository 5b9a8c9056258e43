"""Output for a user at a terminal, and for a program that reads it through a pipe."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver

from tests.support.server_process import ServerProcess
from tests.support.until import TIMEOUT

COMMAND = (sys.executable, "-m", "checkpointd_server.cli")
CLEAR = "\x1b[2J"
"""The sequence that clears a terminal."""


class Terminal:
    """A terminal whose other end a program has."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.seen = ""

    def read(self, seconds: float = 0.0) -> str:
        """Returns everything shown so far, after waiting for more."""
        while select.select([self.ours], [], [], seconds)[0]:
            try:
                more = os.read(self.ours, 65536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            self.seen += more.decode(errors="replace")
            seconds = 0.0
        return self.seen

    def read_until(self, holds: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + TIMEOUT
        while not holds(self.read(0.05)):
            assert time.monotonic() < deadline, self.seen[-2000:]
        return self.seen


@contextmanager
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    try:
        yield made
    finally:
        os.close(made.theirs)
        os.close(made.ours)


def make(server: ServerProcess, *, threads: int = 2) -> str:
    """Creates threads under a new prefix, and returns the prefix."""
    prefix = f"{uuid4().hex}:"
    with GrpcSaver.from_conn_string(server.target) as saver:
        for number in range(threads):
            saver.put(
                {"configurable": {"thread_id": f"{prefix}{number}", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {}
            )
    return prefix


def test_top_looks_again_and_again_until_it_is_interrupted(server: ServerProcess) -> None:
    """Uses a server of its own: on a shared one, other tests' threads may have had more calls in the last 30 s."""
    make(server)
    with terminal() as screen:
        line = [*COMMAND, "top", "--interval", "0.1", "--target", server.target]
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(
            line, stdin=screen.theirs, stdout=screen.theirs, stderr=subprocess.PIPE, env=environment
        ) as program:
            seen = screen.read_until(lambda shown: shown.count(CLEAR) >= 3)
            first = seen.split(CLEAR)[1]
            assert f"{server.target}, every 0.1 s" in first
            assert "calls in flight, " in first
            # It shows threads created meanwhile.
            prefix = make(server)
            screen.read_until(lambda shown: f"{prefix}0" in shown.split(CLEAR)[-1])
            program.send_signal(signal.SIGINT)
            assert program.wait(TIMEOUT) == 0
            assert program.stderr is not None
            assert program.stderr.read() == b""


BARS = {
    "Exporting checkpoints": ["export", "FILE", "--thread", "THREAD"],
    "Importing checkpoints and items": ["import", "FILE", "--replace", "--yes"],
    "looking at threads": ["retention", "preview"],
    "deleting": ["threads", "delete", "THREAD", "--yes"],
    "archiving": ["threads", "archive", "THREAD"],
    "purging": ["purge", "threads", "--prefix", "PREFIX", "--yes"],
}
"""The commands that have a progress bar, by label."""


@pytest.mark.parametrize("label", BARS)
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
def test_progress_is_shown_to_people_alone(
    label: str, is_terminal: bool, shared_server: ServerProcess, tmp_path: Path
) -> None:
    prefix = make(shared_server)
    words = {"FILE": str(tmp_path / "all.export"), "THREAD": f"{prefix}0", "PREFIX": prefix}
    line = [words.get(word, word) for word in BARS[label]]
    if "import" in line:
        exported = ["export", words["FILE"], "--thread", words["THREAD"], "--target", shared_server.target]
        subprocess.run([*COMMAND, *exported], check=True, capture_output=True, timeout=TIMEOUT)
    with terminal() as screen:
        program = subprocess.Popen(
            [*COMMAND, *line, "--json", "--target", shared_server.target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=screen.theirs if is_terminal else subprocess.PIPE,
        )
        output, errors = program.communicate(timeout=TIMEOUT)
        assert program.returncode == 0
        json.loads(output)
        if is_terminal:
            assert label in screen.read(0.5)
        else:
            assert errors == b""
