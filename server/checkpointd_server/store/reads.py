"""Reading checkpoints: one, a page of them, or the history of channels.

Each is one statement, and so one snapshot. The pieces of large values don't change once they are named; they are read
after it, and those that are gone by then are for the client to ask for, and to be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checkpointd_server.domain.model import (
    ChannelHistory,
    CheckpointPosition,
    DeltaHistory,
    ListQuery,
    Namespace,
    Page,
    Piece,
    ReadResult,
    StoredCheckpoint,
    TaskWrite,
    TypedValue,
)
from checkpointd_server.store import pieces
from checkpointd_server.store.database import Database, Row, Session
from checkpointd_server.store.rows import read_checkpoint, read_writes

_ABOVE_ALL_IDS = "\U0010ffff" * 64
"""Bytewise greater than any id, which has 128 bytes at the most."""


async def get_checkpoint(
    database: Database, namespace: Namespace, checkpoint_id: str | None, *, with_pieces: bool, timeout: float | None
) -> ReadResult:
    """Reads the checkpoint with this id, or the latest if None, and the first pieces of its values if wanted."""

    async def work(session: Session) -> ReadResult:
        if checkpoint_id is None:
            row = await session.fetch_row("get_latest", *namespace)
        else:
            row = await session.fetch_row("get_by_id", *namespace, checkpoint_id)
        assert row is not None
        version = row["version"]
        if row["checkpoint_id"] is None:
            return ReadResult(None, version, [])
        checkpoint = read_checkpoint(row, version)
        first = await _first_pieces(session, namespace.tenant, checkpoint) if with_pieces else []
        return ReadResult(checkpoint, version, first)

    return await database.run(work, timeout=timeout, reads=True)


async def list_checkpoints(database: Database, query: ListQuery, *, timeout: float | None) -> Page:
    """Reads a page of checkpoints, newest first."""
    if query.thread_id is None:
        statement = "list_tenant"
    elif query.checkpoint_ns is None:
        statement = "list_thread"
    else:
        statement = "list_namespace"
    after = query.after or CheckpointPosition(_ABOVE_ALL_IDS, "", "")
    args = (
        query.tenant,
        query.thread_id,
        query.checkpoint_ns,
        query.checkpoint_id or "",
        query.checkpoint_id or _ABOVE_ALL_IDS,
        query.before_checkpoint_id or _ABOVE_ALL_IDS,
        query.metadata_filter,
        *after,
        query.page_size + 1,
        query.page_size,
        query.page_bytes,
        not query.metadata_only,
    )

    async def work(session: Session) -> Page:
        rows = await session.fetch(statement, *args)
        checkpoints = [read_checkpoint(row, row["version"] or 0) for row in rows if row["checkpoint_id"] is not None]
        position = None
        if rows[0]["has_more"]:
            last = checkpoints[-1]
            position = CheckpointPosition(last.checkpoint_id, last.thread_id, last.checkpoint_ns)
        first = await _first_pieces(session, query.tenant, checkpoints[0]) if checkpoints else []
        return Page(checkpoints, position, rows[0]["namespace_version"], first)

    return await database.run(work, timeout=timeout, reads=True)


async def _first_pieces(session: Session, tenant: str, checkpoint: StoredCheckpoint) -> list[Piece]:
    values = [value for _, _, value in checkpoint.values if value is not None and value.pieces is not None]
    values += [write.value for write in checkpoint.pending_writes if write.value.pieces is not None]
    return await pieces.first(session, tenant, checkpoint.thread_id, values) if values else []


async def get_delta_history(
    database: Database,
    namespace: Namespace,
    checkpoint_id: str | None,
    channels: Sequence[str],
    *,
    timeout: float | None,
) -> DeltaHistory:
    """Walks the ancestors of a checkpoint (None: of the latest) for the writes and seeds of channels."""
    asked = list(dict.fromkeys(channels))

    async def work(session: Session) -> DeltaHistory:
        rows = await session.fetch("get_delta_history", *namespace, checkpoint_id, asked)
        found = _assemble(rows, asked, namespace.checkpoint_ns)
        histories = [found[channel] for channel in channels]
        values = [write.value for history in histories for write in history.writes]
        values += [history.seed for history in histories if history.seed is not None]
        first = await pieces.first(session, namespace.tenant, namespace.thread_id, values)
        return DeltaHistory(histories, rows[0]["version"], first)

    return await database.run(work, timeout=timeout, reads=True)


def _assemble(rows: list[Row], asked: list[str], checkpoint_ns: str) -> Mapping[str, ChannelHistory]:
    writes: dict[str, list[TaskWrite]] = {channel: [] for channel in asked}
    checkpoint_ids: dict[str, list[str]] = {channel: [] for channel in asked}
    seeds: dict[str, tuple[TypedValue, str]] = {}
    ancestors: dict[str, Row] = {}
    current: str | None = None
    for row in rows:
        if row["is_target"]:
            current = row["parent_checkpoint_id"]
        elif row["is_target"] is False:
            # Where parents go in a circle a checkpoint comes up twice; the way there, with more channels, came first.
            ancestors.setdefault(row["checkpoint_id"], row)
    chain: list[Row] = []
    while current is not None and (row_ := ancestors.pop(current, None)) is not None:
        chain.append(row_)
        current = row_["parent_checkpoint_id"]
    for row in reversed(chain):
        for write in read_writes(row, checkpoint_ns, row["checkpoint_id"]):
            writes[write.channel].append(write)
            checkpoint_ids[write.channel].append(row["checkpoint_id"])
        for channel, version, type_, data, size in zip(
            *(row[name] or () for name in ("seeds", "seed_versions", "seed_types", "seed_data", "seed_sizes")),
            strict=True,
        ):
            seeds[channel] = (pieces.read_value(type_, data, size, ()), version)
    return {
        channel: ChannelHistory(channel, writes[channel], checkpoint_ids[channel], *seeds.get(channel, (None, None)))
        for channel in asked
    }
