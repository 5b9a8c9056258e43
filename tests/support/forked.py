"""Programs in separate processes that start without imports, which are most of the cost of a start.

They are forked from a process that has done nothing but the imports (tests/support/fork_server.py).
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parents[2]
AGENT = ("langgraph.graph", "langgraph.checkpoint.grpc", "tests.support.gates")
"""The modules that agents import."""
SERVER = ("checkpointd_server.cli.serve", "checkpointd_server.app")
"""The modules that servers import."""
START_SECONDS = 60.0
"""How long a fork may take, with the imports before the first one."""


class ForkedProcess:
    """A running program, with the parts of the `subprocess.Popen` interface that tests use.

    Args:
        module: The module, as for `python -m`.
        arguments: Its arguments.
        preloaded: The modules imported by the process that it is forked from.
        environment: Its entire environment.
        stdin: The file descriptor of its standard input.
        stdout: That of its standard output.
        stderr: That of its standard error.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        preloaded: tuple[str, ...],
        environment: Mapping[str, str],
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> None:
        self._name = module
        self._lock = threading.Lock()
        self._told = b""
        self.returncode: int | None = None
        """Its exit code, once read; a negative one is the number of the signal that ended it."""
        self._status, told = os.pipe()
        os.set_blocking(self._status, False)
        request = {"module": module, "arguments": arguments, "environment": dict(environment)}
        server = fork_server(preloaded)
        # One at a time: the descriptors of two requests must not arrive together.
        with server.lock:
            try:
                server.send(request, [stdin, stdout, stderr, told])
            finally:
                os.close(told)
            pid = self._line(START_SECONDS)
        assert pid, f"{module} didn't start"
        self.pid = int(pid)
        """Its process id."""

    def poll(self) -> int | None:
        """Returns its exit code, if it has ended."""
        with self._lock:
            if self.returncode is None and (line := self._line(0)) is not None:
                self.returncode = int(line)
                os.close(self._status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end and returns its exit code. Raises TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self._name, timeout or 0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it hasn't ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def _line(self, timeout: float) -> bytes | None:
        """Returns the next report: first its process id, then its exit code. None: timed out."""
        while b"\n" not in self._told:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    return None
            data = os.read(self._status, 100)
            assert data, f"it is unknown how {self._name} ended"
            self._told += data
        line, _, self._told = self._told.partition(b"\n")
        return line


class ForkedAgent(ForkedProcess):
    """An agent, with pipes for its standard input and output. It ends with the block if end of input makes it end.

    Args:
        module: The module, as for `python -m`.
        arguments: Its arguments.
        environment: Its entire environment.
        stderr: The file for its standard error. Default: this process's.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str], stderr: IO[bytes] | None = None
    ) -> None:
        stdin, ours = os.pipe()
        theirs, stdout = os.pipe()
        self.stdin, self.stdout = os.fdopen(ours, "w"), os.fdopen(theirs)
        try:
            super().__init__(
                module,
                *arguments,
                preloaded=AGENT,
                environment=environment,
                stdin=stdin,
                stdout=stdout,
                stderr=2 if stderr is None else stderr.fileno(),
            )
        finally:
            os.close(stdin)
            os.close(stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the pipes and waits for its end."""
        self.stdin.close()
        self.stdout.close()
        self.wait()

    def communicate(self, timeout: float) -> str:
        """Closes its standard input, waits for its end, and returns its remaining output. Raises TimeoutExpired."""
        self.stdin.close()
        too_late = threading.Timer(timeout, self.kill)
        too_late.start()
        try:
            told = self.stdout.read()
        finally:
            too_late.cancel()
        if self.wait(timeout) == -signal.SIGKILL:
            raise subprocess.TimeoutExpired(self._name, timeout)
        return told


class ForkServer:
    """The process that programs are forked from.

    Args:
        preloaded: The modules that it imports.
        environment: Its entire environment.
    """

    def __init__(self, preloaded: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.lock = threading.Lock()
        """Held from a request to its answer."""
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(other.fileno()), *preloaded],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )

    def send(self, request: object, descriptors: list[int]) -> None:
        """Sends a request."""
        data = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(self._socket, [data], descriptors)
        self._socket.sendall(data[sent:])

    def close(self) -> None:
        """Ends it. Running programs continue."""
        self._socket.close()
        self._process.wait()


@functools.cache
def fork_server(preloaded: tuple[str, ...]) -> ForkServer:
    """Returns the process that has imported these modules. It ends with this one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHECKPOINTD_")}
    hidden = str(Path(__file__).with_name("as_installed"))
    server = ForkServer(preloaded, {**environment, "PYTHONPATH": hidden})
    atexit.register(server.close)
    return server
