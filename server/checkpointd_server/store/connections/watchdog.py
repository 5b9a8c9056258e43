"""Noticing that the database's host has gone silent, long before a call's own time is over.

A host that is cut off refuses nothing: a statement sent to it waits for an answer that never comes. The operating
system notices when nobody acknowledges what was sent; what it can't see, such as a proxy that forwards no more or a
host whose processes hang, the watchdog finds out: where a statement takes long, it asks the database for the
statement's session.
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
"""How often to look for statements that take long, in seconds."""

_KEEPALIVE = {
    # By the names of `socket`, where the system has them.
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,
}
"""A connection ends some 10 seconds after the other side has stopped to acknowledge. By default that takes 15 minutes
for what was sent, and two hours for a connection that waits for an answer."""

_SESSIONS = "SELECT a.pid, pg_backend_pid() AS own FROM pg_stat_activity AS a WHERE a.pid = ANY ($1)"
_logger = logging.getLogger(__name__)


def keep_alive(connection: Any) -> None:
    """Has the system ask, on a TCP connection of the driver's, whether the other side is still there."""
    transport_socket = connection._transport.get_extra_info("socket")
    if transport_socket is None or transport_socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # The event loop's own object for it can't set everything on every loop.
    with socket.socket(fileno=socket.dup(transport_socket.fileno())) as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                shared.setsockopt(socket.IPPROTO_TCP, option, value)


class StatementWatchdog:
    """Looks after the statements that take long, and ends the connections of those that nobody works on.

    Args:
        connect: Makes a connection of one's own to the database, within a bounded time.
        patience: After how long a statement is looked after, and how often then, in seconds.
        timeout: How long the database has for an answer, in seconds.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], *, patience: float, timeout: float) -> None:
        self._connect = connect
        self._patience = patience
        self._timeout = timeout
        self._at_work: dict[Any, float] = {}

    def watch(self, connection: Any) -> None:
        """Watches a connection on which a statement is at work."""
        self._at_work[connection] = asyncio.get_running_loop().time()

    def unwatch(self, connection: Any) -> None:
        """Watches it no more."""
        self._at_work.pop(connection, None)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_PAUSE)
            late = {connection: since for connection, since in self._at_work.items() if time() - since > self._patience}
            if not late:
                continue
            try:
                lost = await self._without_session(list(late))
            except Exception as error:  # whatever it is, the watchdog goes on
                _logger.warning("the database can't be asked for its sessions: %s", type(error).__name__)
                lost = []
            # Only what is still the same statement: others have begun since.
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
        """Returns the connections whose session the database doesn't have, or all if it doesn't answer."""
        try:
            probe = await self._connect()
        except (OSError, asyncpg.PostgresConnectionError) as error:  # TimeoutError too
            return [] if no_descriptor_left(error) else connections
        except asyncpg.PostgresError:
            return []  # it refuses, so it is there
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
            return []  # a pooler stands between, with numbers of its own
        alive = {row["pid"] for row in rows}
        return [connection for connection, pid in zip(connections, pids, strict=True) if pid not in alive]
