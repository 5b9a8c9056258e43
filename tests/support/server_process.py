"""The real server in a separate process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from tests.support.forked import SERVER, ForkedProcess
from tests.support.until import until

READY = re.compile(r"checkpointd ready on (\S+)(?: \S+)*\n")

UNPRIVILEGED = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--bounding-set=-all,+dac_read_search"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
"""Runs a command as an ordinary user, if this process is root. The only right kept is to read all files, as the tests'
interpreter may lie in a folder that only root can read."""


T = TypeVar("T")


class ServerFailed(AssertionError):
    """The server didn't become ready; the message contains its output."""


class ServerProcess:
    """A `checkpointd serve`, started on entering and stopped on leaving.

    The program is the real one, but its process is forked from one that has already imported it, which takes a tenth of
    the CPU time. `ExecutedServer` starts as users' servers do.

    Args:
        options: Options of `checkpointd serve`. Without --listen it picks a free port; a restart keeps it.
        log_dir: Where its standard output and standard error go, as files.
        env: More environment variables.
        prefix: A command that runs it, e.g. `UNPRIVILEGED`.
        timeout: How long it may take to become ready and to stop, in seconds.
    """

    _forked = True

    def __init__(
        self,
        *options: str,
        log_dir: Path,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> None:
        self._options = options
        self._listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
        self._env = {**clean_environment(), "CHECKPOINTD_LOG_LEVEL": "debug", **(env or {})}
        self._prefix = prefix
        self._timeout = timeout
        self._target: str | None = None
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._stdout = log_dir / "server.stdout"
        self._stderr = log_dir / "server.stderr"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    @property
    def target(self) -> str:
        """The first of its addresses, e.g. "127.0.0.1:40123"."""
        if self._target is None:
            raise RuntimeError("the server was not started")
        return self._target

    @property
    def process(self) -> subprocess.Popen[bytes] | ForkedProcess:
        """Its process."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    @property
    def stdout(self) -> str:
        """Everything that it wrote to standard output since its last start."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """Everything that it wrote to standard error since its last start: its log."""
        return self._stderr.read_text()

    def start(self) -> Self:
        """Starts it and waits until it serves. Raises ServerFailed."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> None:
        """Starts it without waiting."""
        program = ("checkpointd_server.cli", "serve", *self._listen, *self._options)
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr, open(os.devnull, "rb") as stdin:
            if self._forked and not self._prefix:
                self._process = ForkedProcess(
                    *program,
                    preloaded=SERVER,
                    environment=self._env,
                    stdin=stdin.fileno(),
                    stdout=stdout.fileno(),
                    stderr=stderr.fileno(),
                )
            else:
                command = [*self._prefix, sys.executable, "-m", *program]
                self._process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=self._env)

    def wait_ready(self) -> Self:
        """Waits until it serves. Raises ServerFailed."""
        self._target = self._until(lambda: READY.search(self.stdout), "no ready line")[1]
        if self._listen:
            self._listen = ("--listen", self._target)
        return self

    def await_log(self, text: str) -> None:
        """Waits until its log contains a text. Raises ServerFailed if it ends before."""
        self._until(lambda: text in self.stderr, f"{text!r} is not in the log")

    def _until(self, look: Callable[[], T | None], lacking: str) -> T:
        """Waits for a result. Kills the server and raises ServerFailed if none comes in time, or if the server ends."""

        def look_while_it_runs() -> T | None:
            ended = self.process.poll() is not None
            found = look()
            assert found or not ended
            return found

        try:
            found = until(look_while_it_runs, timeout=self._timeout)
        except AssertionError:
            self.kill()
            code = self.process.returncode
            raise ServerFailed(f"{lacking}; exit code {code}\n{self.stdout}\n{self.stderr}") from None
        assert found is not None
        return found

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal without waiting."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Waits until it has ended and returns its exit code."""
        try:
            return self.process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"it didn't end within {self._timeout} s\n{self.stderr}") from None

    def stop(self) -> None:
        """Asks it to stop (SIGTERM) and waits. Raises ServerFailed if it ends with an error."""
        self.signal()
        if self.wait() != 0:
            raise ServerFailed(f"exit code {self.process.returncode}\n{self.stderr}")

    def kill(self) -> None:
        """Kills it (SIGKILL) and waits."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> Self:
        """Starts it again at the same address, after `stop` or `kill`; a running one is stopped first."""
        if self.process.poll() is None:
            self.stop()
        return self.start()


class ExecutedServer(ServerProcess):
    """A server in a new process, for tests of how a server starts, or of its resource usage."""

    _forked = False


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without settings of checkpointd, of PostgreSQL, and of our tools."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHECKPOINTD_", "PG"))}
    return {**kept, "PYTHONPATH": str(Path(__file__).with_name("as_installed"))}
