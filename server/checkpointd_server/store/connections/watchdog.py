"""Detection of a database host that has gone silent, long before calls time out.

A host that is cut off doesn't refuse connections: a statement sent to it waits for an answer that never comes. The
operating system notices when packets aren't acknowledged. It can't notice a proxy that stops forwarding, or a host
whose processes hang. That is the watchdog's job: if a statement takes long, it asks the database for the statement's
session.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg

from checkpointd_server.store.errors import no_descriptor_left

_PAUSE = 0.5
"""How often long statements are searched, in seconds."""

_KEEPALIVE = {
    # By their names in `socket`, if the system has them.
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,
}
"""A connection ends some 10 seconds after the other side has stopped acknowledging. By default that takes 15 minutes
for sent data, and two hours for a connection that waits for an answer."""

_SESSIONS = "SELECT a.pid, pg_backend_pid() AS own FROM pg_stat_activity AS a WHERE a.pid = ANY ($1)"
_logger = logging.getLogger(__name__)


def keep_alive(connection: Any) -> None:
    """Enables TCP keepalives on a connection of the driver."""
    transport_socket = connection._transport.get_extra_info("socket")
    if transport_socket is None or transport_socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # The event loop's wrapper can't set all options on every loop.
    with socket.socket(fileno=socket.dup(transport_socket.fileno())) as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                shared.setsockopt(socket.IPPROTO_TCP, option, value)


class StatementWatchdog:
    """Watches long statements, and terminates the connections of those that the database doesn't execute.

    Args:
        connect: Creates a separate connection to the database, within a limited time.
        delay: The time after which a statement is checked, and the interval of further checks, in seconds.
        timeout: How long the database may take to answer, in seconds.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], *, delay: float, timeout: float) -> None:
        self._connect = connect
        self._delay = delay
        self._timeout = timeout
        self._at_work: dict[Any, float] = {}

    def watch(self, connection: Any) -> None:
        """Watches a connection while it executes a statement."""
        self._at_work[connection] = asyncio.get_running_loop().time()

    def unwatch(self, connection: Any) -> None:
        """Watches it no more."""
        self._at_work.pop(connection, None)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_PAUSE)
            late = {connection: since for connection, since in self._at_work.items() if time() - since > self._delay}
            if not late:
                continue
            try:
                lost = await self._without_session(list(late))
            except Exception as error:  # whatever it is, the watchdog goes on
                _logger.warning("the database can't be asked for its sessions: %s", type(error).__name__)
                lost = []
            # Only if it is still the same statement: others may have begun since.
            lost = [connection for connection in lost if self._at_work.get(connection) == late[connection]]
            if lost:
                _logger.warning("the database doesn't answer: giving up %d connections", len(lost))
            for connection in late:
                if connection in lost:
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                elif connection in self._at_work:
                    self._at_work[connection] = time()

    async def _without_session(self, connections: list[Any]) -> list[Any]:
        """Returns the connections without a session in the database, or all if it doesn't answer."""
        try:
            probe = await self._connect()
        except (OSError, asyncpg.PostgresConnectionError) as error:  # TimeoutError too
            return [] if no_descriptor_left(error) else connections
        except asyncpg.PostgresError:
            return []  # it refuses, so it is alive
        own = probe.get_server_pid()
        pids = [None if connection.is_closed() else connection.get_server_pid() for connection in connections]
        try:
            async with asyncio.timeout(self._timeout), probe.transaction():
                rows = await probe.fetch(_SESSIONS, [*pids, own])
        except (OSError, asyncpg.PostgresConnectionError):
            return connections
        finally:
            probe.terminate()
        if not any(row["pid"] == row["own"] == own for row in rows):
            return []  # through a pooler, which has its own process numbers
        alive = {row["pid"] for row in rows}
        return [connection for connection, pid in zip(connections, pids, strict=True) if pid not in alive]
