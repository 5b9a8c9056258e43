"""Stored values: conversion of result rows, reads of ranges, and uploads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from uuid import UUID

from checkpointd_server.domain.checkpoints import Namespace, TaskWrite
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.domain.values import (
    ChannelValueKey,
    Parts,
    Patch,
    StoredValue,
    TaskWriteKey,
    TypedValue,
    ValueRange,
)
from checkpointd_server.store.connections.database import Database, Row


def key_of(namespace: Namespace) -> UUID:
    """Returns the key of a namespace's thread."""
    return thread_key(namespace.tenant, namespace.thread_id)


def read_value(
    type_: str,
    data: bytes | None,
    size_of_bytes: int,
    base_version: str | None = None,
    size: int = 0,
    crc32: int | None = None,
    sealed: bool | None = None,
) -> TypedValue:
    """Returns a value from its columns. Without data, it was left out, and only its size is known."""
    patch = None if base_version is None else Patch(base_version, size, crc32 or 0, bool(sealed))
    of_whole = 0 if patch is not None else crc32 or 0
    if data is None:
        return TypedValue(type_, b"", patch, Parts(b"", size_of_bytes), of_whole)
    return TypedValue(type_, data, patch, None, of_whole)


def read_values(row: Row, position: int = 0) -> Iterator[StoredValue]:
    """Yields the values in a row's columns v_*, which are null if there are none."""
    if row["v_channel"] is None:
        return
    columns = [row[name] for name in ("v_type", "v_data", "v_bytes", "v_base", "v_size", "v_crc32", "v_sealed")]
    yield from map(StoredValue, repeat(position), row["v_channel"], row["v_version"], map(read_value, *columns))


def read_writes(row: Row) -> Iterator[TaskWrite]:
    """Yields the task writes in a row's columns w_*, which are null if there are none."""
    if row["w_task_id"] is None:
        return
    columns = [row[name] for name in ("w_type", "w_data", "w_bytes", "w_base", "w_size", "w_crc32", "w_sealed")]
    values = map(read_value, *columns)
    yield from map(TaskWrite, row["w_task_id"], row["w_task_path"], row["w_idx"], row["w_channel"], values)


async def get_value(
    database: Database,
    namespace: Namespace,
    key: ChannelValueKey | TaskWriteKey,
    *,
    offset: int,
    max_bytes: int,
    timeout: float | None,
) -> ValueRange | None:
    """Reads a range of a stored value's bytes, or of a patch's instructions. None: not found.

    Args:
        database: The database of the tenant.
        namespace: The namespace of the value.
        key: The value: a channel's version, or a task write.
        offset: The beginning of the range, in bytes.
        max_bytes: The most bytes to read.
        timeout: The time that the caller has left, in seconds; None: no end.
    """
    place = (key_of(namespace), namespace.checkpoint_ns, *key)
    if isinstance(key, ChannelValueKey):
        rows = await database.fetch("get_channel_value", *place, offset, max_bytes, timeout=timeout, reads=True)
    else:
        rows = await database.fetch("get_task_write", *place, offset, max_bytes, timeout=timeout, reads=True)
    if not rows:
        return None
    data, size, channel, type_, *patch = rows[0].values()
    return ValueRange(data, size, channel, read_value(type_, b"", size, *patch))


async def put_part(
    database: Database,
    tenant: str,
    thread_id: str,
    upload_id: bytes,
    offset: int,
    data: bytes,
    *,
    grace_seconds: float,
    timeout: float | None,
) -> None:
    """Stores a part of an upload.

    Args:
        database: The database of the tenant.
        tenant: The tenant.
        thread_id: The thread.
        upload_id: The upload.
        offset: The part's place in the value, in bytes.
        data: The part.
        grace_seconds: How long it is kept if no put names it.
        timeout: The time that the caller has left, in seconds; None: no end.
    """
    await database.fetch(
        "put_part", thread_key(tenant, thread_id), thread_id, upload_id, offset, data, grace_seconds, timeout=timeout
    )
