"""A tenant's view of a store, with the words that tests need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from checkpointd_server.domain.model import (
    AcquireLease,
    ChannelValue,
    CopyThread,
    DeltaHistory,
    Lease,
    LeaseState,
    ListQuery,
    Namespace,
    Page,
    Piece,
    PieceList,
    Precondition,
    PruneStrategy,
    PutCheckpoint,
    PutWrites,
    ReadResult,
    StoredCheckpoint,
    TaskWrite,
    TypedValue,
)
from checkpointd_server.domain.store import NO_LEASES
from checkpointd_server.store import PostgresStore
from checkpointd_server.store.database import Session

TIMEOUT = 60.0


def value(data: bytes) -> TypedValue:
    """A value of a serializer that doesn't matter."""
    return TypedValue("msgpack", data)


def piece(data: bytes) -> Piece:
    """A piece, as it is stored."""
    return Piece(sha256(data).digest(), data, 0)


def in_pieces(*parts: bytes) -> TypedValue:
    """A value that is a list of pieces."""
    return TypedValue("msgpack", b"", PieceList(sum(map(len, parts)), [piece(part).name for part in parts]))


def write(task_id: str, idx: int, channel: str, data: bytes | TypedValue, *, path: str = "") -> TaskWrite:
    """A task write."""
    return TaskWrite(task_id, path, idx, channel, value(data) if isinstance(data, bytes) else data)


class Tenant:
    """A store, used by one tenant. Threads are "t" and namespaces "" unless a test says otherwise."""

    def __init__(self, store: PostgresStore, name: str) -> None:
        self.store = store
        self.name = name

    async def put(
        self,
        checkpoint_id: str,
        *,
        thread: str = "t",
        ns: str = "",
        parent: str | None = None,
        versions: Mapping[str, str] | None = None,
        values: Mapping[str, bytes | TypedValue | None] | None = None,
        pieces: Sequence[Piece] = (),
        body: bytes = b"body",
        metadata: Mapping[str, Any] | None = None,
        expect: int | None = None,
        expect_writer: bytes = b"",
        writer: bytes = b"",
        request_id: bytes = b"",
        lease: int = 0,
    ) -> int:
        """Puts a checkpoint with these channel versions and, of the changed channels, these values."""
        versions = dict(versions or {})
        metadata = dict(metadata or {})
        run_id = metadata.get("run_id")
        precondition = None
        if expect is not None or expect_writer:
            precondition = Precondition(if_version_match=expect, if_last_writer=expect_writer)
        put = PutCheckpoint(
            namespace=Namespace(self.name, thread, ns),
            checkpoint_id=checkpoint_id,
            parent_checkpoint_id=parent,
            body=body,
            channel_versions=versions,
            values=[
                ChannelValue(channel, versions[channel], value(data) if isinstance(data, bytes) else data)
                for channel, data in (values or {}).items()
            ],
            metadata=value(json.dumps(metadata).encode()),
            metadata_index=json.dumps(metadata),
            run_id=run_id,
            precondition=precondition,
            writer=writer,
            request_id=request_id,
            lease_token=lease,
            pieces=list(pieces),
        )
        return await self.store.put_checkpoint(put, timeout=TIMEOUT)

    async def writes(
        self,
        checkpoint_id: str,
        *writes: TaskWrite,
        thread: str = "t",
        ns: str = "",
        pieces: Sequence[Piece] = (),
        expect: int | None = None,
        expect_writer: bytes = b"",
        request_id: bytes = b"",
        lease: int = 0,
    ) -> int:
        """Puts task writes."""
        precondition = None
        if expect is not None or expect_writer:
            precondition = Precondition(if_version_match=expect, if_last_writer=expect_writer)
        put = PutWrites(
            namespace=Namespace(self.name, thread, ns),
            checkpoint_id=checkpoint_id,
            writes=list(writes),
            precondition=precondition,
            request_id=request_id,
            lease_token=lease,
            pieces=list(pieces),
        )
        return await self.store.put_writes(put, timeout=TIMEOUT)

    async def get(self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "") -> ReadResult:
        """Reads a checkpoint or the latest, and the version."""
        return await self.store.get_checkpoint(Namespace(self.name, thread, ns), checkpoint_id, timeout=TIMEOUT)

    async def read(self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "") -> StoredCheckpoint:
        """Reads a checkpoint that is there."""
        checkpoint = (await self.get(checkpoint_id, thread=thread, ns=ns)).checkpoint
        assert checkpoint is not None
        return checkpoint

    async def values(self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "") -> dict[str, bytes]:
        """Reads the values of a checkpoint that is there, by channel."""
        checkpoint = await self.read(checkpoint_id, thread=thread, ns=ns)
        return {entry.channel: entry.value.data for entry in checkpoint.values if entry.value is not None}

    async def version(self, *, thread: str = "t", ns: str = "") -> int:
        """The namespace's version."""
        return (await self.get(thread=thread, ns=ns)).version

    async def page(self, **query: Any) -> Page:
        """Lists one page; the thread is any unless named."""
        return await self.store.list_checkpoints(ListQuery(tenant=self.name, **query), timeout=TIMEOUT)

    async def listed(self, **query: Any) -> list[StoredCheckpoint]:
        """Lists all pages."""
        checkpoints: list[StoredCheckpoint] = []
        after = None
        while True:
            page = await self.page(after=after, **query)
            checkpoints += page.checkpoints
            after = page.after
            if after is None:
                return checkpoints

    async def ids(self, *, thread: str = "t", ns: str = "") -> list[str]:
        """The ids in a namespace, oldest first."""
        listed = await self.listed(thread_id=thread, checkpoint_ns=ns, metadata_only=True)
        return [checkpoint.checkpoint_id for checkpoint in reversed(listed)]

    async def history(self, *channels: str, at: str | None = None, thread: str = "t", ns: str = "") -> DeltaHistory:
        """The delta history of channels."""
        return await self.store.get_delta_history(Namespace(self.name, thread, ns), at, channels, timeout=TIMEOUT)

    async def delete(self, thread: str = "t", *, leases: Mapping[str, int] = NO_LEASES) -> int:
        """Deletes a thread."""
        return await self.store.delete_thread(self.name, thread, leases=leases, timeout=TIMEOUT)

    async def delete_runs(self, *run_ids: str, leases: Mapping[str, int] = NO_LEASES) -> int:
        """Deletes runs."""
        return await self.store.delete_runs(self.name, run_ids, leases=leases, timeout=TIMEOUT)

    async def copy(
        self, source: str, target: str, *, at: str | None = None, request_id: bytes = b"", lease: int = 0
    ) -> int:
        """Copies or forks a thread."""
        copy = CopyThread(
            tenant=self.name,
            source_thread_id=source,
            target_thread_id=target,
            checkpoint_id=at,
            request_id=request_id,
            lease_token=lease,
        )
        return await self.store.copy_thread(copy, timeout=TIMEOUT)

    async def prune(
        self,
        *threads: str,
        strategy: PruneStrategy = PruneStrategy.KEEP_LATEST,
        leases: Mapping[str, int] = NO_LEASES,
    ) -> int:
        """Prunes threads."""
        return await self.store.prune_threads(self.name, threads, strategy, leases=leases, timeout=TIMEOUT)

    async def acquire(self, holder: str, *, thread: str = "t", ttl: float = 60.0, wait: float = 0.0) -> Lease:
        """Takes a lease."""
        acquire = AcquireLease(tenant=self.name, thread_id=thread, holder=holder.encode(), ttl=ttl, wait=wait)
        return await self.store.acquire_lease(acquire, timeout=TIMEOUT)

    async def renew(self, token: int, *, thread: str = "t", ttl: float = 60.0) -> Lease:
        """Renews a lease."""
        return await self.store.renew_lease(self.name, thread, token, ttl=ttl, timeout=TIMEOUT)

    async def release(self, holder: str, *, thread: str = "t") -> bool:
        """Gives up a lease, or the place in line."""
        return await self.store.release_lease(self.name, thread, holder.encode(), timeout=TIMEOUT)

    async def lease(self, *, thread: str = "t") -> LeaseState:
        """Who may write to a thread."""
        return await self.store.get_lease(self.name, thread, timeout=TIMEOUT)

    async def stored_values(self, *, thread: str = "t", ns: str = "") -> set[tuple[str, str]]:
        """Every (channel, version) that has a row, referred to or not."""
        query = """
            SELECT channel, version FROM checkpointd.channel_values
            WHERE tenant = $1 AND thread_id = $2 AND checkpoint_ns = $3
        """
        return {(row["channel"], row["version"]) for row in await self.select(query, self.name, thread, ns)}

    async def select(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """Looks into the tables."""

        async def work(session: Session) -> Sequence[Mapping[str, Any]]:
            rows: Sequence[Mapping[str, Any]] = await session._connection.fetch(query, *args)
            return rows

        return await self.store._connections.of(self.name).run(work, timeout=TIMEOUT)


async def gather_results(*calls: Any) -> list[Any]:
    """Runs calls at once and returns what each returned or raised."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


@asynccontextmanager
async def a_connection(store: PostgresStore) -> AsyncIterator[Any]:
    """One of a store's connections: the next call gets it again."""
    pool = store._connections._pool
    connection = await pool.acquire()
    try:
        yield connection
    finally:
        pool.release(connection)
