"""A pool of open connections.

`ConnectionQueue` limits their number, so callers wait here only for new connections. Taking an idle one and giving it
back are list operations: no round trip, no task, no iteration of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

from checkpointd_server.domain.errors import DatabaseUnavailable

CLOSE_TIMEOUT = 5.0
"""How long a connection may take to close gracefully, in seconds."""
_UPKEEP_SECONDS = 0.5
"""How often idle connections are closed, and missing ones created, in seconds."""

_logger = logging.getLogger(__name__)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection with its age and state. Times are the event loop's."""

    born = 0.0
    idle_since = 0.0
    pooled = False
    """True if it goes through a pooler, which may use another server connection for each statement."""


class Pool:
    """A pool of connections.

    Args:
        make: Creates a connection, ready for use.
        min_size: The number of connections that are kept open.
        max_idle: The idle time after which a connection beyond `min_size` is closed, in seconds.
    """

    def __init__(self, make: Callable[[], Awaitable[Connection]], *, min_size: int, max_idle: float) -> None:
        self._make = make
        self._min_size = min_size
        self._max_idle = max_idle
        # Last in, first out: connections that aren't needed stay idle.
        self._idle: deque[Connection] = deque()
        self._in_use: set[Connection] = set()
        self._being_made = 0
        self._closed = False
        self._expired_at = float("-inf")
        self._closing: set[asyncio.Task[None]] = set()
        self._all_back = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Creates the first connections. Raises the errors of connecting."""
        try:
            while len(self._idle) < self._min_size:
                self._put_back(await self._make())
        except BaseException:
            self.terminate()
            raise
        self._upkeep = asyncio.get_running_loop().create_task(self._keep_up())

    async def acquire(self) -> Connection:
        """Returns a connection for the caller's exclusive use until `release`.

        Raises:
            DatabaseUnavailable: The pool was closed.
            Exception: Connecting failed.
        """
        if self._closed:
            raise _ended()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_closed():
                continue
            if self.has_expired(connection):
                self._close_later(connection)
                continue
            self._in_use.add(connection)
            return connection
        self._being_made += 1
        try:
            connection = await self._make()
        finally:
            self._being_made -= 1
        if self._closed:  # in the meantime; nobody else would close it
            terminate(connection)
            raise _ended()
        self._in_use.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Takes back a connection, on which no statement may be running."""
        self._in_use.discard(connection)
        if connection.is_closed():
            pass
        elif self.has_expired(connection):
            self._close_later(connection)
        else:
            self._put_back(connection)
        if not self._in_use:
            self._all_back.set()

    def has_expired(self, connection: Connection) -> bool:
        """Returns whether a connection must be replaced, because it is as old as one that died."""
        return connection.born <= self._expired_at

    def expire(self) -> None:
        """Marks all present connections to be replaced, each at its next use."""
        self._expired_at = asyncio.get_running_loop().time()

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """The number of connections in use."""
        return len(self._in_use)

    @property
    def opening(self) -> int:
        """The number of connections being created by calls."""
        return self._being_made

    @property
    def _size(self) -> int:
        """The number of connections, including those being created by calls."""
        return len(self._idle) + len(self._in_use) + self._being_made

    def _put_back(self, connection: Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    async def _keep_up(self) -> None:
        """Closes connections that are idle for too long, and creates missing ones."""
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            self._idle = deque(connection for connection in self._idle if not connection.is_closed())
            while self._idle and self._size > self._min_size:
                if time() - self._idle[0].idle_since <= self._max_idle:
                    break
                self._close_later(self._idle.popleft())
            if self._size < self._min_size:
                await self._make_ahead()

    async def _make_ahead(self) -> None:
        try:
            connection = await self._make()
        except Exception as error:  # a call that needs one gets the error
            _logger.debug("a connection could not be made ahead: %s", type(error).__name__)
            return
        if self._size < self._min_size:
            self._put_back(connection)
        else:  # a call has created one in the meantime, or is about to
            self._close_later(connection)

    def _close_later(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Waits until all connections are released, and closes them. No more are given out."""
        self._closed = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        while self._in_use:
            self._all_back.clear()
            await self._all_back.wait()
        while self._idle:
            self._close_later(self._idle.pop())
        await asyncio.gather(*self._closing, return_exceptions=True)

    def terminate(self) -> None:
        """Terminates all connections at once, even those in use."""
        self._closed = True
        if self._upkeep is not None:
            self._upkeep.cancel()
        for connection in [*self._idle, *self._in_use]:
            terminate(connection)
        self._idle.clear()
        self._in_use.clear()


def _ended() -> DatabaseUnavailable:
    return DatabaseUnavailable("the server is shutting down")


async def close(connection: Connection) -> None:
    """Closes a connection gracefully, or terminates it if that fails."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT)
    except Exception as error:  # the driver has ended it then
        _logger.debug("a connection could not be closed: %s", type(error).__name__)
        terminate(connection)


def terminate(connection: Connection) -> None:
    """Terminates a connection, which may be dead already."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
