"""Connecting to the database, and detecting a pooler."""

from __future__ import annotations

import logging

import asyncpg

from checkpointd_server.store.connections.hosts import Hosts
from checkpointd_server.store.connections.pool import Connection, terminate
from checkpointd_server.store.options import StoreOptions

CACHED_STATEMENTS = 1024
"""Default number of prepared statements that a connection keeps without a pooler."""

_CLASHES = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""Errors of prepared statements through a pooler that doesn't support them: one already exists, or no longer does."""

_logger = logging.getLogger(__name__)


class Connector:
    """Connects to the database. Once it has detected a pooler, connections prepare no statements.

    PgBouncer and the like may run each transaction on another server connection, where the prepared statement doesn't
    exist, or is another client's.

    Args:
        options: The database. An explicit `statement_cache_size` applies with or without a pooler.
        tells: Whether to log a detected pooler.
    """

    def __init__(self, options: StoreOptions, *, tells: bool = True) -> None:
        self._options = options
        self._hosts = Hosts()
        self._tells = tells
        self._noticed = False

    async def connect(self) -> Connection:
        """Creates a connection, marked if it goes through a pooler. Raises the driver's errors."""
        try:
            connection = await self._connect()
        except _CLASHES:  # the driver first asks a host whether it is a primary, by a prepared statement
            if not self._may_give_up_statements:
                raise
            self.notice_pooler()
            connection = await self._connect()
        try:
            prepares = bool(self._statement_cache_size)
            connection.pooled = not prepares or await self._is_pooled(connection)
            if connection.pooled and prepares and self._may_give_up_statements:
                # None was prepared yet.
                self.notice_pooler()
                terminate(connection)
                connection = await self._connect()
                connection.pooled = True
        except BaseException:
            terminate(connection)
            raise
        return connection

    def notice_pooler(self) -> None:
        """Stops further connections from preparing statements, unless the options say how many, and logs it once."""
        if self._noticed or not self._may_give_up_statements:
            return
        self._noticed = True
        if self._tells:
            _logger.info("a pooler stands before the database: calls are transactions, and no statement is prepared")

    async def _connect(self) -> Connection:
        connection: Connection = await self._hosts.connect(
            dsn=self._options.dsn,
            timeout=self._options.connect_timeout,
            connection_class=Connection,
            statement_cache_size=self._statement_cache_size,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={"application_name": self._options.application_name},
        )
        return connection

    async def _is_pooled(self, connection: Connection) -> bool:
        """Returns whether a connection goes through a pooler, which gives clients its own process numbers."""
        # Without parameters, so nothing is prepared.
        found = await connection.execute(
            f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid():d}", timeout=self._options.connect_timeout
        )
        return bool(found != "SELECT 1")

    @property
    def _may_give_up_statements(self) -> bool:
        return self._options.statement_cache_size is None

    @property
    def _statement_cache_size(self) -> int:
        if self._options.statement_cache_size is not None:
            return self._options.statement_cache_size
        return 0 if self._noticed else CACHED_STATEMENTS
