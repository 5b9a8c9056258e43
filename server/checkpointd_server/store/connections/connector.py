"""Making connections to the database, and noticing a pooler that stands before it."""

from __future__ import annotations

import logging

import asyncpg

from checkpointd_server.store.connections.hosts import Hosts
from checkpointd_server.store.connections.pool import Connection, terminate
from checkpointd_server.store.options import StoreOptions

CACHED_STATEMENTS = 1024
"""How many prepared statements a connection keeps where nobody says otherwise, and no pooler stands between."""

_CLASHES = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""Errors of prepared statements behind a pooler that doesn't know them: one exists already, or no longer."""

_logger = logging.getLogger(__name__)


class Connector:
    """Connects to the database. Once it has noticed a pooler, connections prepare no statements.

    PgBouncer and its like may hand every transaction to another server connection, where what was prepared isn't, or is
    somebody else's.

    Args:
        options: Where the database is. With a `statement_cache_size` of its own that one stays, pooler or not.
        tells: Whether the log is told of a pooler.
    """

    def __init__(self, options: StoreOptions, *, tells: bool = True) -> None:
        self._options = options
        self._hosts = Hosts()
        self._tells = tells
        self._noticed = False

    async def connect(self) -> Connection:
        """Makes a connection, and says of it whether a pooler stands between. Raises what the driver raises."""
        try:
            connection = await self._connect()
        except _CLASHES:  # the driver asks a host first whether it is a primary, by a prepared statement
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
        """Has further connections prepare no statements, unless the options say how many, and says so once."""
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
        """Returns whether a pooler stands between: it gives its clients numbers of its own."""
        # Without parameters, so that nothing is prepared.
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
