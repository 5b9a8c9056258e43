"""Results to send to a stream's client: one task writes them, as many per message as there are."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

MESSAGE_BYTES = 1024 * 1024
"""Maximum size of results that share a message, in bytes. A larger result gets its own message."""
ROOM_BYTES = 4 * 1024 * 1024
"""Size of waiting results from which no more reads are started, in bytes."""
LEAST_SECONDS_TO_READ = 5.0
"""Minimum time that a client has to read a message, in seconds."""


class _Results(NamedTuple):
    encoded: bytes
    """An encoded PipelineResponse. Several concatenated ones are one with all their results."""
    number: int
    """The number of results."""
    size: int
    """The size of their operations, in bytes."""
    when_sent: Sequence[Callable[[object], None]]


class Outbox:
    """Writes results to a stream.

    Args:
        write: Sends a message.
        timeout: How long that may take, in seconds. None: no bound.
        sent: Called with the number of results that were sent, and the size of their operations.
        failed: Called once if no more can be sent: with the seconds waited, or None if the client is gone.
    """

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        timeout: float | None,
        sent: Callable[[int, int], None],
        failed: Callable[[float | None], None],
    ) -> None:
        self._write = write
        self._timeout = None if timeout is None else max(timeout, LEAST_SECONDS_TO_READ)
        self._sent = sent
        self._failed = failed
        self._waiting: deque[_Results] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.is_broken = False
        """True if nothing more can be sent."""

    @property
    def has_room(self) -> bool:
        """True if more reads may be started."""
        return self._bytes < ROOM_BYTES

    def put(self, encoded: bytes, count: int, size: int, when_sent: Sequence[Callable[[object], None]] = ()) -> None:
        """Queues results.

        Args:
            encoded: A PipelineResponse.
            count: How many results it has.
            size: The size of their operations, in bytes.
            when_sent: Called when they were sent, or were dropped.
        """
        self._waiting.append(_Results(encoded, count, size, when_sent))
        self._bytes += len(encoded)
        if self._task is None and not self.is_broken:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Sends all queued results."""
        try:
            while self._waiting:
                results = self._next()
                try:
                    async with asyncio.timeout(self._timeout):
                        await self._write(b"".join([part.encoded for part in results]))
                finally:
                    self._bytes -= sum([len(part.encoded) for part in results])
                    _note(results)
                self._sent(sum([part.number for part in results]), sum([part.size for part in results]))
        except TimeoutError:
            self._break(self._timeout)
        except Exception:  # the client is gone, and so is the stream
            self._break(None)
        finally:
            self._task = None

    def _next(self) -> list[_Results]:
        """Returns the next message."""
        results = [self._waiting.popleft()]
        size = len(results[0].encoded)
        while self._waiting and size + len(self._waiting[0].encoded) <= MESSAGE_BYTES:
            size += len(self._waiting[0].encoded)
            results.append(self._waiting.popleft())
        return results

    def _break(self, timeout: float | None) -> None:
        self.is_broken = True
        self._failed(timeout)

    def close(self) -> None:
        """Drops unsent results."""
        self.is_broken = True
        if self._task is not None:
            self._task.cancel()
        _note(self._waiting)
        self._waiting.clear()


def _note(results: Sequence[_Results]) -> None:
    for part in results:
        for note in part.when_sent:
            note(None)
