"""Reading checkpoints: one, a page of them, or the history of channels. Each is one statement, and so one snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checkpointd_server.domain.model import (
    ChannelHistory,
    CheckpointPosition,
    DeltaHistory,
    ListQuery,
    Namespace,
    Page,
    ReadResult,
    TaskWrite,
    TypedValue,
)
from checkpointd_server.store.pool import Database, Row
from checkpointd_server.store.rows import read_checkpoint, read_writes

_ABOVE_ALL_IDS = "\U0010ffff" * 64
"""Bytewise greater than any id, which has 128 bytes at the most."""


async def get_checkpoint(
    database: Database, namespace: Namespace, checkpoint_id: str | None, *, timeout: float | None
) -> ReadResult:
    """Reads the checkpoint with this id, or the latest if None."""
    if checkpoint_id is None:
        row = await database.run(lambda session: session.fetch_row("get_latest", *namespace), timeout=timeout)
    else:
        row = await database.run(
            lambda session: session.fetch_row("get_by_id", *namespace, checkpoint_id), timeout=timeout
        )
    assert row is not None
    version = row["version"]
    return ReadResult(None if row["checkpoint_id"] is None else read_checkpoint(row, version), version)


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
    rows = await database.run(lambda session: session.fetch(statement, *args), timeout=timeout)
    checkpoints = [read_checkpoint(row, row["version"] or 0) for row in rows if row["checkpoint_id"] is not None]
    position = None
    if rows[0]["has_more"]:
        last = checkpoints[-1]
        position = CheckpointPosition(last.checkpoint_id, last.thread_id, last.checkpoint_ns)
    return Page(checkpoints, position, rows[0]["namespace_version"])


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
    rows = await database.run(
        lambda session: session.fetch("get_delta_history", *namespace, checkpoint_id, asked), timeout=timeout
    )
    histories = _assemble(rows, asked)
    return DeltaHistory([histories[channel] for channel in channels], rows[0]["version"])


def _assemble(rows: list[Row], asked: list[str]) -> Mapping[str, ChannelHistory]:
    writes: dict[str, list[TaskWrite]] = {channel: [] for channel in asked}
    seeds: dict[str, TypedValue] = {}
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
        for write in read_writes(row):
            writes[write.channel].append(write)
        for channel, type_, data in zip(
            row["seeds"] or (), row["seed_types"] or (), row["seed_data"] or (), strict=True
        ):
            seeds[channel] = TypedValue(type_, data)
    return {channel: ChannelHistory(channel, writes[channel], seeds.get(channel)) for channel in asked}
