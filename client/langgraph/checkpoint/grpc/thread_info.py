"""Types that `saver.threads` takes and returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, get_args

ThreadStatus = Literal["idle", "running", "interrupted", "failed"]
"""The status of a thread, by its latest checkpoint."""

STATUSES: tuple[ThreadStatus, ...] = get_args(ThreadStatus)


class ThreadQuery(TypedDict, total=False):
    """A selection of threads. An entry that is left out stands for any; all that are given must hold."""

    prefix: str
    """The prefix of their ids."""
    metadata: Mapping[str, Any] | None
    """Entries that the metadata of their latest checkpoint contains."""
    tags: Mapping[str, str] | None
    """Tags that they have, with these texts."""
    status: ThreadStatus | Collection[ThreadStatus]
    """One of "idle", "running", "interrupted", "failed", or several."""
    created_from: datetime | None
    """Created from then on. A time without a zone is the local one."""
    created_before: datetime | None
    """Created before."""
    active_from: datetime | None
    """Last written to from then on."""
    active_before: datetime | None
    """Last written to before."""
    archived: bool
    """Those that are archived, instead of those that aren't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSignal:
    """An interrupt or an error beside the latest checkpoint of a thread."""

    task_id: str
    is_error: bool
    value: Any
    """As plain data: an object is {"$type": name, ...its fields}; what the server can't decode, because it is encrypted
    or of another serializer, or is large, is {"$serialized": type tag, "$bytes": size}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadInfo:
    """A thread, without its values."""

    thread_id: str
    status: ThreadStatus
    checkpoints: int
    """The number of checkpoints, in all namespaces."""
    bytes: int
    """The approximate bytes of its rows in the database."""
    created_at: datetime
    active_at: datetime
    """The time of the last write."""
    checkpoint_id: str | None
    """The latest of the root namespace."""
    metadata: Mapping[str, Any]
    """The searchable part of that one's metadata."""
    next: Sequence[str]
    """The nodes that run next."""
    interrupts: Sequence[ThreadSignal]
    errors: Sequence[ThreadSignal]
    tags: Mapping[str, str]
    archived_at: datetime | None
    pinned: bool
    """Nothing of it may be deleted."""
    ttl_seconds: int | None
    """Its time to live after its last use, if it has one of its own."""
    serializer_family: str | None
    """The family of the serializer that it was first written with: "langgraph-msgpack", "langgraph-json" or "other".
    None: nothing that it holds tells one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadCount:
    """The number of threads."""

    count: int
    at_least: bool
    """There may be more: counting ends at some number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointNode:
    """A checkpoint in the tree of its namespace."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    created_at: datetime
    step: int | None
    source: str | None
    run_id: str | None
    writes: int
    """The number of task writes beside it."""
    interrupted: bool
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadDiff:
    """The differences between two checkpoints' values, channel by channel."""

    added: Mapping[str, Any]
    removed: Mapping[str, Any]
    changed: Mapping[str, tuple[Any, Any]]
    """Before and after."""
