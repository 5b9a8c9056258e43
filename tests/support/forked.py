"""Programs in processes of their own that needn't import LangGraph first, which takes a second of CPU time.

They are forked from a process that has imported it, and has done nothing else (multiprocessing's fork server). What
matters to gRPC is that it has no channel and no thread.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from tests.support.server_process import clean_environment

PRELOADED = ["langgraph.graph", "langgraph.checkpoint.grpc", "tests.support.gates"]


class ForkedProgram:
    """A running program, with what tests use of `subprocess.Popen`.

    Args:
        module: What would be run by `python -m`.
        arguments: Its arguments.
        stderr: The file for its standard error. By default it has that of this process.
    """

    def __init__(self, module: str, *arguments: str, stderr: Path | None = None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        read_end, stdin = multiprocessing.Pipe(duplex=False)
        stdout, write_end = multiprocessing.Pipe(duplex=False)
        self._process = context.Process(
            target=_run, args=(module, arguments, clean_environment(), read_end, write_end, stderr)
        )
        with read_end, write_end, stdin, stdout:
            self._process.start()
            self.stdin = os.fdopen(os.dup(stdin.fileno()), "w")
            self.stdout = os.fdopen(os.dup(stdout.fileno()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its standard input and waits for its end."""
        self.stdin.close()
        self.stdout.close()
        self._process.join()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Returns its exit code, if it has ended; a negative one is the number of the signal that ended it."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Waits for its end and returns its exit code. Raises TimeoutExpired."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return code

    def communicate(self, timeout: float) -> str:
        """Closes its standard input and returns what it still prints, when it has ended. Raises TimeoutExpired."""
        self.stdin.close()
        too_late = threading.Timer(timeout, self.kill)
        too_late.start()
        try:
            told = self.stdout.read()
        finally:
            too_late.cancel()
        if self.wait(timeout) == -signal.SIGKILL:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return told

    def send_signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it hasn't ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once (SIGKILL)."""
        self._process.kill()


def _run(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stdin: Connection,
    stdout: Connection,
    stderr: Path | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(stdin.fileno(), 0)
    os.dup2(stdout.fileno(), 1)
    stdin.close()
    stdout.close()
    if stderr is not None:
        with stderr.open("wb") as file:
            os.dup2(file.fileno(), 2)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
