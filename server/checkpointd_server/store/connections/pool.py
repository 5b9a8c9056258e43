"""Connections that are kept open for whoever comes next.

How many there may be is decided before (`Line`), so nobody waits here but for a connection to be made. To take one that
is idle, and to give it back, is a matter of a list: no round trip, no task, no turn of the event loop.
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
"""How long a connection may take to say good-bye, in seconds."""
_UPKEEP_SECONDS = 0.5
"""How often to look for connections that are idle for too long, and for too few of them."""

_logger = logging.getLogger(__name__)


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that knows its age, and how it is used. Times are the event loop's."""

    born = 0.0
    idle_since = 0.0
    pooled = False
    """True if a pooler stands between, which may hand every statement to another server connection."""


class Pool:
    """Keeps connections.

    Args:
        make: Makes a connection, ready for use.
        min_size: How many are kept open.
        max_idle: When one that is idle is closed, in seconds, as long as there are more.
    """

    def __init__(self, make: Callable[[], Awaitable[Connection]], *, min_size: int, max_idle: float) -> None:
        self._make = make
        self._min_size = min_size
        self._max_idle = max_idle
        # The one that came last goes first, so that those that aren't needed stay idle.
        self._idle: deque[Connection] = deque()
        self._in_use: set[Connection] = set()
        self._being_made = 0
        self._closed = False
        self._expired_at = float("-inf")
        self._closing: set[asyncio.Task[None]] = set()
        self._all_back = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Makes the first connections. Raises what making one raises."""
        try:
            while len(self._idle) < self._min_size:
                self._put_back(await self._make())
        except BaseException:
            self.terminate()
            raise
        self._upkeep = asyncio.get_running_loop().create_task(self._keep_up())

    async def acquire(self) -> Connection:
        """Returns a connection that is the caller's until `release`.

        Raises:
            DatabaseUnavailable: The pool was closed.
            Exception: What making one raises.
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
        if self._closed:  # meanwhile; nobody else would close it
            terminate(connection)
            raise _ended()
        self._in_use.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Takes a connection back, on which nothing may be under way any more."""
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
        """Returns whether a connection is to be replaced, for it is as old as one that died."""
        return connection.born <= self._expired_at

    def expire(self) -> None:
        """Has every connection that there is now replaced, each when it is wanted next."""
        self._expired_at = asyncio.get_running_loop().time()

    @property
    def idle(self) -> int:
        """The number of connections that nobody uses."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """The number of connections at work."""
        return len(self._in_use)

    @property
    def opening(self) -> int:
        """The number of connections that calls are making."""
        return self._being_made

    @property
    def _size(self) -> int:
        """The number of connections, with those that calls are making."""
        return len(self._idle) + len(self._in_use) + self._being_made

    def _put_back(self, connection: Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    async def _keep_up(self) -> None:
        """Closes what is idle for too long, and makes what there is too little of."""
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
        except Exception as error:  # whoever needs one is told
            _logger.debug("a connection could not be made ahead: %s", type(error).__name__)
            return
        if self._size < self._min_size:
            self._put_back(connection)
        else:  # a call has made one meanwhile, or is about to
            self._close_later(connection)

    def _close_later(self, connection: Connection) -> None:
        task = asyncio.get_running_loop().create_task(close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Waits for all connections to come back, and closes them. From now on there are none."""
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
        """Ends all connections at once, wherever they are."""
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
    """Says good-bye to the database, or ends the connection if that fails."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT)
    except Exception as error:  # the driver has ended it then
        _logger.debug("a connection could not be closed: %s", type(error).__name__)
        terminate(connection)


def terminate(connection: Connection) -> None:
    """Ends a connection, which may be dead already."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
