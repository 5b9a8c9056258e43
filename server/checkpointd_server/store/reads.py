"""Reads of checkpoints: one, a page, or the history of channels. Each is one statement, and so one snapshot."""

from __future__ import annotations

from checkpointd_server.domain.checkpoints import (
    CheckpointPosition,
    Known,
    ListQuery,
    Namespace,
    Page,
    ReadResult,
    StoredCheckpoint,
)
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.domain.values import TypedValue
from checkpointd_server.store.connections.database import Database, Row
from checkpointd_server.store.values import key_of, read_values, read_writes

_ABOVE_ALL_IDS = "\U0010ffff" * 64
"""Bytewise greater than any id, which has at most 128 bytes."""


async def get_checkpoint(
    database: Database,
    namespace: Namespace,
    checkpoint_id: str | None,
    *,
    known: Known,
    max_bytes: int,
    timeout: float | None,
) -> ReadResult:
    """Reads the checkpoint with this id, or the latest if None, with at most so many bytes of values and writes."""
    row = await database.fetch_row(
        "get_checkpoint",
        key_of(namespace),
        namespace.checkpoint_ns,
        checkpoint_id,
        [channel for channel, _, _ in known],
        [version for _, version, _ in known],
        [crc32 for _, _, crc32 in known],
        max_bytes,
        timeout=timeout,
        reads=True,
    )
    version = row["o_version"]
    if row["o_checkpoint_id"] is None:
        return ReadResult(None, version, [])
    checkpoint = _checkpoint(row, namespace.thread_id, namespace.checkpoint_ns)
    return ReadResult(checkpoint, version, list(read_values(row)))


async def get_metadata_index(
    database: Database, namespace: Namespace, checkpoint_id: str, *, timeout: float | None
) -> str | None:
    """Reads the searchable part of a checkpoint's metadata: a JSON object, as text. None: not found."""
    key = key_of(namespace)
    row = await database.fetch_row(
        "get_metadata_index", key, namespace.checkpoint_ns, checkpoint_id, timeout=timeout, reads=True
    )
    index: str | None = row["o_index"]
    return index


def _checkpoint(row: Row, thread_id: str, checkpoint_ns: str) -> StoredCheckpoint:
    return StoredCheckpoint(
        thread_id=thread_id,
        checkpoint_ns=checkpoint_ns,
        checkpoint_id=row["o_checkpoint_id"],
        parent_checkpoint_id=row["o_parent"],
        body=row["o_body"],
        channels=row["o_channels"],
        channel_versions=row["o_versions"],
        metadata=TypedValue(row["o_metadata_type"], row["o_metadata"]),
        version=row["o_version"],
        pending_writes=list(read_writes(row)),
    )


async def list_checkpoints(database: Database, query: ListQuery, *, max_bytes: int, timeout: float | None) -> Page:
    """Reads a page of checkpoints, newest first, with at most so many bytes of values and task writes of each."""
    after = query.after or CheckpointPosition(_ABOVE_ALL_IDS, "", "")
    *rows, last = await database.fetch(
        "list_checkpoints",
        None if query.thread_id is None else thread_key(query.tenant, query.thread_id),
        query.checkpoint_ns,
        query.checkpoint_id or "",
        query.checkpoint_id or _ABOVE_ALL_IDS,
        query.before_checkpoint_id or _ABOVE_ALL_IDS,
        query.metadata_filter,
        after.checkpoint_id,
        thread_key(query.tenant, after.thread_id),
        after.checkpoint_ns,
        query.page_size,
        query.page_bytes,
        not query.metadata_only,
        max_bytes,
        timeout=timeout,
        reads=True,
    )
    checkpoints = [_checkpoint(row, row["o_thread_id"], row["o_ns"]) for row in rows]
    position = None
    if last["o_has_more"]:
        end = checkpoints[-1]
        position = CheckpointPosition(end.checkpoint_id, end.thread_id, end.checkpoint_ns)
    values = [value for number, row in enumerate(rows) for value in read_values(row, number)]
    return Page(checkpoints, position, last["o_version"], values)
