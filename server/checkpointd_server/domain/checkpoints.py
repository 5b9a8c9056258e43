"""Checkpoints and task writes: the arguments and results of a checkpoint store.

A tenant has threads, a thread has namespaces ("" is the root graph), a namespace has checkpoints. A channel's value
belongs to (thread, namespace, channel, version), not to a checkpoint: checkpoints share the values they didn't change.
Task writes belong to a checkpoint, which need not exist yet.

Channel versions are tagged text here and on the wire: "s" and a text, "i" and an integer, "f" and a float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from checkpointd_server.domain.serializers import SerializerFamily, family_of_metadata
from checkpointd_server.domain.tracing import Span
from checkpointd_server.domain.values import ChannelValue, KnownValue, StoredValue, TypedValue

_NAMES_BYTES = 150
"""Approximate size of the names of a channel or a task write, in bytes."""


class TaskWrite(NamedTuple):
    """One write of a task. `idx` below 0 marks a special write, which replaces a stored one; others never do."""

    task_id: str
    task_path: str
    idx: int
    channel: str
    value: TypedValue


class Namespace(NamedTuple):
    """A place for checkpoints. The tenant comes from the authenticated identity."""

    tenant: str
    thread_id: str
    checkpoint_ns: str


class Precondition(NamedTuple):
    """A condition of a write on its namespace: the version matches, or the last put was the writer's own."""

    if_version_match: int | None = None
    """The version that it must still have. 0: it must be empty. None: not compared."""
    if_last_writer: bytes = b""
    """The writer of its last put; empty: not compared."""
    if_last_checkpoint_id: str = ""
    """The last checkpoint put by that writer. Empty: any of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutCheckpoint:
    """A checkpoint to store."""

    namespace: Namespace
    checkpoint_id: str
    parent_checkpoint_id: str | None
    body: bytes
    """The checkpoint's own fields, as msgpack."""
    channels: list[str]
    """Every channel of the checkpoint, each once."""
    channel_versions: list[str]
    """Their versions, in the same order, as tagged text."""
    values: list[ChannelValue]
    """The channels that changed, at most one entry each."""
    metadata: TypedValue
    metadata_index: str
    """The searchable part of the metadata: a JSON object, as text."""
    run_id: str | None
    """The metadata's run_id, if it is text: what deleting a run goes by."""
    fingerprint: int = 0
    """A hash of the metadata, without what changes in each step."""
    precondition: Precondition | None = None
    writer: bytes = b""
    request_id: bytes = b""
    lease_token: int = 0
    """The token of the writer's lease on the thread. 0: none."""
    ttl_seconds: int | None = None
    """The thread's time to live. 0: none. None: unchanged."""

    @property
    def serializer(self) -> SerializerFamily | None:
        """The family of its serializer. None: unknown."""
        return family_of_metadata(self.metadata.type)

    @property
    def size(self) -> int:
        """Its approximate size in bytes."""
        data = sum([len(value.data) for _, _, value in self.values if value is not None])
        names = _NAMES_BYTES * (len(self.channels) + len(self.values) + 1)
        return data + len(self.body) + len(self.metadata.data) + len(self.metadata_index) + names


@dataclass(frozen=True, slots=True, kw_only=True)
class PutWrites:
    """Task writes to store with a checkpoint."""

    namespace: Namespace
    checkpoint_id: str
    writes: list[TaskWrite]
    """At most one entry for each (task_id, idx)."""
    precondition: Precondition | None = None
    request_id: bytes = b""
    lease_token: int = 0
    """The token of the writer's lease on the thread. 0: none."""
    serializer: SerializerFamily | None = None
    """The family of their serializer. None: unknown."""

    @property
    def size(self) -> int:
        """Its approximate size in bytes."""
        path = len(self.writes[0].task_path) if self.writes else 0
        return sum([len(write.value.data) for write in self.writes]) + (_NAMES_BYTES + path) * (len(self.writes) + 1)


@dataclass(slots=True, eq=False)
class PendingWrite:
    """A submitted write: `deliver` gets it back with a result.

    Writes that end with one commit and have the same `deliver` are delivered in one list.
    """

    write: PutCheckpoint | PutWrites
    size: int
    """Its size in a commit, in bytes."""
    deadline: float | None
    """The time at which its caller gives up, on the event loop's clock; None: never."""
    deliver: Callable[[list[PendingWrite]], None]
    """Receives finished writes. Must not raise."""
    tag: Any = None
    """The caller's own data."""
    spans: Sequence[Span] = ()
    """Its span, if it is traced."""
    result: int | Exception | None = None
    """The namespace's version (of a put: its own), or why nothing was stored: a CheckpointdError, or a fault of ours.
    None: not done yet. Who no longer waits gives it a result: then it isn't begun any more, and isn't handed back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A stored checkpoint, with its task writes. Its values are rows of the enclosing answer."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    body: bytes
    channels: list[str]
    channel_versions: list[str]
    metadata: TypedValue
    version: int
    """The namespace's version at the time of the read."""
    pending_writes: list[TaskWrite] = field(default_factory=list)
    """By (task_path, task_id, idx), bytewise. Empty in the metadata view."""


class ReadResult(NamedTuple):
    """A checkpoint or None, and the namespace's version (0: it is empty)."""

    checkpoint: StoredCheckpoint | None
    version: int
    values: list[StoredValue]
    """The rows that its values are made of, and what its task writes build on that are patches, but for those that the
    caller knows: what stands in the way of applying patches is never missing. A channel without a row, and not known,
    is empty."""


Known = Sequence[KnownValue]
"""Values that the caller already has."""


class CheckpointPosition(NamedTuple):
    """The end of a page of a list. Lists go by checkpoint_id descending, then by thread_id and checkpoint_ns."""

    checkpoint_id: str
    thread_id: str
    checkpoint_ns: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A query of checkpoints. None matches any."""

    tenant: str
    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    before_checkpoint_id: str | None = None
    metadata_filter: str | None = None
    """A JSON object, as text, that the metadata index must contain."""
    metadata_only: bool = False
    """Leave out values and pending writes."""
    page_size: int = 100
    """The most checkpoints on the page, 1 or more."""
    page_bytes: int = 1024 * 1024
    """The size at which the page ends, in bytes of everything sent; it has at least one checkpoint."""
    after: CheckpointPosition | None = None
    """Continue after this position."""


class Page(NamedTuple):
    """A page of a list."""

    checkpoints: list[StoredCheckpoint]
    after: CheckpointPosition | None
    """The start of the next page. None: this was the last one."""
    version: int
    """The namespace's version if the query named a thread and a namespace, else 0."""
    values: list[StoredValue]
    """The rows that the values and task writes of all its checkpoints are made of, each once."""


class ChannelHistory(NamedTuple):
    """A channel's part of a page: writes, newest checkpoint first, and the seed if it was reached."""

    channel: str
    writes: list[tuple[str, TaskWrite]]
    """Each with its checkpoint."""
    seed_version: str | None
    """The version of the channel whose value is the seed. None: not on this page."""


class DeltaHistory(NamedTuple):
    """A page of the walk: one history for each channel asked for, in that order, and the namespace's version."""

    channels: list[ChannelHistory]
    version: int
    values: list[StoredValue]
    """The rows that the seeds and the writes on this page are made of; their position is 0."""
    after: str | None
    """The start of the next page; None: this was the last one."""
