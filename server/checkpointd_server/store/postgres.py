"""The checkpoint store on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from checkpointd_server.domain.errors import DatabaseUnavailable
from checkpointd_server.domain.model import (
    AcquireLease,
    CopyThread,
    DeltaHistory,
    FoundPieces,
    Lease,
    LeaseState,
    ListQuery,
    Namespace,
    Page,
    Piece,
    PruneStrategy,
    PutCheckpoint,
    PutWrites,
    ReadResult,
)
from checkpointd_server.domain.store import NO_LEASES
from checkpointd_server.store import copies, reads, threads
from checkpointd_server.store.commits import Commits
from checkpointd_server.store.database import Connections, Database, Session, open_connections
from checkpointd_server.store.errors import lacking_rights
from checkpointd_server.store.leases import Leases
from checkpointd_server.store.migrations import check_schema
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.pieces import collect, get, sweep_queued, upload
from checkpointd_server.store.statements import load_statements
from checkpointd_server.store.threads import Deleted

COLLECT_TIMEOUT = 60.0
"""How long looking after one thread's pieces may take, in seconds."""


MAX_TENANTS = 1000
"""How many tenants a store remembers. Beyond, it forgets those that have nothing under way."""


class _Tenant:
    """What a store does for one tenant. Tenants share no commit: a transaction acts for one of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.commits = Commits(database)
        self.leases = Leases(database)

    @property
    def is_idle(self) -> bool:
        return self.commits.is_idle and self.leases.is_idle


class PostgresStore:
    """A CheckpointStore on PostgreSQL; `open_store` makes one. Many servers may share one database."""

    def __init__(self, connections: Connections, upload_grace: float) -> None:
        self._connections = connections
        self._upload_grace = upload_grace
        self._tenants: dict[str, _Tenant] = {}

    def _of(self, tenant: str) -> _Tenant:
        found = self._tenants.get(tenant)
        if found is None:
            if len(self._tenants) >= MAX_TENANTS:
                self._tenants = {name: known for name, known in self._tenants.items() if not known.is_idle}
            found = self._tenants[tenant] = _Tenant(self._connections.of(tenant))
        return found

    async def put_checkpoint(self, put: PutCheckpoint, *, in_company: bool = False, timeout: float | None) -> int:
        """Stores a checkpoint and returns the namespace's new version.

        Raises VersionConflict, LeaseHeld, LeaseLost, PiecesMissing.
        """
        return await self._of(put.namespace.tenant).commits.store(put, in_company=in_company, timeout=timeout)

    async def put_writes(self, put: PutWrites, *, in_company: bool = False, timeout: float | None) -> int:
        """Stores task writes and returns the namespace's version (0: no checkpoint yet).

        Raises VersionConflict, LeaseHeld, LeaseLost, PiecesMissing.
        """
        return await self._of(put.namespace.tenant).commits.store(put, in_company=in_company, timeout=timeout)

    async def get_checkpoint(
        self, namespace: Namespace, checkpoint_id: str | None, *, with_pieces: bool = True, timeout: float | None
    ) -> ReadResult:
        """Reads the checkpoint with this id, or the latest if None, and the first pieces of its values if wanted."""
        return await reads.get_checkpoint(
            self._of(namespace.tenant).database, namespace, checkpoint_id, with_pieces=with_pieces, timeout=timeout
        )

    async def put_pieces(self, tenant: str, thread_id: str, pieces: Sequence[Piece], *, timeout: float | None) -> None:
        """Stores pieces ahead of a put. Those that nothing refers to after a while are deleted."""
        await upload(self._of(tenant).database, tenant, thread_id, pieces, spared=self._upload_grace, timeout=timeout)

    async def get_pieces(
        self, tenant: str, thread_id: str, names: Sequence[bytes], *, timeout: float | None
    ) -> FoundPieces:
        """Reads pieces in the order of the names, as many as fit into 2 MiB, and at least one."""
        return await get(self._of(tenant).database, tenant, thread_id, names, timeout=timeout)

    async def collect_pieces(self) -> int:
        """Deletes pieces that nothing has referred to for long enough. Returns how many threads it looked at."""
        return await collect(self._connections, spared=self._upload_grace, timeout=COLLECT_TIMEOUT)

    async def list_checkpoints(self, query: ListQuery, *, timeout: float | None) -> Page:
        """Reads a page of checkpoints, newest first."""
        return await reads.list_checkpoints(self._of(query.tenant).database, query, timeout=timeout)

    async def get_delta_history(
        self, namespace: Namespace, checkpoint_id: str | None, channels: Sequence[str], *, timeout: float | None
    ) -> DeltaHistory:
        """Walks the ancestors of a checkpoint (None: of the latest) for the writes and seeds of channels."""
        return await reads.get_delta_history(
            self._of(namespace.tenant).database, namespace, checkpoint_id, channels, timeout=timeout
        )

    async def delete_thread(
        self, tenant: str, thread_id: str, *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes a thread and returns how many checkpoints it had. Raises LeaseHeld, LeaseLost."""
        deleted = await threads.delete_threads(
            self._of(tenant).database, tenant, [thread_id], leases=leases, timeout=timeout
        )
        return await self._sweep(tenant, deleted, timeout, spares=False)

    async def delete_runs(
        self, tenant: str, run_ids: Sequence[str], *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes the checkpoints of runs and returns how many there were. Raises LeaseHeld, LeaseLost."""
        deleted = await threads.delete_runs(self._of(tenant).database, tenant, run_ids, leases=leases, timeout=timeout)
        return await self._sweep(tenant, deleted, timeout)

    async def copy_thread(self, copy: CopyThread, *, timeout: float | None) -> int:
        """Copies a thread and returns how many checkpoints.

        Raises ThreadExists, CheckpointNotFound, LeaseHeld, LeaseLost.
        """
        return await copies.copy_thread(self._of(copy.tenant).database, copy, timeout=timeout)

    async def prune_threads(
        self,
        tenant: str,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
        *,
        leases: Mapping[str, int] = NO_LEASES,
        timeout: float | None,
    ) -> int:
        """Removes history from threads and returns how many checkpoints went. Raises LeaseHeld, LeaseLost."""
        deleted = await threads.prune_threads(
            self._of(tenant).database, tenant, thread_ids, strategy, leases=leases, timeout=timeout
        )
        return await self._sweep(tenant, deleted, timeout, spares=strategy is not PruneStrategy.DELETE)

    async def _sweep(self, tenant: str, deleted: Deleted, timeout: float | None, *, spares: bool = True) -> int:
        """Deletes the pieces that a deletion has left behind.

        Args:
            tenant: Whose threads they are.
            deleted: What the deletion did.
            timeout: How long it may take, in seconds.
            spares: Whether pieces that were sent ahead lately may stay, for puts that are about to refer to them. Where
                a whole thread went, these are told to send them again.
        """
        spared = self._upload_grace if spares else 0.0
        await sweep_queued(self._of(tenant).database, tenant, deleted.to_sweep, spared=spared, timeout=timeout)
        return deleted.checkpoints

    async def acquire_lease(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes the lease on a thread, or waits in line for it. Raises LeaseHeld when the wait is over."""
        return await self._of(acquire.tenant).leases.acquire(acquire, timeout=timeout)

    async def renew_lease(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease to live `ttl` seconds from now. Raises LeaseLost."""
        return await self._of(tenant).leases.renew(tenant, thread_id, token, ttl=ttl, timeout=timeout)

    async def release_lease(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Gives up a holder's lease or place in line, and tells whether it had the lease."""
        return await self._of(tenant).leases.release(tenant, thread_id, holder, timeout=timeout)

    async def get_lease(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Tells who may write to a thread."""
        return await self._of(tenant).leases.state(tenant, thread_id, timeout=timeout)

    async def is_bound_by_row_security(self, *, timeout: float | None) -> bool:
        """Whether row-level security keeps tenants apart, too: it doesn't bind superusers."""

        async def work(session: Session) -> bool:
            return bool(await session.fetch_value("row_security_binds"))

        return await self._connections.of(None).run(work, timeout=timeout)

    async def check(self, *, timeout: float | None) -> None:
        """Runs a small query, before everybody else's.

        Raises:
            DatabaseUnavailable: It doesn't go through, or the server's role lacks a right.
            Overloaded: All connections are at work, and none became free in time.
        """
        ahead = None if timeout is None else timeout * 0.75
        database = self._connections.of(None)
        lacking = await database.run(lambda session: session.fetch_value("check"), timeout=timeout, ahead=ahead)
        if lacking:
            raise DatabaseUnavailable(lacking_rights(str(lacking)))


@asynccontextmanager
async def open_store(options: StoreOptions) -> AsyncIterator[PostgresStore]:
    """Opens the store for as long as the context lasts.

    Raises:
        SchemaTooNew: A newer checkpointd migrated the database.
        SetupError: The database can't be used, or lacks migrations. The message says what to do.
    """
    await check_schema(options)
    async with open_connections(options, load_statements(options.schema)) as connections:
        yield PostgresStore(connections, options.upload_grace)
