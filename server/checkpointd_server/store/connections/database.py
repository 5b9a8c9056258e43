"""The database: statements by name, with timeouts, and retries if a connection died.

Every operation is one statement that names its tenant itself: no setting of a connection belongs to a tenant, so
nothing is reset when it is released, and a call is one round trip. Failures of a connection are retried on another one:
all operations of the store are safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, TypeVar

import asyncpg

from checkpointd_server.domain.errors import DatabaseFull, DatabaseUnavailable, DeadlineExceeded
from checkpointd_server.domain.metrics import StoreMetrics
from checkpointd_server.domain.tracing import Tracing, current_spans
from checkpointd_server.store.connections.connector import Connector
from checkpointd_server.store.connections.disk_space import DiskSpace
from checkpointd_server.store.connections.pool import Connection, Pool, close, terminate
from checkpointd_server.store.connections.queue import ConnectionQueue
from checkpointd_server.store.connections.watchdog import StatementWatchdog
from checkpointd_server.store.errors import HostUnreachable, Verdict, explain_setup, is_worth_waiting, judge
from checkpointd_server.store.options import StoreOptions

T = TypeVar("T")
Row = Mapping[str, Any]
"""A result row, by column name."""

_SETTINGS = {
    # After this time, waiting for a lock is retried on another free connection: waiting statements take turns, and
    # can't occupy all connections.
    "lock_timeout": "1s",
    # We never idle within a transaction, unless a server hangs behind a transaction pooler.
    "idle_in_transaction_session_timeout": "10s",
}
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; " + "; ".join(
    f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items()
)
"""Beginning of a call through a transaction pooler, where settings must end with the transaction."""

_PREPARE = "; ".join(
    [
        "SET plan_cache_mode = force_generic_plan",
        "SET jit = off",
        # All that is asked is looked up, row by row. While tables are tiny the planner sees no use in indexes, and the
        # plans stay.
        "SET enable_seqscan = off",
        "SET enable_hashjoin = off",
        "SET enable_mergejoin = off",
        # Each statement of a function must see the rows as they are once it has the lock.
        "SET default_transaction_isolation = 'read committed'",
        *(f"SET {name} = '{value}'" for name, value in _SETTINGS.items()),
        # The database notices a lost server host after some 10 s, as the watchdog does on this side.
        # It ignores these without TCP, or if its system lacks the option.
        "SET tcp_keepalives_idle = 5",
        "SET tcp_keepalives_interval = 2",
        "SET tcp_keepalives_count = 3",
        "SET tcp_user_timeout = '10s'",
    ]
)
"""The settings of a new connection."""
_PAUSES = (0.0, 0.05, 0.1, 0.25, 0.5)
"""Pauses before retries, in seconds."""
_RETURN_TIMEOUT = 5.0
"""How long a connection may take to become usable again after its call gave up, in seconds."""
_WAIT_PAUSE = 0.1
"""Pause between attempts to reach a database at startup, in seconds."""

_logger = logging.getLogger(__name__)


class Database:
    """The database on behalf of one tenant, or of none.

    The first parameter of every statement is its tenant. Row-level security is the second barrier: it shows and accepts
    only that tenant's rows.
    """

    def __init__(self, connections: Connections, tenant: str | None) -> None:
        self._connections = connections
        self._tenant = tenant
        self._first = () if tenant is None else (tenant,)

    @property
    def tenant(self) -> str | None:
        """The tenant, or None."""
        return self._tenant

    @property
    def queue(self) -> ConnectionQueue:
        """The queue of those who wait for a connection."""
        return self._connections.queue

    @property
    def metrics(self) -> StoreMetrics:
        """Counts of statements and commits."""
        return self._connections.metrics

    @property
    def is_traced(self) -> bool:
        """True if statements are traced."""
        return self._connections.tracing is not None

    async def fetch(
        self,
        statement: str,
        *args: object,
        timeout: float | None,
        ahead: float | None = None,
        reads: bool = False,
    ) -> Sequence[Row]:
        """Runs a statement by its name and returns all rows.

        Args:
            statement: Its name.
            args: Its parameters after the tenant.
            timeout: How long it may take, in seconds.
            ahead: Waits for a connection before all others, and only for so many seconds.
            reads: Whether it only reads. A value that PostgreSQL rejects is then our bug, not the caller's fault.

        Raises:
            DatabaseUnavailable: The database can't be reached or refuses to work.
            DeadlineExceeded: `timeout` passed; the statement was cancelled.
            Overloaded: No connection became free, or too many calls wait for one.
        """
        return await self._connections.run(statement, (*self._first, *args), timeout, ahead, reads, tenant=self._tenant)

    async def fetch_row(self, statement: str, *args: object, timeout: float | None, reads: bool = False) -> Row:
        """Runs a statement that always returns one row, and returns it. Raises as `fetch` does.

        Args:
            statement: Its name.
            args: Its parameters after the tenant.
            timeout: How long it may take, in seconds.
            reads: Whether it only reads. A value that PostgreSQL rejects is then our bug, not the caller's fault.
        """
        given = (*self._first, *args)
        (row,) = await self._connections.run(statement, given, timeout, reads=reads, tenant=self._tenant)
        return row

    async def fetch_value(self, statement: str, *args: object, timeout: float | None) -> Any:
        """Runs a statement that always returns one row, and returns its first column. Raises as `fetch` does."""
        (row,) = await self._connections.run(statement, (*self._first, *args), timeout, tenant=self._tenant)
        return next(iter(row.values()))


class Connections:
    """The connections to the database."""

    def __init__(self, options: StoreOptions, statements: Mapping[str, str], pool: Pool, connector: Connector) -> None:
        self._options = options
        self._statements = statements
        self._pool = pool
        self._connector = connector
        self.queue = ConnectionQueue(
            permits=options.pool_max_size, limit=options.max_queue, timeout=options.max_queue_seconds
        )
        """The queue for connections."""
        self.room = DiskSpace()
        """True if the database's disk has room."""
        self.metrics = StoreMetrics()
        """The counts of statements and commits."""
        self.tracing: Tracing | None = None
        """The tracer of statements."""
        self._counted = {name: self.metrics.statement(name) for name in statements}
        self._returning: set[asyncio.Task[None]] = set()
        self._watchdog = StatementWatchdog(
            connector.connect,
            delay=options.watch_interval,
            timeout=options.connect_timeout,
        )
        self._watching = asyncio.get_running_loop().create_task(self._watchdog.run())

    @property
    def pool(self) -> Pool:
        """The connections that there are."""
        return self._pool

    def of(self, tenant: str | None) -> Database:
        """Returns the database on behalf of a tenant. None: of no tenant, for statements without tenants' rows."""
        return Database(self, tenant)

    async def run(
        self,
        statement: str,
        args: Sequence[object],
        timeout: float | None,
        ahead: float | None = None,
        reads: bool = False,
        *,
        tenant: str | None = None,
    ) -> Sequence[Row]:
        """Runs a statement when it is the tenant's turn. Raises what `Database.fetch` raises.

        Args:
            statement: Its name.
            args: All its parameters.
            timeout: How long it may take, in seconds.
            ahead: Waits for a connection before all others, and only for so many seconds.
            reads: Whether it only reads. A value that PostgreSQL rejects is then our bug, not the caller's fault.
            tenant: The tenant whose turn it takes. None: of no tenant.
        """
        sql = self._statements[statement]
        failure: Exception | None = None
        verdict: Verdict | None = None
        pauses = iter(_PAUSES)
        again = False
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await self._attempt(statement, sql, args, tenant, ahead, again)
                    except Exception as error:
                        failure = error
                        verdict = judge(error, reads=reads)
                        if verdict is None:
                            raise
                        if isinstance(verdict.error, DatabaseFull):
                            self.room.mark_full()
                        if verdict.waits:
                            # It has waited for a lock for as long as it may occupy a connection. Others take turns.
                            again = True
                            self.metrics.lock_waits += 1
                            continue
                        pause = next(pauses, None)
                        if pause is None or not verdict.again or (verdict.once and pause > _PAUSES[0]):
                            raise verdict.error from error
                    self.metrics.retries += 1
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise DeadlineExceeded from (failure or error)
        finally:
            # Breaks a reference cycle: an error keeps this frame, with all arguments of the call.
            failure = verdict = None
        raise AssertionError("the last try returns or raises")

    async def _attempt(
        self,
        statement: str,
        sql: str,
        args: Sequence[object],
        tenant: str | None,
        ahead: float | None,
        again: bool,
    ) -> Sequence[Row]:
        begun = perf_counter()
        await self.queue.acquire(tenant, ahead=ahead, again=again)
        try:
            connection = await self._pool.acquire()
        except BaseException:
            self.queue.release()
            raise
        self._watchdog.watch(connection)
        spans = current_spans.get() if self.tracing is not None else ()
        span = self.tracing.statement(statement, spans) if self.tracing is not None and spans else None
        sent = perf_counter()
        self.metrics.pool_waits.observe(sent - begun)
        try:
            if connection.pooled:
                await connection.execute(_BEGIN)
                rows: Sequence[Row] = await connection.fetch(sql, *args)
                await connection.execute("COMMIT")
            else:
                rows = await connection.fetch(sql, *args)
            self._counted[statement].observe(perf_counter() - sent)
            if span is not None:
                span.end()
        except BaseException as error:
            if span is not None:
                span.end(type(error).__name__)
            verdict = judge(error) if isinstance(error, Exception) else None
            if verdict is not None and verdict.pooled:
                self._connector.notice_pooler()
            if verdict is not None and verdict.reconnect:
                self._expire(connection, verdict.error)
                terminate(connection)
            if not connection.pooled and isinstance(error, asyncpg.PostgresError):
                self._release(connection)  # the statement was answered
            else:
                # A call that gave up has no time to wait until the server has cancelled the statement.
                self._return_later(connection)
            raise
        finally:
            self._watchdog.unwatch(connection)
        if asyncio.get_running_loop().time() - connection.born > self._options.max_connection_age:
            self._return_later(connection, for_good=True)
        else:
            self._release(connection)
        return rows

    def _release(self, connection: Connection) -> None:
        self._pool.release(connection)
        self.queue.release()

    def _expire(self, dead: Connection, error: Exception) -> None:
        """Marks all connections to be replaced at their next use: if one died, the others usually did too."""
        if not self._pool.has_expired(dead):
            _logger.warning("replacing the database connections: %s", error)
            self.metrics.replaced_pools += 1
            self._pool.expire()

    def _return_later(self, connection: Connection, *, for_good: bool = False) -> None:
        task = asyncio.get_running_loop().create_task(self._return(connection, for_good))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _return(self, connection: Connection, for_good: bool) -> None:
        try:
            if for_good:
                await close(connection)
            elif not connection.is_closed():
                async with asyncio.timeout(_RETURN_TIMEOUT):
                    # The driver waits until the server has cancelled the statement.
                    await connection.execute("ROLLBACK" if connection.pooled else "SELECT 1")
        except Exception as error:
            _logger.debug("a connection could not be kept: %s", type(error).__name__)
            terminate(connection)
        finally:
            self._release(connection)
        if not for_good and connection.is_closed():
            # A host that was cut off refuses no connections. It shows only by not cancelling statements.
            self._expire(connection, DatabaseUnavailable("the database doesn't answer"))

    async def close(self) -> None:
        """Waits a while until the connections are released, and closes them."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        try:
            async with asyncio.timeout(2 * _RETURN_TIMEOUT):
                await asyncio.gather(*self._returning, return_exceptions=True)
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


async def keep_trying(options: StoreOptions, attempt: Callable[[], Awaitable[T]]) -> T:
    """Connects to a database that may still be starting, for up to `startup_timeout`. Raises SetupError."""
    loop = asyncio.get_running_loop()
    end = loop.time() + options.startup_timeout
    waiting = False
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not is_worth_waiting(error) or loop.time() + _WAIT_PAUSE > end:
                raise explain_setup(error, options) from error
            if not waiting:
                reason = str(error) if isinstance(error, HostUnreachable) else type(error).__name__
                _logger.warning("waiting up to %g s for the database: %s", options.startup_timeout, reason)
                waiting = True
        await asyncio.sleep(_WAIT_PAUSE)


@asynccontextmanager
async def open_connections(options: StoreOptions, statements: Mapping[str, str]) -> AsyncIterator[Connections]:
    """Opens a pool. Raises SetupError if the database can't be connected to."""
    connector = Connector(options)

    async def make() -> Connection:
        connection = await connector.connect()
        try:
            connection.born = asyncio.get_running_loop().time()
            if not connection.pooled:
                # A statement is planned once: planning a put takes longer than running it. None is worth compiling.
                # Not through a transaction pooler: a SET would affect other clients, and there are no plans to keep.
                await connection.execute(_PREPARE, timeout=options.connect_timeout)
        except BaseException:
            terminate(connection)
            raise
        return connection

    async def open_pool() -> Pool:
        pool = Pool(make, min_size=options.pool_min_size, max_idle=options.max_idle_time)
        await pool.open()
        return pool

    connections = Connections(options, statements, await keep_trying(options, open_pool), connector)
    try:
        yield connections
    finally:
        await connections.close()
