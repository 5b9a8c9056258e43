"""Lists of threads, and changes of their tags, pin and time to live. Each is one statement, and so one snapshot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from checkpointd_server.domain.errors import InvalidArgument, ThreadNotFound, lease_refusal
from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.domain.thread_lists import (
    MAX_TAGS,
    Node,
    NodePosition,
    Signal,
    Thread,
    ThreadChange,
    ThreadCount,
    ThreadFilter,
    ThreadPage,
    ThreadPosition,
    ThreadStatus,
)
from checkpointd_server.domain.threads import ERROR_CHANNEL, thread_key
from checkpointd_server.store.connections.database import Database, Row

_SIGNAL_BYTES = 16 * 1024
"""Maximum size of an interrupt or error that is sent with its thread, in bytes."""
_PAGE_BUDGET = 4000
"""Approximate number of threads checked for a page, after which it ends even if it isn't full."""
_COUNT_BUDGET = 20_000
_MOST_COUNTED = 1_000_000
_MOST_FOUND = 10_000
"""Maximum count of all threads, and of those that match a filter."""

_FIRST = UUID(int=0)
_LAST = UUID(int=2**128 - 1)
_BEGINNING, _END = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_ABOVE_ALL_IDS = "\U0010ffff" * 64


def first_position() -> ThreadPosition:
    """Returns where the first page starts."""
    return ThreadPosition(_END, _LAST)


def conditions(wanted: ThreadFilter) -> tuple[object, ...]:
    """Returns a filter as arguments of the database's functions. The first: whether to select archived threads."""
    return (
        wanted.is_archived,
        wanted.prefix,
        wanted.prefix + _ABOVE_ALL_IDS,
        wanted.metadata,
        json.dumps(dict(wanted.tags)) if wanted.tags else None,
        [status.value for status in wanted.statuses] or None,
        wanted.created_from or _BEGINNING,
        wanted.created_before or _END,
        wanted.active_from or _BEGINNING,
        wanted.active_before or _END,
    )


async def list_threads(
    database: Database,
    wanted: ThreadFilter,
    *,
    after: ThreadPosition | None,
    page_size: int,
    page_bytes: int,
    timeout: float | None,
) -> ThreadPage:
    """Reads a page of threads, latest activity first. One that isn't full is the last only if `after` is None."""
    start = after or first_position()
    rows = await database.fetch(
        "list_threads",
        *conditions(wanted),
        start.active_at,
        start.thread,
        page_size + 1,
        _PAGE_BUDGET,
        _SIGNAL_BYTES,
        page_bytes,
        timeout=timeout,
        reads=True,
    )
    found, marker = list(rows), None
    if found and found[-1]["o_thread"] is None:
        marker = found.pop()
    has_more = len(found) > page_size
    shown = found[:page_size]
    position = None
    if marker is not None and marker["o_active_at"] is not None:
        position = ThreadPosition(marker["o_active_at"], _FIRST)
    elif marker is not None or has_more:
        position = ThreadPosition(shown[-1]["o_active_at"], shown[-1]["o_thread"])
    return ThreadPage([_thread(row) for row in shown], position)


async def count_threads(database: Database, wanted: ThreadFilter, *, timeout: float | None) -> ThreadCount:
    """Counts threads up to a limit."""
    is_filtered = wanted != ThreadFilter(is_archived=wanted.is_archived)
    limit = _MOST_FOUND if is_filtered else _MOST_COUNTED
    row = await database.fetch_row(
        "count_threads", is_filtered, *conditions(wanted), limit, _COUNT_BUDGET, timeout=timeout, reads=True
    )
    return ThreadCount(row["o_count"], row["o_is_complete"])


async def get_thread(database: Database, tenant: str, thread_id: str, *, timeout: float | None) -> Thread:
    """Reads what lists show of a thread, archived or not. Raises ThreadNotFound."""
    rows = await database.fetch(
        "describe_thread", thread_key(tenant, thread_id), _SIGNAL_BYTES, timeout=timeout, reads=True
    )
    if not rows:
        raise ThreadNotFound(thread_id)
    return _thread(rows[0])


def _thread(row: Row) -> Thread:
    signals = zip(row["w_task_id"], row["w_channel"], row["w_type"], row["w_data"], row["w_bytes"], strict=True)
    return Thread(
        thread_id=row["o_thread_id"],
        status=ThreadStatus(row["o_status"]),
        checkpoints=row["o_checkpoints"],
        bytes=row["o_bytes"],
        created_at=row["o_created_at"],
        active_at=row["o_active_at"],
        checkpoint_id=row["o_checkpoint_id"],
        metadata=row["o_metadata"] or "{}",
        next=row["o_next"],
        signals=[
            Signal(task_id, channel == ERROR_CHANNEL, type, data, size)
            for task_id, channel, type, data, size in signals
        ],
        tags=_tags(row["o_tags"]),
        archived_at=row["o_archived_at"],
        is_pinned=row["o_is_pinned"],
        ttl_seconds=row["o_ttl_seconds"],
        serializer=None if row["o_serializer"] is None else SerializerFamily(row["o_serializer"]),
    )


def _tags(text: str) -> Mapping[str, str]:
    found: dict[str, Any] = json.loads(text)
    return {name: str(value) for name, value in found.items()}


async def archive_thread(
    database: Database, tenant: str, thread_id: str, *, archives: bool, lease: int, timeout: float | None
) -> bool:
    """Archives or unarchives a thread, and returns whether that changed anything.

    Raises ThreadNotFound, LeaseHeld, LeaseLost.
    """
    row = await database.fetch_row("archive_thread", thread_key(tenant, thread_id), lease, archives, timeout=timeout)
    if row["o_outcome"] == "not_found":
        raise ThreadNotFound(thread_id)
    if row["o_outcome"] != "ok":
        raise lease_refusal(row["o_outcome"], thread_id, row["o_remaining"])
    return bool(row["o_is_changed"])


async def update_thread(database: Database, change: ThreadChange, *, timeout: float | None) -> None:
    """Changes tags, the pin and the time to live. Raises ThreadNotFound, InvalidArgument."""
    outcome = await database.fetch_value(
        "update_thread",
        thread_key(change.tenant, change.thread_id),
        json.dumps(dict(change.set_tags)),
        list(change.removed_tags),
        change.is_pinned,
        change.ttl_seconds,
        MAX_TAGS,
        timeout=timeout,
    )
    if outcome == "not_found":
        raise ThreadNotFound(change.thread_id)
    if outcome == "full":
        raise InvalidArgument("tags", f"would be more than {MAX_TAGS} of the thread", limit=MAX_TAGS)


async def list_nodes(
    database: Database,
    tenant: str,
    thread_id: str,
    *,
    after: NodePosition | None,
    page_size: int,
    timeout: float | None,
) -> tuple[list[Node], NodePosition | None]:
    """Reads a page of a thread's checkpoints without their contents, newest first, and where the next page starts."""
    start = after or NodePosition(_ABOVE_ALL_IDS, "")
    rows = await database.fetch(
        "list_nodes",
        thread_key(tenant, thread_id),
        start.checkpoint_id,
        start.checkpoint_ns,
        page_size + 1,
        timeout=timeout,
        reads=True,
    )
    nodes = [Node(*row.values()) for row in rows[:page_size]]
    position = NodePosition(nodes[-1].checkpoint_id, nodes[-1].checkpoint_ns) if len(rows) > page_size else None
    return nodes, position
