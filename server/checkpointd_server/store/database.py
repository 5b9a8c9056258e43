"""The database, as the store's verbs see it: work on a connection, bounded in time, tried again where it died.

What is SET on a connection is the same for all but for the tenant that it acts for, which is set when another one's
turn comes; so nothing is reset when a connection comes back, and a call that is one statement is one round trip. What
fails for reasons that lie in the connection is tried again on another; the store's verbs are all safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import asyncpg

from checkpointd_server.domain.errors import CheckpointdError, DatabaseUnavailable, DeadlineExceeded
from checkpointd_server.store.errors import HostUnreachable, Verdict, explain_setup, is_worth_waiting, judge
from checkpointd_server.store.hosts import Hosts
from checkpointd_server.store.line import Line
from checkpointd_server.store.liveness import Watch
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.pool import Connection, Pool, close, terminate

T = TypeVar("T")
Row = Mapping[str, Any]
"""A result row, by column name."""
Isolation = Literal["read_committed", "repeatable_read"]

_PAUSES = (0.0, 0.05, 0.1, 0.25, 0.5)
"""How long to wait before each further try, in seconds."""
_RETURN_TIMEOUT = 5.0
"""How long a connection that a call gave up on may take to become usable again, in seconds."""
_WAIT_PAUSE = 0.1
"""How long to wait between two tries to reach a database at the start, in seconds."""

_logger = logging.getLogger(__name__)


class Session:
    """A connection, for as long as a call has it."""

    def __init__(self, connection: Any, statements: Mapping[str, str]) -> None:
        self._connection = connection
        self._statements = statements

    async def fetch(self, statement: str, *args: object) -> list[Row]:
        """Runs a statement by its name and returns all rows."""
        rows: list[Row] = await self._connection.fetch(self._statements[statement], *args)
        return rows

    async def fetch_row(self, statement: str, *args: object) -> Row | None:
        """Runs a statement by its name and returns its first row."""
        row: Row | None = await self._connection.fetchrow(self._statements[statement], *args)
        return row

    async def fetch_value(self, statement: str, *args: object) -> Any:
        """Runs a statement by its name and returns the first column of its first row, or None."""
        return await self._connection.fetchval(self._statements[statement], *args)


class _Transaction:
    """A transaction that can begin in the name of a tenant, without a round trip more."""

    def __init__(self, connection: Any, isolation: Isolation, first: str | None = None) -> None:
        self._connection = connection
        self._begin = f"BEGIN ISOLATION LEVEL {isolation.replace('_', ' ')};"
        if first is not None:
            self._begin += f" {first}"

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        await self._connection.execute("COMMIT;")


class Database:
    """The database, as the verbs of the store see it: in the name of one tenant.

    Every statement says itself which tenant's rows it is about. Row-level security is the second wall: it shows and
    takes no other rows than those of the tenant that the connection acts for.
    """

    def __init__(self, connections: Connections, tenant: str | None) -> None:
        self._connections = connections
        self._tenant = tenant

    @property
    def line(self) -> Line:
        """Who waits for a connection."""
        return self._connections.line

    async def run(
        self,
        work: Callable[[Session], Awaitable[T]],
        *,
        timeout: float | None,
        ahead: float | None = None,
        reads: bool = False,
    ) -> T:
        """Does work whose statements each stand for themselves, on one connection.

        Args:
            work: What to do.
            timeout: How long it may take, in seconds.
            ahead: Waits for a connection before all others, and only for so many seconds.
            reads: Whether it stores nothing.

        Raises:
            DatabaseUnavailable: The database can't be reached or refuses to work.
            DeadlineExceeded: `timeout`, in seconds, passed; what ran on the server was cancelled.
            Overloaded: No connection became free, or too many wait for one already.
        """
        return await self._connections.run(work, None, self._tenant, timeout, ahead, reads)

    async def transact(
        self, work: Callable[[Session], Awaitable[T]], *, timeout: float | None, isolation: Isolation = "read_committed"
    ) -> T:
        """Does work in one transaction. It may be done more than once, where earlier tries were rolled back."""
        return await self._connections.run(work, isolation, self._tenant, timeout)


class Connections:
    """The connections to the database."""

    def __init__(self, options: StoreOptions, statements: Mapping[str, str], pool: Pool, hosts: Hosts) -> None:
        self._options = options
        self._statements = statements
        self._pool = pool
        self.line = Line(turns=options.pool_max_size, limit=options.max_queue, patience=options.max_queue_seconds)
        """Who waits for a connection."""
        self._returning: set[asyncio.Task[None]] = set()
        self._watch = Watch(
            lambda: hosts.connect(**connect_arguments(options)),
            patience=options.watch_interval,
            timeout=options.connect_timeout,
        )
        self._watching = asyncio.get_running_loop().create_task(self._watch.run())

    def of(self, tenant: str | None) -> Database:
        """The database in the name of a tenant; None: of nobody, for what concerns no tenant's rows."""
        return Database(self, tenant)

    async def run(
        self,
        work: Callable[[Session], Awaitable[T]],
        isolation: Isolation | None,
        tenant: str | None,
        timeout: float | None,
        ahead: float | None = None,
        reads: bool = False,
    ) -> T:
        """Does work in the name of a tenant, in a transaction if isolated. Raises what `Database` raises."""
        failure: Exception | None = None
        verdict: Verdict | None = None
        try:
            async with asyncio.timeout(timeout):
                for pause in (*_PAUSES, None):
                    try:
                        return await self._attempt(work, isolation, tenant, ahead)
                    except Exception as error:
                        failure = error
                        verdict = judge(error, reads=reads)
                        if verdict is None:
                            raise
                        if pause is None or not verdict.again:
                            raise verdict.error from error
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise DeadlineExceeded from (failure or error)
        finally:
            # An error keeps this frame, and all that the call was given. Kept by it in turn, it would stay.
            failure = verdict = None
        raise AssertionError("the last try returns or raises")

    async def _attempt(
        self,
        work: Callable[[Session], Awaitable[T]],
        isolation: Isolation | None,
        tenant: str | None,
        ahead: float | None,
    ) -> T:
        await self.line.enter(ahead=ahead)
        try:
            connection = await self._pool.acquire()
        except BaseException:
            self.line.leave()
            raise
        transaction: _Transaction | None = None
        try:
            session = Session(connection, self._statements)
            with self._watch.over(connection):
                if connection.pooled:
                    # Every call is a transaction that says whom it acts for: the next may get another connection.
                    transaction = _Transaction(connection, isolation or "read_committed", self._acting_for(tenant))
                    await transaction.start()
                else:
                    if tenant is not None and connection.tenant != tenant:
                        connection.tenant = None
                        await session.fetch_value("act_for", tenant)
                        connection.tenant = tenant
                    if isolation is not None:
                        transaction = _Transaction(connection, isolation)
                        await transaction.start()
                result = await work(session)
                if transaction is not None:
                    await transaction.commit()
        except BaseException as error:
            verdict = judge(error) if isinstance(error, Exception) else None
            if verdict is not None and verdict.reconnect:
                self._expire(connection, verdict.error)
                terminate(connection)
            if transaction is None and isinstance(error, CheckpointdError | asyncpg.PostgresError):
                self._release(connection)  # the statement was answered
            else:
                # What gave up has no time to wait for the server to let go of the statement.
                self._return_later(connection, in_transaction=transaction is not None)
            raise
        if asyncio.get_running_loop().time() - connection.born > self._options.max_connection_age:
            self._return_later(connection, for_good=True)
        else:
            self._release(connection)
        return result

    def _release(self, connection: Connection) -> None:
        self._pool.release(connection)
        self.line.leave()

    def _acting_for(self, tenant: str | None) -> str | None:
        """The statement that lets a transaction act for a tenant. In hexadecimal a name can't be anything else."""
        if tenant is None:
            return None
        return self._statements["act_for_in_transaction"].replace("__tenant__", tenant.encode().hex())

    def _expire(self, dead: Connection, error: Exception) -> None:
        """Has all connections replaced, each when it is wanted next: where one died, the others most often did too."""
        if not self._pool.has_expired(dead):
            _logger.warning("replacing the database connections: %s", error)
            self._pool.expire()

    def _return_later(self, connection: Connection, *, in_transaction: bool = False, for_good: bool = False) -> None:
        task = asyncio.get_running_loop().create_task(self._return(connection, in_transaction, for_good))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _return(self, connection: Connection, in_transaction: bool, for_good: bool) -> None:
        try:
            if for_good:
                await close(connection)
            elif not connection.is_closed():
                async with asyncio.timeout(_RETURN_TIMEOUT):
                    # The driver waits until the server has let go of the statement.
                    if in_transaction:
                        await connection.execute("ROLLBACK")
                    else:
                        await connection.execute("SELECT 1")
        except Exception as error:
            _logger.debug("a connection could not be kept: %s", type(error).__name__)
            terminate(connection)
        finally:
            self._release(connection)
        if not for_good and connection.is_closed():
            # A host that was cut off refuses nothing. That it let go of no statement is all that is seen of it.
            self._expire(connection, DatabaseUnavailable("the database doesn't answer"))

    async def close(self) -> None:
        """Waits for the connections to come back, for a while, and closes them."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        try:
            async with asyncio.timeout(2 * _RETURN_TIMEOUT):
                await asyncio.gather(*self._returning, return_exceptions=True)
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


def connect_arguments(options: StoreOptions) -> dict[str, Any]:
    """Returns what the driver is told of each connection."""
    return {
        "dsn": options.dsn,
        "timeout": options.connect_timeout,
        "statement_cache_size": options.statement_cache_size,
        "max_cached_statement_lifetime": 0,
        "max_cacheable_statement_size": 0,
        "server_settings": {"application_name": options.application_name},
    }


async def keep_trying(options: StoreOptions, attempt: Callable[[], Awaitable[T]]) -> T:
    """Connects to a database that may just be starting, for up to `startup_timeout`. Raises SetupError."""
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

    hosts = Hosts()

    async def make() -> Connection:
        connection: Connection = await hosts.connect(connection_class=Connection, **connect_arguments(options))
        try:
            connection.born = asyncio.get_running_loop().time()
            # A pooler gives its clients numbers of its own.
            server_pid = await connection.fetchval("SELECT pg_backend_pid()", timeout=options.connect_timeout)
            connection.pooled = not options.statement_cache_size or server_pid != connection.get_server_pid()
            if options.statement_cache_size:
                # A statement is planned once: planning a put takes longer than running it. And none is worth compiling.
                # Behind a transaction pooler, where a SET would reach other clients, there is no plan to keep either.
                await connection.execute(
                    "SET plan_cache_mode = force_generic_plan; SET jit = off; "
                    # A function in a statement has to see what became of rows since the statement began.
                    "SET default_transaction_isolation = 'read committed'",
                    timeout=options.connect_timeout,
                )
        except BaseException:
            terminate(connection)
            raise
        return connection

    async def open_pool() -> Pool:
        pool = Pool(make, min_size=options.pool_min_size, max_idle=options.max_idle_time)
        await pool.open()
        return pool

    connections = Connections(options, statements, await keep_trying(options, open_pool), hosts)
    try:
        yield connections
    finally:
        await connections.close()
