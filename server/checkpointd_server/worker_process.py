"""A worker as its parent sees it: a process that is told what to do, reports once, and ends when it is let go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import click

from checkpointd_server.domain.errors import CheckpointdError


class WorkerFailed(CheckpointdError):
    """A worker can't start, or didn't stop as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is told."""

    worker: int
    """Its number, from 1 on, which its log lines carry."""
    arguments: Sequence[str] = field(repr=False)
    """Its options of `checkpointd serve`. The database's password may be among them."""


class WorkerProcess:
    """A worker. Use `launch`."""

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        """Its number, from 1 on."""
        self._process = process
        self._error: str | None = None

    @classmethod
    async def launch(cls, order: Order) -> Self:
        """Starts a worker, and waits for nothing. Raises WorkerFailed if the system has no room for it."""
        # It is told everything; a setting of the environment must not come on top.
        env = {name: value for name, value in os.environ.items() if not name.startswith("CHECKPOINTD_")}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what happens to lie in the working folder is not ours
                "-m",
                "checkpointd_server.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=env,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerFailed(f"worker {order.worker} can't be started: {error.strerror}") from error
        worker = cls(order.worker, process)
        assert process.stdin is not None
        # By a pipe: others of the machine may read command lines, and others of the user environments.
        process.stdin.write(json.dumps({"worker": order.worker, "arguments": list(order.arguments)}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        return worker

    @property
    def returncode(self) -> int | None:
        """How it ended; None: it runs."""
        return self._process.returncode

    async def until_ready(self) -> None:
        """Waits until it serves. Raises WorkerFailed if it ends before, with its own words if it has said why."""
        if "ready" not in await self._report():
            await self.wait()
            raise self.failure()

    async def wait(self) -> None:
        """Waits until it has ended."""
        await self._process.wait()
        await self._report()

    async def _report(self) -> Mapping[str, Any]:
        """Reads the next thing that it says; nothing, at its end."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        report: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
        self._error = report.get("error", self._error)
        return report

    def failure(self) -> WorkerFailed:
        """Why it ended."""
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
        """Lets go of it: it stops at once."""
        if self._process.stdin is not None:
            self._process.stdin.close()


def as_arguments(command: click.Command, values: Mapping[str, Any]) -> list[str]:
    """Returns the command line that gives a command's options these values, by the options' names."""
    arguments = []
    for option in command.params:
        assert isinstance(option, click.Option)
        assert option.name is not None
        value = values[option.name]
        if value is None:
            continue
        if option.is_flag:
            arguments.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            arguments += [f"{option.opts[0]}={one}" for one in (value if option.multiple else (value,))]
    return arguments
