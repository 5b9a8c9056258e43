"""A worker process as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import Self

from checkpointd_server.config import ServeConfig
from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.observability.families import Snapshot
from checkpointd_server.process.config_json import dump_config

MAX_REPORT_BYTES = 4 * 1024 * 1024
"""The longest line that a worker may send, in bytes."""


class WorkerFailed(CheckpointdError):
    """A worker can't start, or didn't stop properly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The configuration of a worker."""

    worker: int
    """Its number, from 1, which its log lines carry."""
    config: ServeConfig = field(repr=False)
    """Its settings, which may include the database's password."""


class WorkerProcess:
    """A worker. Use `launch`."""

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        """Its number, from 1 on."""
        self._process = process
        self._error: str | None = None
        self._is_ready = False
        self._first_report = asyncio.Event()
        self._snapshot: asyncio.Future[Snapshot] | None = None
        self._reading = asyncio.create_task(self._read_reports())

    @classmethod
    async def launch(cls, order: WorkerConfig) -> Self:
        """Starts a worker without waiting for it. Raises WorkerFailed if the system can't start a process."""
        # It gets all settings from its parent; the environment must not add any.
        env = {name: value for name, value in os.environ.items() if not name.startswith("CHECKPOINTD_")}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # modules in the working folder must not be imported
                "-m",
                "checkpointd_server.process.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=env,
                start_new_session=True,
                limit=MAX_REPORT_BYTES,
            )
        except OSError as error:
            raise WorkerFailed(f"worker {order.worker} can't be started: {error.strerror}") from error
        worker = cls(order.worker, process)
        assert process.stdin is not None
        # Through a pipe: other users can read command lines, and other processes of the user its environment.
        line = json.dumps({"worker": order.worker, "config": dump_config(order.config)})
        process.stdin.write(line.encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        return worker

    @property
    def returncode(self) -> int | None:
        """The exit code; None: it runs."""
        return self._process.returncode

    async def until_ready(self) -> None:
        """Waits until it serves. Raises WorkerFailed if it ends before, with its own message if it sent one."""
        await self._first_report.wait()
        if not self._is_ready:
            await self.wait()
            raise self.failure()

    async def wait(self) -> None:
        """Waits until it has ended."""
        await self._process.wait()
        await asyncio.wait((self._reading,))

    async def _read_reports(self) -> None:
        """Reads its reports until it has ended."""
        assert self._process.stdout is not None
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            report = json.loads(line)
            self._error = report.get("error", self._error)
            self._is_ready = self._is_ready or "ready" in report
            self._first_report.set()
            if "snapshot" in report and self._snapshot is not None and not self._snapshot.done():
                self._snapshot.set_result(report["snapshot"])
        self._first_report.set()
        if self._snapshot is not None:
            self._snapshot.cancel()

    async def take_snapshot(self, timeout: float) -> Snapshot | None:
        """Returns a snapshot of its metrics. None: it doesn't serve yet, or didn't answer in time."""
        assert self._process.stdin is not None
        if not self._is_ready or self._reading.done():
            return None
        if self._snapshot is None or self._snapshot.done():
            self._snapshot = asyncio.get_running_loop().create_future()
            self._process.stdin.write(b"snapshot\n")
        # A late answer to an earlier request serves the next one.
        await asyncio.wait((self._snapshot,), timeout=timeout)
        done = self._snapshot.done() and not self._snapshot.cancelled()
        return self._snapshot.result() if done else None

    def failure(self) -> WorkerFailed:
        """Returns why it ended."""
        if self._error is not None:
            return WorkerFailed(self._error)
        code = self._process.returncode
        if code is not None and code < 0:
            return WorkerFailed(f"worker {self.number} was ended by {signal.Signals(-code).name}")
        return WorkerFailed(f"worker {self.number} ended with exit code {code}; the log has the reason")

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def release(self) -> None:
        """Closes its standard input, so it stops at once."""
        if self._process.stdin is not None:
            self._process.stdin.close()
