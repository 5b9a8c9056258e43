"""SIGTERM and Ctrl-C while the event loop runs."""

from __future__ import annotations

import asyncio
import signal
import sys
from types import FrameType
from typing import Any, Self

import structlog

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)


class StopSignals:
    """Turns the first signal into a request to stop, and further ones into cancellation of the task that entered.

    Before `await_request` is called there is nothing to finish, so the first signal cancels too.
    """

    def __init__(self) -> None:
        self._requested = asyncio.Event()
        self._orderly = False
        self._task: asyncio.Task[Any] | None = None
        self.received = False
        """A signal came."""

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._receive, number)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            # The interpreter exits next; a signal must not turn that into a failure.
            signal.signal(number, signal.SIG_IGN)

    async def await_request(self) -> None:
        """Waits for the first signal. Any further one cancels."""
        self._orderly = True
        await self._requested.wait()

    def _receive(self, number: signal.Signals) -> None:
        orderly = self._orderly and not self.received
        self.received = True
        _log.info("stopping when calls in flight are done" if orderly else "stopping at once", signal=number.name)
        if orderly:
            self._requested.set()
        elif self._task is not None:
            self._task.cancel()


def exit_on_signals() -> None:
    """Lets a signal end the process at once until the event loop handles signals: there is nothing to finish before."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    for number in _SIGNALS:
        signal.signal(number, leave)
