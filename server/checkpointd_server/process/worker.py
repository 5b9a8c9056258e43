"""A worker: one of several server processes on one port, started by `checkpointd serve --workers N`, its parent.

It reads its number and configuration from the first line of standard input, a JSON object, and reports on standard
output, also as a line of JSON, that it serves or why it can't. Standard input stays open as long as the parent lives.
Its end ends the worker too, so none is left behind, however the parent ended. Each further line requests a snapshot of
the worker's metrics, which it answers with a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import IO, Any

import structlog

from checkpointd_server.config import ServeConfig
from checkpointd_server.domain.errors import CheckpointdError
from checkpointd_server.observability.families import Snapshot
from checkpointd_server.process.config_json import load_config
from checkpointd_server.process.logging import configure_logs, flush_logs
from checkpointd_server.process.signals import exit_on_signals


def main() -> int:
    """Serves with the parent's configuration, and returns the exit code."""
    # The pipe to the parent is only for reports.
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    line = sys.stdin.readline()
    if not line:
        return 0
    order = json.loads(line)
    structlog.contextvars.bind_contextvars(worker=order["worker"])
    exit_on_signals()
    config = load_config(order["config"])
    configure_logs(config.log_level, config.log_format)
    try:
        asyncio.run(_serve(config, Parent(order["worker"], reports)))
    except CheckpointdError as error:
        _report(reports, error=str(error))
        return 1
    except Exception:  # an internal error: logged in the log's format
        structlog.get_logger(__name__).exception("failed")
        flush_logs()
        _report(reports, error="it failed, see its log")
        return 1
    finally:
        flush_logs()
    return 0


class Parent:
    """The parent process, as a worker sees it.

    Args:
        number: The worker's number, from 1 on.
        reports: The stream that the parent reads.
    """

    def __init__(self, number: int, reports: IO[str]) -> None:
        self.number = number
        """The worker's number, from 1 on."""
        self._reports = reports
        self._asked = asyncio.Event()

    def report(self, **report: Any) -> None:
        """Sends a message to the parent."""
        _report(self._reports, **report)

    async def follow(self) -> None:
        """Reads the parent's requests until the parent has ended."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            self._asked.set()

    async def answer(self, take: Callable[[], Awaitable[Snapshot]]) -> None:
        """Sends a snapshot whenever the parent asks for one, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            # In a thread: a pipe that the parent doesn't read must not block the event loop.
            await asyncio.to_thread(self.report, snapshot=await take())


async def _serve(config: ServeConfig, parent: Parent) -> None:
    from checkpointd_server import app

    def announce(addresses: Sequence[str]) -> None:
        parent.report(ready=list(addresses))

    serving = asyncio.create_task(app.serve(config, announce=announce, worker=parent))
    orphaned = asyncio.create_task(parent.follow())
    await asyncio.wait((serving, orphaned), return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        structlog.get_logger(__name__).warning("stopping at once: the parent process has ended, or wants it so")
        serving.cancel()
        await asyncio.wait((serving,))
    orphaned.cancel()
    if not serving.cancelled():
        serving.result()


def _report(reports: IO[str], **report: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and this process soon will be
        print(json.dumps(report), file=reports, flush=True)


if __name__ == "__main__":
    sys.exit(main())
