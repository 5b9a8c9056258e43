"""The processes of the demo: one server, and agents that come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY = "checkpointd ready on "
SECONDS_TO_STOP = 20.0


class DemoFailed(Exception):
    """A step of the demo didn't happen as told."""


@contextmanager
def checkpointd(data_dir: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs a server on a free port, and yields its address and its process."""
    program = Path(sys.executable).with_name("checkpointd")
    log = data_dir.with_suffix(".log")
    with log.open("w") as errors:
        command = [str(program), "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
        server = _start(command, errors.fileno())
    with _stopped(server):
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line.startswith(READY):
            raise DemoFailed(f"checkpointd did not start:\n{log.read_text()}")
        yield line.removeprefix(READY).strip(), server


class Agent:
    """A process that runs the agent, and what it has said so far.

    Args:
        arguments: Those of the module.
        module: What runs in it.
    """

    def __init__(self, arguments: list[str], *, module: str = "examples.demo.worker") -> None:
        self.nodes: list[str] = []
        """The nodes that began in this process."""
        self._process = _start([sys.executable, "-m", module, *arguments], None)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def lines(self) -> Iterator[str]:
        """Yields what the agent says, until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            node, _, what = line.strip().partition(" ")
            if what.strip() == "begins":
                self.nodes.append(node)
            yield line.rstrip("\n")

    def wait(self) -> int:
        """Waits for the end of the process and returns its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """Kills the process with a signal that it can't see coming."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def alive(self) -> Iterator[Agent]:
        """Makes sure that nothing of the process is left behind."""
        with _stopped(self._process):
            yield self


def _start(command: list[str], errors: int | None) -> subprocess.Popen[str]:
    # Without the settings of a real installation, and in a new session: Ctrl-C is for us, and we stop the others.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHECKPOINTD_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )


@contextmanager
def _stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stops a process on the way out: with SIGTERM first."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
