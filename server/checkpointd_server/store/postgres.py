"""The checkpoint store on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from checkpointd_server.domain.checkpoints import (
    DeltaHistory,
    Known,
    ListQuery,
    Namespace,
    Page,
    PendingWrite,
    PutCheckpoint,
    PutWrites,
    ReadResult,
)
from checkpointd_server.domain.errors import DatabaseFull, DatabaseUnavailable, DeadlineExceeded
from checkpointd_server.domain.leases import AcquireLease, Lease, LeaseState
from checkpointd_server.domain.retention import RetentionEffect, SweepReport
from checkpointd_server.domain.thread_lists import (
    Node,
    NodePosition,
    Thread,
    ThreadChange,
    ThreadCount,
    ThreadFilter,
    ThreadPage,
    ThreadPosition,
)
from checkpointd_server.domain.thread_store import NO_LEASES
from checkpointd_server.domain.threads import CopyThread, PruneStrategy
from checkpointd_server.domain.values import ChannelValueKey, TaskWriteKey, ValueRange
from checkpointd_server.store import delta_history, reads, thread_lists, threads, values
from checkpointd_server.store.connections.database import Connections, Database, open_connections
from checkpointd_server.store.errors import lacking_rights
from checkpointd_server.store.gc import run_gc, sweep_items
from checkpointd_server.store.items.features import ItemFeatures
from checkpointd_server.store.items.rankings import ranking_statements
from checkpointd_server.store.items.tenant import TenantItems
from checkpointd_server.store.leases import Leases
from checkpointd_server.store.migrations import check_schema
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.retention.retention import Retention
from checkpointd_server.store.retention.sweeper import Sweeper
from checkpointd_server.store.retention.thread_times import ThreadTimes
from checkpointd_server.store.statements import load_statements
from checkpointd_server.store.tenant_store import PostgresTenants
from checkpointd_server.store.writes.group_commit import GroupCommit

GC_TIMEOUT = 10.0
"""How long collecting one thread's garbage may take, in seconds."""

MAX_TENANTS = 1000
"""Number of tenants that a store remembers. Beyond it, those with nothing in flight are forgotten."""


class TableSize(NamedTuple):
    """The size of a table."""

    name: str
    bytes: int
    """On disk, with indexes and TOAST."""
    rows: int
    """Approximate number of rows at the last ANALYZE or VACUUM; 0 before."""


class _Tenant:
    """The parts of a store for one tenant. Tenants share no commit: a transaction acts for one of them."""

    def __init__(
        self,
        connections: Connections,
        name: str,
        options: StoreOptions,
        features: ItemFeatures,
        times: ThreadTimes,
    ) -> None:
        self.database = database = connections.of(name)
        self.commits = GroupCommit(database, options.limits, times)
        self.leases = Leases(database)
        self.items = TenantItems(connections, database, features, options.max_queue)

    @property
    def is_idle(self) -> bool:
        return self.commits.is_idle and self.leases.is_idle and self.items.is_idle


class PostgresStore:
    """A CheckpointStore on PostgreSQL; `open_store` creates one. Many servers may share one database.

    CheckpointStore describes the arguments, results and errors of its methods.
    """

    def __init__(self, connections: Connections, options: StoreOptions, features: ItemFeatures | None = None) -> None:
        self._connections = connections
        self.id = ""
        """A UUID that identifies the store, created with the schema. Servers on one database share it."""
        self._options = options
        self._features = features or ItemFeatures()
        self._limits = options.limits
        self._tenants: dict[str, _Tenant] = {}
        self.tenants = PostgresTenants(connections)
        """The store of tenants."""
        self._times = ThreadTimes(connections, self._database_of)
        self._sweeper = Sweeper(connections, options)
        self.retention = Retention(connections, self._database_of, options)
        """Retention policies, and manual runs."""

    def _of(self, tenant: str) -> _Tenant:
        found = self._tenants.get(tenant)
        if found is None:
            if len(self._tenants) >= MAX_TENANTS:
                self._tenants = {name: known for name, known in self._tenants.items() if not known.is_idle}
            found = _Tenant(self._connections, tenant, self._options, self._features, self._times)
            self._tenants[tenant] = found
        return found

    def _database_of(self, tenant: str) -> Database:
        return self._of(tenant).database

    def submit(self, writes: Sequence[PendingWrite]) -> None:
        """Takes writes of one tenant, in order; hands each back by its `deliver` once it is stored or refused."""
        if writes:
            self._of(writes[0].write.namespace.tenant).commits.submit(writes)

    async def write(self, write: PutCheckpoint | PutWrites, *, timeout: float | None) -> int:
        """Stores one write and returns its namespace's version. Raises the errors that `submit` delivers.

        If the call is cancelled, nothing of it is stored unless its commit has begun.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        deadline = None if timeout is None else loop.time() + timeout
        pending = PendingWrite(write, write.size, deadline, _wake, done)
        self.submit([pending])
        try:
            await done
        except asyncio.CancelledError:
            pending.result = pending.result or DeadlineExceeded()
            raise
        if isinstance(pending.result, int):
            return pending.result
        assert pending.result is not None
        raise pending.result

    async def get_checkpoint(
        self, namespace: Namespace, checkpoint_id: str | None, *, known: Known = (), timeout: float | None
    ) -> ReadResult:
        """Reads the checkpoint with this id, or the latest if None, without known values."""
        return await reads.get_checkpoint(
            self._of(namespace.tenant).database,
            namespace,
            checkpoint_id,
            known=known,
            max_bytes=self._limits.max_inline_bytes,
            timeout=timeout,
        )

    async def get_metadata_index(
        self, namespace: Namespace, checkpoint_id: str, *, timeout: float | None
    ) -> str | None:
        """Reads the searchable part of a checkpoint's metadata: a JSON object, as text. None: not found."""
        database = self._of(namespace.tenant).database
        return await reads.get_metadata_index(database, namespace, checkpoint_id, timeout=timeout)

    async def put_part(
        self, tenant: str, thread_id: str, upload_id: bytes, offset: int, data: bytes, *, timeout: float | None
    ) -> None:
        """Stores a part of an upload before its put. An upload that nothing names after a while is deleted."""
        await values.put_part(
            self._of(tenant).database,
            tenant,
            thread_id,
            upload_id,
            offset,
            data,
            grace_seconds=self._options.upload_grace,
            timeout=timeout,
        )

    async def get_value(
        self,
        namespace: Namespace,
        key: ChannelValueKey | TaskWriteKey,
        *,
        offset: int,
        max_bytes: int,
        timeout: float | None,
    ) -> ValueRange | None:
        """Reads a range of a stored value's bytes, or of a patch's instructions. None: not found."""
        database = self._of(namespace.tenant).database
        return await values.get_value(database, namespace, key, offset=offset, max_bytes=max_bytes, timeout=timeout)

    async def run_gc(self) -> int:
        """Collects abandoned uploads, empty rows and expired items. Returns how many threads it checked."""
        await sweep_items(self._connections, timeout=GC_TIMEOUT)
        return await run_gc(self._connections, grace_seconds=self._options.upload_grace, timeout=GC_TIMEOUT)

    async def list_checkpoints(self, query: ListQuery, *, timeout: float | None) -> Page:
        """Reads a page of checkpoints, newest first."""
        database = self._of(query.tenant).database
        return await reads.list_checkpoints(database, query, max_bytes=self._limits.max_inline_bytes, timeout=timeout)

    async def get_delta_history(
        self,
        namespace: Namespace,
        checkpoint_id: str | None,
        channels: Sequence[str],
        *,
        after: str | None = None,
        page_bytes: int,
        timeout: float | None,
    ) -> DeltaHistory:
        """Walks the ancestors of a checkpoint (None: the latest) for writes and seeds of channels, a page per call."""
        return await delta_history.get_delta_history(
            self._of(namespace.tenant).database,
            namespace,
            checkpoint_id,
            channels,
            after=after,
            page_bytes=page_bytes,
            max_bytes=self._limits.max_inline_bytes,
            timeout=timeout,
        )

    async def delete_thread(
        self, tenant: str, thread_id: str, *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes a thread and returns how many checkpoints it had. Raises LeaseHeld, LeaseLost."""
        database = self._of(tenant).database
        return await threads.delete_threads(database, tenant, [thread_id], leases=leases, timeout=timeout)

    async def delete_runs(
        self, tenant: str, run_ids: Sequence[str], *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes the checkpoints of runs and returns how many there were. Raises LeaseHeld, LeaseLost."""
        return await threads.delete_runs(self._of(tenant).database, tenant, run_ids, leases=leases, timeout=timeout)

    async def copy_thread(self, copy: CopyThread, *, timeout: float | None) -> int:
        """Copies a thread and returns how many checkpoints were copied.

        Raises ThreadExists, CheckpointNotFound, LeaseHeld, LeaseLost.
        """
        return await threads.copy_thread(self._of(copy.tenant).database, copy, timeout=timeout)

    async def prune_threads(
        self,
        tenant: str,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
        *,
        leases: Mapping[str, int] = NO_LEASES,
        timeout: float | None,
    ) -> int:
        """Removes history from threads and returns how many checkpoints were deleted. Raises LeaseHeld, LeaseLost."""
        database = self._of(tenant).database
        return await threads.prune_threads(database, tenant, thread_ids, strategy, leases=leases, timeout=timeout)

    async def list_threads(
        self,
        tenant: str,
        wanted: ThreadFilter,
        *,
        after: ThreadPosition | None,
        page_size: int,
        page_bytes: int,
        timeout: float | None,
    ) -> ThreadPage:
        """Reads a page of threads, latest activity first."""
        database = self._of(tenant).database
        return await thread_lists.list_threads(
            database, wanted, after=after, page_size=page_size, page_bytes=page_bytes, timeout=timeout
        )

    async def count_threads(self, tenant: str, wanted: ThreadFilter, *, timeout: float | None) -> ThreadCount:
        """Counts threads up to a limit."""
        return await thread_lists.count_threads(self._of(tenant).database, wanted, timeout=timeout)

    async def get_thread(self, tenant: str, thread_id: str, *, timeout: float | None) -> Thread:
        """Reads what lists show of a thread. Raises ThreadNotFound."""
        return await thread_lists.get_thread(self._of(tenant).database, tenant, thread_id, timeout=timeout)

    async def list_nodes(
        self, tenant: str, thread_id: str, *, after: NodePosition | None, page_size: int, timeout: float | None
    ) -> tuple[list[Node], NodePosition | None]:
        """Reads a page of a thread's checkpoints without their contents, and where the next page starts."""
        database = self._of(tenant).database
        return await thread_lists.list_nodes(
            database, tenant, thread_id, after=after, page_size=page_size, timeout=timeout
        )

    async def archive_thread(
        self, tenant: str, thread_id: str, *, archives: bool, lease: int, timeout: float | None
    ) -> bool:
        """Archives or unarchives a thread, and returns whether that changed anything."""
        database = self._of(tenant).database
        return await thread_lists.archive_thread(
            database, tenant, thread_id, archives=archives, lease=lease, timeout=timeout
        )

    async def update_thread(self, change: ThreadChange, *, timeout: float | None) -> None:
        """Changes tags, the pin and the time to live of a thread. Raises ThreadNotFound, InvalidArgument."""
        if change.ttl_seconds:
            await self._times.register(change.tenant)
        await thread_lists.update_thread(self._of(change.tenant).database, change, timeout=timeout)

    async def note_read(self, tenant: str, thread_id: str, *, timeout: float | None) -> None:
        """Records a read as use of a thread, which extends its time to live."""
        await self._times.note_read(tenant, thread_id, timeout=timeout)

    async def sweep(self, tell: Callable[[str, RetentionEffect], None]) -> SweepReport:
        """Applies the retention policies of due tenants, unless another server does.

        Args:
            tell: Called with the tenant and each deletion.
        """
        return await self._sweeper.sweep(tell)

    async def acquire_lease(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes the lease on a thread, or waits in the queue for it. Raises LeaseHeld when the time to wait is over."""
        return await self._of(acquire.tenant).leases.acquire(acquire, timeout=timeout)

    async def renew_lease(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease to `ttl` seconds from now. Raises LeaseLost."""
        return await self._of(tenant).leases.renew(tenant, thread_id, token, ttl=ttl, timeout=timeout)

    async def release_lease(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Releases a holder's lease or place in the queue, and returns whether it had the lease."""
        return await self._of(tenant).leases.release(tenant, thread_id, holder, timeout=timeout)

    async def get_lease(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Returns who may write to a thread."""
        return await self._of(tenant).leases.state(tenant, thread_id, timeout=timeout)

    @property
    def has_vectors(self) -> bool:
        """True if items can have vectors."""
        return self._features.has_vectors

    def items(self, tenant: str) -> TenantItems:
        """Returns the item store of a tenant."""
        return self._of(tenant).items

    @property
    def connections(self) -> Connections:
        """The connections to the database, and their counts."""
        return self._connections

    async def measure_tables(self, *, timeout: float | None) -> list[TableSize]:
        """Returns the size of each table with its indexes, and its approximate number of rows."""
        rows = await self._connections.of(None).fetch("measure_tables", timeout=timeout, reads=True)
        return [TableSize(row["name"], row["bytes"], max(row["rows"], 0)) for row in rows]

    async def is_bound_by_row_security(self, *, timeout: float | None) -> bool:
        """Returns whether row-level security applies: superusers are exempt."""
        return bool(await self._connections.of(None).fetch_value("row_security_binds", timeout=timeout))

    async def check(self, *, timeout: float | None) -> None:
        """Runs a small query, ahead of all others.

        Raises:
            DatabaseUnavailable: It fails, or the server's role lacks a right.
            DatabaseFull: The disk was full for a write, and still is.
            Overloaded: No connection became free in time.
        """
        ahead = None if timeout is None else timeout * 0.75
        database = self._connections.of(None)
        ((lacking,),) = [row.values() for row in await database.fetch("check", timeout=timeout, ahead=ahead)]
        if lacking:
            raise DatabaseUnavailable(lacking_rights(str(lacking)))
        room = self._connections.room
        if room.is_full:
            await database.fetch("check_room", timeout=timeout, ahead=ahead)
            room.mark_free()
            if room.is_full:
                raise DatabaseFull


def _wake(writes: list[PendingWrite]) -> None:
    for pending in writes:
        if not pending.tag.done():
            pending.tag.set_result(None)


@asynccontextmanager
async def open_store(options: StoreOptions) -> AsyncIterator[PostgresStore]:
    """Opens the store while the context lasts.

    Raises:
        SchemaTooNew: A newer checkpointd migrated the database.
        SetupError: The database can't be used, or lacks migrations. The message says what to do.
    """
    functions = await check_schema(options)
    statements = {**load_statements(options.schema), **ranking_statements(functions, options.schema)}
    async with open_connections(options, statements) as connections:
        opened = PostgresStore(connections, options, ItemFeatures(functions))
        opened.id = str(await connections.of(None).fetch_value("identity", timeout=options.startup_timeout))
        yield opened
