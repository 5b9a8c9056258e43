"""Lists of threads: what is asked, and what is told of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from checkpointd_server.domain.serializers import SerializerFamily

MAX_TTL_SECONDS = 2**40
"""The maximum time to live of a thread, in seconds."""
MAX_TAGS = 64
"""The maximum number of a thread's tags."""
MAX_TAG_NAME_BYTES = 128
MAX_TAG_BYTES = 512
"""The maximum size of a tag's text, in bytes."""


class ThreadStatus(Enum):
    """The status of a thread, by the latest checkpoint of its root namespace."""

    IDLE = "idle"
    """It is finished, or, if it has tasks left, its run was aborted or stopped at a breakpoint."""
    RUNNING = "running"
    """It has tasks left, and was written to in the last minute or is leased."""
    INTERRUPTED = "interrupted"
    """It is interrupted, waiting for an answer."""
    FAILED = "failed"
    """Its last run ended in an error."""


class ThreadPosition(NamedTuple):
    """The end of a page: lists go by activity descending, then by key descending."""

    active_at: datetime
    thread: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadFilter:
    """A filter of threads. Unset fields match any."""

    prefix: str = ""
    """The prefix of their names."""
    metadata: str | None = None
    """A JSON object, as text, that the metadata index of the latest checkpoint must contain."""
    tags: Mapping[str, str] | None = None
    """Tags that they must have, with these texts."""
    statuses: Sequence[ThreadStatus] = ()
    created_from: datetime | None = None
    created_before: datetime | None = None
    active_from: datetime | None = None
    active_before: datetime | None = None
    is_archived: bool = False
    """True: only archived threads. False: only others."""


class Signal(NamedTuple):
    """An interrupt or an error of a thread's latest checkpoint."""

    task_id: str
    is_error: bool
    type: str
    data: bytes | None
    """None: too large to be sent here."""
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A thread, without its values."""

    thread_id: str
    status: ThreadStatus
    checkpoints: int
    bytes: int
    """The approximate bytes of its rows in the database."""
    created_at: datetime
    active_at: datetime
    """The time of the last write."""
    checkpoint_id: str | None
    """The latest of the root namespace; None: there is none."""
    metadata: str
    """The searchable part of that one's metadata: a JSON object, as text."""
    next: Sequence[str]
    """The nodes that run next."""
    signals: Sequence[Signal]
    tags: Mapping[str, str]
    archived_at: datetime | None
    is_pinned: bool
    ttl_seconds: int | None
    serializer: SerializerFamily | None
    """The family of the serializer that it was first written with. None: unknown."""


class ThreadPage(NamedTuple):
    """A page of a list of threads."""

    threads: list[Thread]
    after: ThreadPosition | None
    """The start of the next page. None: this was the last one."""


class ThreadCount(NamedTuple):
    """The number of threads, or a lower bound if not all were counted."""

    number: int
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadChange:
    """A change of a thread itself."""

    tenant: str
    thread_id: str
    set_tags: Mapping[str, str]
    removed_tags: Sequence[str]
    is_pinned: bool | None = None
    """None: as it is."""
    ttl_seconds: int | None = None
    """None: as it is; 0: none of its own."""


class Node(NamedTuple):
    """A checkpoint as a node of a thread's trees, of which each namespace has at least one."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    created_at: datetime
    step: str | None
    source: str | None
    run_id: str | None
    writes: int
    is_interrupted: bool
    has_failed: bool


class NodePosition(NamedTuple):
    """The end of a page of nodes: they go by checkpoint_id descending, then by namespace."""

    checkpoint_id: str
    checkpoint_ns: str
