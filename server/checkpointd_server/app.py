"""The server from start to stop: database, schema, store and RPCs; stopped in the opposite order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from checkpointd_server import __version__, store
from checkpointd_server.config import DatabaseConfig, ServeConfig, default_data_dir
from checkpointd_server.domain.errors import CheckpointdError, DatabaseUnavailable, Overloaded, SetupError
from checkpointd_server.domain.metrics import UpkeepMetrics
from checkpointd_server.domain.retention import RetentionAction, RetentionEffect, RetentionOutcome
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.tracing import Tracing
from checkpointd_server.embedded_postgres.data_directory import DataDirectory
from checkpointd_server.embedded_postgres.server import EmbeddedPostgres
from checkpointd_server.observability.endpoint import serve_metrics
from checkpointd_server.observability.exporting import exporting_traces
from checkpointd_server.observability.families import Snapshot
from checkpointd_server.observability.snapshot import ServerSnapshots
from checkpointd_server.process.file_descriptors import room_for_clients
from checkpointd_server.process.signals import StopSignals
from checkpointd_server.rpc import RpcServer, ServerOptions, check_access, check_address, check_exposure
from checkpointd_server.rpc.calls.audit import LOGGER as AUDIT_LOGGER
from checkpointd_server.store import Migration, SchemaStatus, StoreOptions

GC_SECONDS = 60.0
"""How often garbage is collected, in seconds."""
RETENTION_SECONDS = 15.0
"""The maximum pause between searches for due tenants, in seconds."""
PROBE_SECONDS = 2.0
"""The interval and timeout of checks of the database, in seconds."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The database in use."""

    url: str = field(repr=False)
    """Its URL."""
    wait_stopped: Callable[[], Awaitable[str]] | None = None
    """For the embedded PostgreSQL: waits for its unexpected end and returns why."""


class WorkerPlace(Protocol):
    """A server's place among several processes on the same ports."""

    @property
    def number(self) -> int:
        """Its number, from 1 on."""

    async def answer(self, take: Callable[[], Awaitable[Snapshot]]) -> None:
        """Sends the parent process a snapshot whenever it asks for one, until cancelled."""


async def serve(
    config: ServeConfig, *, announce: Callable[[Sequence[str]], None], worker: WorkerPlace | None = None
) -> None:
    """Serves until a signal asks to stop.

    Args:
        config: The settings.
        announce: Called once when the server serves, with its addresses.
        worker: Set if other processes listen on the same ports: this process among them.

    Raises:
        SetupError: A setting can't be used as it is.
        DatabaseUnavailable: The database didn't come up in time, or the embedded one stopped.
    """
    _log.info("starting", version=__version__)
    shared = worker is not None
    with StopSignals() as signals, exporting_traces(config.traces) as tracing:
        try:
            check(config, shared=shared)
            async with open_database(config.database) as database:
                if config.migrate:
                    await bring_up_to_date(config, database)
                async with store.open_store(_store_options(config, database)) as opened:
                    opened.connections.tracing = tracing
                    await _serve(config, opened, database, signals, announce, shared, worker, tracing)
        except asyncio.CancelledError:
            if not signals.received:
                raise
        _log.info("stopped")


def check(config: ServeConfig, *, shared: bool) -> None:
    """Raises SetupError if the server can't serve, before anything is created or migrated."""
    check_access(config.access)
    addresses = [address for address in (*config.listen, *config.health_listen) if not address.endswith(":0")]
    if repeated := next((address for address in addresses if addresses.count(address) > 1), None):
        raise SetupError(f"can't listen on {repeated} twice: give --listen and --health-listen an address each")
    for address in config.listen:
        check_address(address, shared=shared)  # first: the other checks need valid addresses
        check_exposure(address, config.access)
    for address in config.health_listen:
        check_address(address, shared=shared)


async def bring_up_to_date(config: ServeConfig, database: Database) -> None:
    """Migrates the schema, if there is anything to do. Raises what `migrate` raises."""
    for migration in await store.migrate(_store_options(config, database)):
        _log.info("migrated the schema", number=migration.number, name=migration.name)


async def migrate(config: DatabaseConfig) -> list[Migration]:
    """Brings the schema up to date and returns the migrations that were applied.

    Raises:
        SetupError: A setting can't be used as it is.
        DatabaseUnavailable: The database didn't come up in time.
    """
    async with open_database(config) as database:
        options = StoreOptions(
            dsn=database.url,
            schema=config.schema,
            startup_timeout=config.wait_seconds,
            vector_indexes=config.vector_indexes,
        )
        return await store.migrate(options)


async def schema_status(config: DatabaseConfig) -> SchemaStatus:
    """Returns which migrations a database has and lacks. Raises as `migrate` does."""
    async with open_database(config) as database:
        options = StoreOptions(dsn=database.url, schema=config.schema, startup_timeout=config.wait_seconds)
        return await store.schema_status(options)


async def _serve(
    config: ServeConfig,
    opened: store.PostgresStore,
    database: Database,
    signals: StopSignals,
    announce: Callable[[Sequence[str]], None],
    shared: bool,
    worker: WorkerPlace | None,
    tracing: Tracing | None,
) -> None:
    server = RpcServer(
        opened,
        ServerOptions(
            listen=config.listen,
            health_listen=config.health_listen,
            access=config.access,
            limits=config.limits,
            max_concurrent_calls=config.max_concurrent_calls,
            max_bytes_in_flight=config.max_bytes_in_flight,
            default_timeout=config.default_timeout,
            max_timeout=config.max_timeout,
            max_connections=room_for_clients(config.max_connections, database_connections=config.pool_max_size),
            max_wasted_calls=config.max_wasted_calls,
            slow_call_seconds=config.slow_call_seconds or None,
            warn_checkpoint_bytes=config.warn_checkpoint_bytes,
            quotas=config.quotas,
            quota_refresh=config.quota_refresh_seconds,
            reflection=config.reflection,
            so_reuseport=shared,
        ),
        tracing,
    )
    upkeep = UpkeepMetrics()
    snapshots = ServerSnapshots(server, opened, upkeep, worker=worker.number if worker else 0)
    try:
        addresses = await server.start()
        await opened.check(timeout=config.default_timeout)
        if config.access.asks_who_calls and not await opened.is_bound_by_row_security(timeout=config.default_timeout):
            _log.warning(
                "the database's role is a superuser or has BYPASSRLS: row-level security doesn't keep tenants apart"
            )
        server.set_serving(True)
        _log.info("serving", addresses=list(addresses))
        async with serve_metrics(config.metrics_listen, snapshots.take):
            announce(addresses)
            await first_of(
                signals.await_request(),
                _report_health(opened, server, upkeep),
                _collect(opened, upkeep),
                _retain(opened, upkeep, config.retention_interval),
                fail_when_lost(database),
                _fail_when_deaf(server),
                *((worker.answer(snapshots.take),) if worker else ()),
            )
        await server.drain(config.drain_seconds)
    except BaseException:
        await server.drain(0)
        raise


async def first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Waits for the first to end, raises what it raised, and cancels the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _report_health(opened: CheckpointStore, server: RpcServer, upkeep: UpkeepMetrics) -> None:
    """Updates the health status by checking the database, until cancelled."""
    serving, reason = True, ""
    while True:
        await asyncio.sleep(PROBE_SECONDS)
        was_serving = serving
        try:
            await opened.check(timeout=PROBE_SECONDS)
            serving, reason = True, ""
        except Overloaded:
            pass  # it is too busy to be checked, which doesn't mean that it is unreachable
        except Exception as error:  # whatever it is, a server that can't reach its database isn't serving
            known = isinstance(error, CheckpointdError)
            before, reason = reason, str(error) if known else "the database can't be asked"
            serving = False
            if reason != before:
                _log.warning("not serving", reason=reason, exc_info=not known)
        if serving and not was_serving:
            _log.info("serving again")
        server.set_serving(serving, reason)
        upkeep.database_is_up = serving


async def _collect(opened: store.PostgresStore, upkeep: UpkeepMetrics) -> None:
    """Collects garbage, such as abandoned uploads, until cancelled."""
    while True:
        await asyncio.sleep(GC_SECONDS)
        try:
            while threads := await opened.run_gc():
                upkeep.gc_threads += threads
            upkeep.gc_runs += 1
        except Exception as error:  # whatever it is, the server serves without
            upkeep.gc_failures += 1
            known = isinstance(error, CheckpointdError)
            reason = str(error) if known else type(error).__name__
            _log.warning("what nobody comes for any more is left for later", reason=reason, exc_info=not known)


async def _retain(opened: store.PostgresStore, upkeep: UpkeepMetrics, interval: float) -> None:
    """Applies retention policies, unless another server does, until cancelled."""
    if not interval:
        await asyncio.Event().wait()
    audit = structlog.get_logger(AUDIT_LOGGER)

    def tell(tenant: str, effect: RetentionEffect) -> None:
        if effect.outcome is RetentionOutcome.DONE or effect.checkpoints:
            fields = {"thread_id": effect.thread_id, "reason": effect.reason, "deleted_checkpoints": effect.checkpoints}
            action = "RetentionDeletedThread" if effect.action is RetentionAction.DELETE else "RetentionTrimmedThread"
            if effect.outcome is not RetentionOutcome.HELD:
                audit.info("audit", action=action, outcome="OK", tenant=tenant, policy=effect.policy, **fields)

    while True:
        await asyncio.sleep(min(interval, RETENTION_SECONDS))
        try:
            report = await opened.sweep(tell)
        except Exception as error:  # whatever it is, the server serves without
            upkeep.retention_failures += 1
            known = isinstance(error, CheckpointdError)
            reason = str(error) if known else type(error).__name__
            _log.warning("retention is left for later", reason=reason, exc_info=not known)
        else:
            upkeep.retention_runs += report.has_run
            upkeep.retention_threads += report.threads
            upkeep.retention_checkpoints += report.checkpoints


async def fail_when_lost(database: Database) -> None:
    """Raises DatabaseUnavailable when the embedded PostgreSQL ends by itself. Ignores other databases."""
    if database.wait_stopped is None:
        await asyncio.Event().wait()
    else:
        raise DatabaseUnavailable(f"the embedded PostgreSQL stopped by itself: {await database.wait_stopped()}")


async def _fail_when_deaf(server: RpcServer) -> None:
    """Raises DeafServer when gRPC stops accepting calls: the process's supervisor restarts it."""
    await server.fail_when_deaf()


def describe_database(config: DatabaseConfig) -> str:
    """Describes the database without its login."""
    if config.url is not None:
        return store.database_of(config.url)
    return f"the embedded PostgreSQL in {DataDirectory(config.data_dir or default_data_dir()).path}"


@asynccontextmanager
async def open_database(config: DatabaseConfig) -> AsyncIterator[Database]:
    """Yields the configured database, or runs the embedded one while entered."""
    if config.url is not None:
        yield Database(url=config.url)
    else:
        async with EmbeddedPostgres(config.data_dir or default_data_dir()) as postgres:
            yield Database(url=postgres.dsn, wait_stopped=postgres.wait_stopped)


def _store_options(config: ServeConfig, database: Database) -> StoreOptions:
    return StoreOptions(
        dsn=database.url,
        schema=config.database.schema,
        startup_timeout=config.database.wait_seconds,
        vector_indexes=config.database.vector_indexes,
        pool_max_size=config.pool_max_size,
        max_queue=config.max_queue,
        max_queue_seconds=config.max_queue_seconds,
        statement_cache_size=config.statement_cache_size,
        sweep_interval=config.retention_interval,
        sweep_batch=config.retention_batch,
        limits=config.limits.fitting(),
    )
