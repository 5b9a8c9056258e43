"""A tenant's view of a store, with methods that tests need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from zlib import crc32

from checkpointd_server.domain.checkpoints import (
    DeltaHistory,
    Known,
    ListQuery,
    Namespace,
    Page,
    Precondition,
    PutCheckpoint,
    PutWrites,
    ReadResult,
    StoredCheckpoint,
    TaskWrite,
)
from checkpointd_server.domain.threads import VOLATILE_KEYS, thread_key
from checkpointd_server.domain.values import (
    ChannelValue,
    ChannelValueKey,
    Parts,
    Patch,
    StoredValue,
    TaskWriteKey,
    TypedValue,
    ValueRange,
)
from checkpointd_server.store import PostgresStore
from tests.support.tenant_threads import ThreadVerbs

TIMEOUT = 60.0


def value(data: bytes) -> TypedValue:
    """Returns a value of some serializer."""
    return TypedValue("msgpack", data)


def patch(base_version: str, whole: bytes, *, instructions: bytes = b"patch", reach: int = 0) -> TypedValue:
    """Returns a value as a patch; the store doesn't examine its instructions."""
    return TypedValue("msgpack", instructions, Patch(base_version, len(whole), crc32(whole), False, reach))


def uploaded(upload_id: bytes, size: int) -> TypedValue:
    """Returns a value whose bytes were sent ahead."""
    return TypedValue("msgpack", b"", parts=Parts(upload_id.ljust(16), size))


def write(task_id: str, idx: int, channel: str, data: bytes | TypedValue, *, path: str = "") -> TaskWrite:
    """A task write."""
    return TaskWrite(task_id, path, idx, channel, value(data) if isinstance(data, bytes) else data)


def expectation(version: int | None, writer: bytes, last: str) -> Precondition | None:
    """A precondition, if anything is expected."""
    if version is None and not writer:
        return None
    return Precondition(if_version_match=version, if_last_writer=writer, if_last_checkpoint_id=last)


class Tenant(ThreadVerbs):
    """A store as used by one tenant. Threads are "t" and namespaces "" unless a test says otherwise."""

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
        body: bytes = b"body",
        metadata: Mapping[str, Any] | None = None,
        expect: int | None = None,
        expect_writer: bytes = b"",
        expect_last: str = "",
        writer: bytes = b"",
        request_id: bytes = b"",
        lease: int = 0,
    ) -> int:
        """Puts a checkpoint with these channel versions and, of the changed channels, these values."""
        put = self.a_put(
            checkpoint_id,
            thread=thread,
            ns=ns,
            parent=parent,
            versions=versions,
            values=values,
            body=body,
            metadata=metadata,
            precondition=expectation(expect, expect_writer, expect_last),
            writer=writer,
            request_id=request_id,
            lease_token=lease,
        )
        return await self.store.write(put, timeout=TIMEOUT)

    def a_put(
        self,
        checkpoint_id: str,
        *,
        thread: str = "t",
        ns: str = "",
        parent: str | None = None,
        versions: Mapping[str, str] | None = None,
        values: Mapping[str, bytes | TypedValue | None] | None = None,
        body: bytes = b"body",
        metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> PutCheckpoint:
        """Returns a checkpoint to put."""
        versions = dict(versions or {})
        metadata = dict(metadata or {})
        return PutCheckpoint(
            namespace=Namespace(self.name, thread, ns),
            checkpoint_id=checkpoint_id,
            parent_checkpoint_id=parent,
            body=body,
            channels=list(versions.keys()),
            channel_versions=list(versions.values()),
            values=[
                ChannelValue(channel, versions[channel], value(data) if isinstance(data, bytes) else data)
                for channel, data in (values or {}).items()
            ],
            metadata=value(json.dumps(metadata).encode()),
            metadata_index=json.dumps(metadata),
            run_id=metadata.get("run_id"),
            fingerprint=crc32(repr([entry for entry in metadata.items() if entry[0] not in VOLATILE_KEYS]).encode()),
            **more,
        )

    async def writes(
        self,
        checkpoint_id: str,
        *writes: TaskWrite,
        thread: str = "t",
        ns: str = "",
        expect: int | None = None,
        expect_writer: bytes = b"",
        expect_last: str = "",
        request_id: bytes = b"",
        lease: int = 0,
    ) -> int:
        """Puts task writes."""
        put = PutWrites(
            namespace=Namespace(self.name, thread, ns),
            checkpoint_id=checkpoint_id,
            writes=list(writes),
            precondition=expectation(expect, expect_writer, expect_last),
            request_id=request_id,
            lease_token=lease,
        )
        return await self.store.write(put, timeout=TIMEOUT)

    async def upload(self, upload_id: bytes, *parts: bytes, thread: str = "t") -> None:
        """Sends the bytes of a value ahead."""
        offset = 0
        for part in parts:
            await self.store.put_part(self.name, thread, upload_id.ljust(16), offset, part, timeout=TIMEOUT)
            offset += len(part)

    async def get(
        self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "", known: Known = ()
    ) -> ReadResult:
        """Reads a checkpoint or the latest, and the version."""
        namespace = Namespace(self.name, thread, ns)
        return await self.store.get_checkpoint(namespace, checkpoint_id, known=known, timeout=TIMEOUT)

    async def read(self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "") -> StoredCheckpoint:
        """Reads a checkpoint that must exist."""
        checkpoint = (await self.get(checkpoint_id, thread=thread, ns=ns)).checkpoint
        assert checkpoint is not None
        return checkpoint

    async def rows(
        self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "", known: Known = ()
    ) -> dict[tuple[str, str], TypedValue]:
        """Reads the rows that a checkpoint's values are made of, by channel and version."""
        found = (await self.get(checkpoint_id, thread=thread, ns=ns, known=known)).values
        assert len({(row.channel, row.version) for row in found}) == len(found)
        return {(row.channel, row.version): row.value for row in found}

    async def values(self, checkpoint_id: str | None = None, *, thread: str = "t", ns: str = "") -> dict[str, bytes]:
        """Reads the values of a checkpoint that must exist, all of them whole, by channel."""
        result = await self.get(checkpoint_id, thread=thread, ns=ns)
        assert result.checkpoint is not None
        return values_of(result.values)

    async def value(
        self, channel: str, version: str, *, thread: str = "t", ns: str = "", part: int = 1000
    ) -> bytes | None:
        """Reads the bytes of a stored value, in parts of this size."""
        return await self._bytes(ChannelValueKey(channel, version), thread, ns, part)

    async def written(
        self, checkpoint_id: str, task_id: str, idx: int, *, thread: str = "t", ns: str = "", part: int = 1000
    ) -> bytes | None:
        """Reads the bytes of a task write, in parts of this size."""
        return await self._bytes(TaskWriteKey(checkpoint_id, task_id, idx), thread, ns, part)

    async def value_range(self, channel: str, version: str, offset: int, max_bytes: int) -> ValueRange:
        """Reads a range of a stored value that must exist."""
        key = ChannelValueKey(channel, version)
        namespace = Namespace(self.name, "t", "")
        found = await self.store.get_value(namespace, key, offset=offset, max_bytes=max_bytes, timeout=TIMEOUT)
        assert found is not None
        return found

    async def _bytes(self, key: ChannelValueKey | TaskWriteKey, thread: str, ns: str, part: int) -> bytes | None:
        namespace = Namespace(self.name, thread, ns)
        data = b""
        while True:
            found = await self.store.get_value(namespace, key, offset=len(data), max_bytes=part, timeout=TIMEOUT)
            if found is None:
                return None
            data += found.data
            if len(data) == found.size:
                return data
            assert found.data

    async def written_bases(self, *, thread: str = "t", ns: str = "") -> dict[tuple[str, str, int], str | None]:
        """Returns the base versions of a namespace's task writes, by checkpoint, task and idx; None: it is whole."""
        query = "SELECT * FROM checkpointd.task_writes WHERE thread = $1 AND checkpoint_ns = $2"
        found = await self.select(query, self.key(thread), ns)
        return {(row["checkpoint_id"], row["task_id"], row["idx"]): row["base_version"] for row in found}

    async def version(self, *, thread: str = "t", ns: str = "") -> int:
        """The namespace's version."""
        return (await self.get(thread=thread, ns=ns)).version

    async def page(self, **query: Any) -> Page:
        """Lists one page, of any thread unless one is given."""
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

    async def listed_whole(self, **query: Any) -> list[tuple[StoredCheckpoint, dict[str, bytes]]]:
        """Lists all pages, each checkpoint with its values, which must be whole."""
        listed: list[tuple[StoredCheckpoint, dict[str, bytes]]] = []
        after = None
        while True:
            page = await self.page(after=after, **query)
            rows = {
                (place_of(page.checkpoints[row.position]), row.channel, row.version): row.value for row in page.values
            }
            assert len(rows) == len(page.values)
            assert all(row.patch is None and row.parts is None for row in rows.values())
            for checkpoint in page.checkpoints:
                versions = zip(checkpoint.channels, checkpoint.channel_versions, strict=True)
                found = {channel: rows.get((place_of(checkpoint), channel, version)) for channel, version in versions}
                listed.append((checkpoint, {channel: row.data for channel, row in found.items() if row is not None}))
            after = page.after
            if after is None:
                return listed

    async def ids(self, *, thread: str = "t", ns: str = "") -> list[str]:
        """Returns the ids in a namespace, oldest first."""
        listed = await self.listed(thread_id=thread, checkpoint_ns=ns, metadata_only=True)
        return [checkpoint.checkpoint_id for checkpoint in reversed(listed)]

    async def history(
        self,
        *channels: str,
        at: str | None = None,
        thread: str = "t",
        ns: str = "",
        after: str | None = None,
        page_bytes: int = 1_000_000,
    ) -> DeltaHistory:
        """Reads a page of the delta history of channels."""
        return await self.store.get_delta_history(
            Namespace(self.name, thread, ns), at, channels, after=after, page_bytes=page_bytes, timeout=TIMEOUT
        )

    async def whole_history(
        self, *channels: str, page_bytes: int = 1_000_000, **where: Any
    ) -> dict[str, tuple[list[TaskWrite], bytes | None]]:
        """Reads all pages of the delta history of channels: by channel, the writes, oldest first, and the seed."""
        steps: dict[str, list[tuple[str, list[TaskWrite]]]] = {channel: [] for channel in channels}
        seeds: dict[str, bytes | None] = dict.fromkeys(channels)
        after = None
        while True:
            page = await self.history(*channels, after=after, page_bytes=page_bytes, **where)
            rows = {(row.channel, row.version): row.value.data for row in page.values}
            for entry in page.channels:
                for checkpoint_id, written in entry.writes:
                    of_channel = steps[entry.channel]
                    if not of_channel or of_channel[-1][0] != checkpoint_id:
                        of_channel.append((checkpoint_id, []))
                    of_channel[-1][1].append(written)
                if entry.seed_version is not None:
                    assert seeds[entry.channel] is None
                    seeds[entry.channel] = rows[entry.channel, entry.seed_version]
            after = page.after
            if after is None:
                break
        return {
            channel: ([written for _, step in reversed(of_channel) for written in step], seeds[channel])
            for channel, of_channel in steps.items()
        }

    async def stored_values(self, *, thread: str = "t", ns: str = "") -> set[tuple[str, str]]:
        """Returns every (channel, version) that has a row, referenced or not."""
        query = "SELECT channel, version FROM checkpointd.channel_values WHERE thread = $1 AND checkpoint_ns = $2"
        return {(row["channel"], row["version"]) for row in await self.select(query, self.key(thread), ns)}

    def key(self, thread: str = "t") -> object:
        """Returns the key of a thread's rows."""
        return thread_key(self.name, thread)

    async def select(self, query: str, *args: object) -> Sequence[Any]:
        """Queries the tables, or changes them if a test must."""
        async with a_connection(self.store) as connection, connection.transaction():
            await connection.execute("SELECT set_config('checkpointd.tenant', $1, true)", self.name)
            rows: Sequence[Any] = await connection.fetch(query, *args)
            return rows


def place_of(checkpoint: StoredCheckpoint) -> tuple[str, str]:
    """Returns the thread and the namespace of a checkpoint."""
    return checkpoint.thread_id, checkpoint.checkpoint_ns


def values_of(rows: Sequence[StoredValue], position: int = 0) -> dict[str, bytes]:
    """Returns the values of one of the checkpoints read together, all of them existing and whole, by channel."""
    assert all(row.value.patch is None and row.value.parts is None for row in rows)
    return {row.channel: row.value.data for row in rows if row.position == position}


async def gather_results(*calls: Any) -> list[Any]:
    """Runs calls concurrently and returns what each returned or raised."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


@asynccontextmanager
async def a_connection(store: PostgresStore) -> AsyncIterator[Any]:
    """Yields one of a store's connections: the next call gets it again."""
    pool = store._connections._pool
    connection = await pool.acquire()
    try:
        yield connection
    finally:
        pool.release(connection)
