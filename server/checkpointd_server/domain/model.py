"""The things a checkpoint store holds, and what is said to it and by it.

A tenant has threads, a thread has namespaces ("" is the root graph), a namespace has checkpoints. A channel's value
belongs to (thread, namespace, channel, version), not to a checkpoint: checkpoints share the values they didn't change.
Task writes lie beside a checkpoint, which need not exist yet.

The store looks into no value: a value is (type, data), and `body` and `metadata` are bytes too. A large value's data is
a list of pieces, which belong to the thread and are shared by its values. What it must know of a checkpoint to find its
values again is `channel_versions`. Channel versions are text here; `rpc` writes the three types that they can have into
it and reads them out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class PieceList(NamedTuple):
    """A value's bytes as the pieces that make them."""

    size: int
    """How many bytes they make together."""
    names: list[bytes]
    """Their names in order: the SHA-256 of what they hold. In what was read there may be another one: it tells where a
    value lies that was stored whole and left out of a large answer."""


class Piece(NamedTuple):
    """A piece of a thread's values."""

    name: bytes
    data: bytes
    compression: int
    """How `data` is compressed, by the protocol's numbers; 0: not at all."""


class TypedValue(NamedTuple):
    """A serialized value: the serializer's tag, and the bytes or the pieces that make them."""

    type: str
    data: bytes
    pieces: PieceList | None = None
    """Not None: `data` is empty."""


class ChannelValue(NamedTuple):
    """A channel's value at a version. None: the channel is empty at this version."""

    channel: str
    version: str
    value: TypedValue | None


class TaskWrite(NamedTuple):
    """One write of a task. `idx` below 0 marks a special write, which replaces a stored one; others never do."""

    task_id: str
    task_path: str
    idx: int
    channel: str
    value: TypedValue


class Namespace(NamedTuple):
    """Where checkpoints live. Every key begins with the tenant, which comes from the authenticated identity."""

    tenant: str
    thread_id: str
    checkpoint_ns: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Precondition:
    """What a write expects of its namespace: accepted if either set field holds."""

    if_version_match: int | None = None
    """The version it must still have; 0: there must be no checkpoint in it."""
    if_last_writer: bytes = b""
    """The writer of its last put; empty: not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PutCheckpoint:
    """A checkpoint to store."""

    namespace: Namespace
    checkpoint_id: str
    parent_checkpoint_id: str | None
    body: bytes
    """The checkpoint's own fields but for `channel_versions`, as `rpc` encoded them."""
    channel_versions: dict[str, str]
    """Every channel's version at this checkpoint."""
    values: list[ChannelValue]
    """The channels that changed, at most one entry each."""
    metadata: TypedValue
    metadata_index: str
    """What filters see of the metadata: a JSON object, as text."""
    run_id: str | None
    """The metadata's run_id, if it is text: what deleting a run goes by."""
    precondition: Precondition | None = None
    writer: bytes = b""
    request_id: bytes = b""
    lease_token: int = 0
    """The token of the lease that the writer holds on the thread; 0: none."""
    pieces: list[Piece] = field(default_factory=list)
    """Pieces of the values that the thread may not have yet, each at most once."""

    @property
    def names(self) -> set[bytes]:
        """The names of all pieces that the values refer to."""
        return _names(value for _, _, value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutWrites:
    """Task writes to store beside a checkpoint."""

    namespace: Namespace
    checkpoint_id: str
    writes: list[TaskWrite]
    """At most one entry for each (task_id, idx)."""
    precondition: Precondition | None = None
    request_id: bytes = b""
    lease_token: int = 0
    """The token of the lease that the writer holds on the thread; 0: none."""
    pieces: list[Piece] = field(default_factory=list)
    """Pieces of the values that the thread may not have yet, each at most once."""

    @property
    def names(self) -> set[bytes]:
        """The names of all pieces that the values refer to."""
        return _names(write.value for write in self.writes)


def _names(values: Iterable[TypedValue | None]) -> set[bytes]:
    return {name for value in values if value is not None and value.pieces is not None for name in value.pieces.names}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint as it was stored, with all that belongs to it."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    body: bytes
    channel_versions: dict[str, str]
    metadata: TypedValue
    version: int
    """The namespace's version at the time of the read."""
    values: list[ChannelValue] = field(default_factory=list)
    """Without the empty channels. Empty in the metadata view."""
    pending_writes: list[TaskWrite] = field(default_factory=list)
    """By (task_path, task_id, idx), bytewise. Empty in the metadata view."""


class ReadResult(NamedTuple):
    """A checkpoint or its certain absence, and the namespace's version (0: no checkpoint in it)."""

    checkpoint: StoredCheckpoint | None
    version: int
    pieces: list[Piece]
    """Pieces of its values, the first ones."""


class CheckpointPosition(NamedTuple):
    """Where a page of a list ended. Lists go by checkpoint_id descending, then by thread_id and checkpoint_ns."""

    checkpoint_id: str
    thread_id: str
    checkpoint_ns: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Which checkpoints to list. None stands for any."""

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
    page_bytes: int = 8 * 1024 * 1024
    """Where the page is cut, in bytes; it holds at least one checkpoint."""
    after: CheckpointPosition | None = None
    """Continue behind this position."""


class Page(NamedTuple):
    """A page of a list."""

    checkpoints: list[StoredCheckpoint]
    after: CheckpointPosition | None
    """Where the next page starts. None: this was the last one."""
    version: int
    """The namespace's version if the query named a thread and a namespace, else 0."""
    pieces: list[Piece]
    """Pieces of the first checkpoint's values, the first ones."""


class ChannelHistory(NamedTuple):
    """The writes to a channel since its nearest stored value, oldest first, and that value."""

    channel: str
    writes: list[TaskWrite]
    checkpoint_ids: list[str]
    """For each write, the checkpoint that it lies beside."""
    seed: TypedValue | None
    seed_version: str | None
    """The version of the channel that has the seed for its value."""


class DeltaHistory(NamedTuple):
    """One history for each channel asked for, in that order, and the namespace's version."""

    channels: list[ChannelHistory]
    version: int
    pieces: list[Piece]
    """Pieces of the values, the first ones."""


class FoundPieces(NamedTuple):
    """Pieces that were asked for: the first of them, as many as fit, and the names among those that aren't there."""

    pieces: list[Piece]
    missing: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyThread:
    """A thread to copy, whole or up to a checkpoint of its root namespace."""

    tenant: str
    source_thread_id: str
    target_thread_id: str
    checkpoint_id: str | None = None
    """Fork here: this checkpoint, its ancestors, and what their steps left in subgraphs' namespaces."""
    request_id: bytes = b""
    lease_token: int = 0
    """The token of the lease that the caller holds on the target; 0: none."""


class PruneStrategy(Enum):
    """What pruning leaves of a thread."""

    KEEP_LATEST = "keep_latest"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireLease:
    """A lease to take, or to wait for."""

    tenant: str
    thread_id: str
    holder: bytes = field(repr=False)
    """Who asks. The same holder gets the lease that it has."""
    ttl: float
    """How long the lease lives without a renewal, in seconds."""
    wait: float = 0.0
    """How long to wait for it, in seconds."""


class Lease(NamedTuple):
    """A lease in force."""

    token: int
    """Greater than those of all leases before it on its thread."""
    remaining: float
    """How long it lives without a renewal, in seconds."""


class LeaseState(NamedTuple):
    """Who may write to a thread."""

    lease: Lease | None
    """None: nobody holds it."""
    waiting: int
    """How many wait in line."""
