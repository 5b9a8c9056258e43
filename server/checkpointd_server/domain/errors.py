"""The domain's errors.

    CheckpointdError
    ├── InvalidArgument        a field is invalid
    ├── VersionConflict        a precondition doesn't hold
    │   └── PredecessorMissing the write's predecessor was refused or lost
    ├── SerializerMismatch     the thread was written by the other of LangGraph's serializers
    ├── LeaseHeld              somebody else holds the lease on the thread
    ├── LeaseLost              the lease that a write names is not in force
    ├── ThreadArchived         the thread is read-only
    ├── ThreadPinned           the thread is protected from deletions
    ├── ThreadNotFound         there is no such thread
    ├── PolicyNotFound         there is no such retention policy
    ├── ThreadExists           the target of a copy already has checkpoints
    ├── ItemVersionConflict    an item doesn't have the expected version
    ├── VectorsUnavailable     the database has no vectors
    ├── CheckpointNotFound     the checkpoint to fork at doesn't exist
    ├── BaseMissing            a patch's base, or an upload, is not stored
    ├── ChainTooLong           a chain of patches would be too long
    ├── SealedValue            only the client can apply a value's patches
    ├── BrokenPatch            a patch can't be applied, or its result doesn't match
    ├── ResultTooLarge         the answer doesn't fit into a message
    ├── DatabaseUnavailable    the database can't be reached, or refuses to work
    ├── DeadlineExceeded       the caller's time ran out before the database answered
    ├── Overloaded             the server has reached a limit
    ├── QuotaExceeded          the tenant has used up a quota
    └── SetupError             an operator's mistake, which `checkpointd` prints before it exits
        └── SchemaTooNew       the database was migrated by a newer checkpointd

Messages are for people and may be shown to clients: they name fields, limits and ids, never values, SQL or the driver's
messages. An error's cause is its `__cause__`, for the server's log.
"""

from __future__ import annotations

from typing import Literal

from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.domain.tenants import Quota

Bound = Literal["calls", "bytes", "queue", "streams", "descriptors"]
"""The limits that a server can reach."""


class CheckpointdError(Exception):
    """Base of every error that checkpointd raises on purpose."""


class InvalidArgument(CheckpointdError):
    """A field can't be used as it is.

    Attributes:
        field: The request's field, as the protocol names it, e.g. "thread_id" or "values[2].channel".
        problem: The reason.
        limit: The limit that was exceeded, in the field's unit, or None.
    """

    def __init__(self, field: str, problem: str, *, limit: int | None = None) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem
        self.limit = limit


class VersionConflict(CheckpointdError):
    """A write's precondition doesn't hold. Nothing of the write was stored.

    Attributes:
        thread_id: The thread written to.
        checkpoint_ns: The namespace written to.
        expected_version: The expected version (0: nothing), or None if only a writer was expected.
        current_version: The present version (0: nothing).
        current_checkpoint_id: The checkpoint put last, or None.
    """

    def __init__(
        self,
        *,
        thread_id: str,
        checkpoint_ns: str,
        expected_version: int | None,
        current_version: int,
        current_checkpoint_id: str | None,
    ) -> None:
        expected = "another writer" if expected_version is None else f"version {expected_version}"
        super().__init__(
            f"thread {thread_id!r}, namespace {checkpoint_ns!r}: expected {expected}, found version {current_version}"
        )
        self.thread_id = thread_id
        self.checkpoint_ns = checkpoint_ns
        self.expected_version = expected_version
        self.current_version = current_version
        self.current_checkpoint_id = current_checkpoint_id


class PredecessorMissing(VersionConflict):
    """The write's predecessor was refused or never arrived: the last put is the writer's own, but not the one named."""


class SerializerMismatch(CheckpointdError):
    """The thread was written by the other one of LangGraph's serializers. Nothing of the write was stored.

    Attributes:
        thread_id: The thread.
        found: The family of the thread.
        family: The family of the write.
    """

    def __init__(self, thread_id: str, *, found: SerializerFamily, family: SerializerFamily) -> None:
        super().__init__(
            f"thread {thread_id!r} was written in the form {found.label}, which readers of {family.label} can't read, "
            f"nor the other way round: write it with the serializer of {found.label}, or to another thread"
        )
        self.thread_id = thread_id
        self.found = found
        self.family = family


class LeaseHeld(CheckpointdError):
    """Another holder has the lease on the thread, or is first in the queue for it. Nothing was stored.

    Attributes:
        thread_id: The thread.
        remaining: The lease's remaining time without a renewal, in seconds. None: it is free, but others are first.
    """

    def __init__(self, thread_id: str, *, remaining: float | None) -> None:
        until = "others are first in line" if remaining is None else f"it lives {remaining:.1f} s without a renewal"
        super().__init__(f"thread {thread_id!r}: somebody else has the lease ({until})")
        self.thread_id = thread_id
        self.remaining = remaining


class LeaseLost(CheckpointdError):
    """The lease that a call names is not in force. Nothing was stored.

    It expired, was released, or another holder has one now.
    """

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id!r}: the lease is no longer in force; take a new one and read again")
        self.thread_id = thread_id


class ThreadArchived(CheckpointdError):
    """The thread is archived, and so read-only. Nothing was stored, deleted or granted."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id!r} is archived, and read-only: unarchive it first")
        self.thread_id = thread_id


class ThreadPinned(CheckpointdError):
    """The thread is pinned, which protects it from deletions. Nothing was deleted."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"thread {thread_id!r} is pinned, and nothing of it may be deleted: unpin it first")
        self.thread_id = thread_id


class PolicyNotFound(CheckpointdError):
    """There is no retention policy with such a name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no retention policy {name!r}")
        self.name = name


class ThreadNotFound(CheckpointdError):
    """There is no such thread."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"there is no thread {thread_id!r}")
        self.thread_id = thread_id


_ARCHIVED_SECONDS = 1e10
"""No lease lives as long as this. On an archived thread nobody's does."""


def lease_refusal(outcome: str, thread_id: str, remaining: float | None) -> CheckpointdError:
    """Returns the error for the database's outcome about a lease.

    Args:
        outcome: "held" or "lost".
        thread_id: The thread.
        remaining: The remaining time of the lease in force, in seconds. None: there is none.
    """
    if remaining is not None and remaining > _ARCHIVED_SECONDS:
        return ThreadArchived(thread_id)
    return LeaseHeld(thread_id, remaining=remaining) if outcome == "held" else LeaseLost(thread_id)


class ThreadExists(CheckpointdError):
    """The target of a copy holds checkpoints already."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"target_thread_id: thread {thread_id!r} holds checkpoints already; copy to a new thread")
        self.thread_id = thread_id


class CheckpointNotFound(CheckpointdError):
    """The checkpoint to fork at is not in the thread's root namespace."""

    def __init__(self, thread_id: str, checkpoint_id: str) -> None:
        super().__init__(
            f"checkpoint_id: thread {thread_id!r} has no checkpoint {checkpoint_id!r} in its root namespace"
        )
        self.thread_id = thread_id
        self.checkpoint_id = checkpoint_id


class BaseMissing(CheckpointdError):
    """A patch's base isn't stored, or an upload is missing or incomplete. Nothing was stored.

    Attributes:
        thread_id: The thread written to.
        channel: The channel whose value it is.
    """

    def __init__(self, thread_id: str, channel: str) -> None:
        super().__init__(
            f"thread {thread_id!r}, channel {channel!r}: what the value builds on is not stored; send it whole"
        )
        self.thread_id = thread_id
        self.channel = channel


class ChainTooLong(CheckpointdError):
    """A value would exceed the maximum length of a chain of patches. Nothing was stored.

    Attributes:
        thread_id: The thread written to.
        channel: The channel whose value it is.
        limit: The maximum length of a chain.
    """

    def __init__(self, thread_id: str, channel: str, *, limit: int) -> None:
        super().__init__(
            f"thread {thread_id!r}, channel {channel!r}: more than {limit} patches follow one another; send it whole"
        )
        self.thread_id = thread_id
        self.channel = channel
        self.limit = limit


class SealedValue(CheckpointdError):
    """A whole value was requested, but it has patches that its client has encrypted."""

    def __init__(self) -> None:
        super().__init__(
            "the value holds encrypted patches, which only a client with the key can apply; ask for patches"
        )


class BrokenPatch(CheckpointdError, ValueError):
    """A patch's instructions are invalid, or their result doesn't match the patch's size or checksum."""


class ItemVersionConflict(CheckpointdError):
    """An item doesn't have the version that a change expects. The change was not made.

    Attributes:
        namespace: The item's namespace.
        key: Its key.
        expected_version: The expected version (0: none).
        current_version: The present version (0: nothing).
    """

    def __init__(self, namespace: tuple[str, ...], key: str, *, expected_version: int, current_version: int) -> None:
        super().__init__(
            f"item {key!r} of namespace {'/'.join(namespace)!r} has version {current_version}, "
            f"version {expected_version} was expected"
        )
        self.namespace = namespace
        self.key = key
        self.expected_version = expected_version
        self.current_version = current_version


class VectorsUnavailable(CheckpointdError):
    """The database has no vectors, because the extension pgvector is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "the database has no vectors: install its extension pgvector (CREATE EXTENSION vector), then run "
            "`checkpointd migrate`; all else of the store works without"
        )


class ResultTooLarge(CheckpointdError):
    """The answer doesn't fit into a message.

    Attributes:
        limit: The largest message, in bytes.
    """

    def __init__(self, size: int, *, limit: int) -> None:
        super().__init__(f"the answer has {size} bytes, the largest message is {limit}")
        self.limit = limit


class DatabaseUnavailable(CheckpointdError):
    """The database can't be reached, or refuses to work. Safe to retry."""

    def __init__(self, message: str = "the database is not available") -> None:
        super().__init__(message)


class DatabaseFull(DatabaseUnavailable):
    """The database's disk is full. Reads still work."""

    def __init__(self) -> None:
        super().__init__("the database's disk is full")


class DeadlineExceeded(CheckpointdError):
    """The caller's time ran out before the database answered. A write may have been stored nevertheless."""

    def __init__(self, message: str = "the deadline passed before the database answered") -> None:
        super().__init__(message)


class Overloaded(CheckpointdError):
    """The server has reached a limit. Nothing was done; safe to retry after a while.

    Attributes:
        bound: What there is too much of: "calls" at work, "bytes" of requests and answers, "queue": work that waits for
            a database connection, "streams": calls that stay open, or "descriptors": files and connections that the
            system lets the server have open.
        limit: The limit.
    """

    def __init__(self, bound: Bound = "calls", *, limit: int, is_share: bool = False) -> None:
        many = "its tenant's share of what it takes at once" if is_share else "as many as it takes at once"
        super().__init__(f"{_TOO_MUCH[bound].format(limit)}, {many}; send this again later")
        self.bound = bound
        self.limit = limit


_TOO_MUCH: dict[Bound, str] = {
    "calls": "the server is at work on {} calls",
    "bytes": "the server holds {} bytes of requests and answers",
    "queue": "{} calls wait for a connection to the database",
    "streams": "{} calls are open",
    "descriptors": "the server has {} files and connections open",
}


class QuotaExceeded(CheckpointdError):
    """The tenant has used up a quota. Nothing was done.

    Attributes:
        quota: The quota.
        limit: How much it may use.
        used: How much it uses.
        retry_after: When to retry, in seconds. None: when something was deleted.
    """

    def __init__(self, quota: Quota, *, limit: int, used: int, retry_after: float | None = None) -> None:
        what = quota.replace("_", " ")
        advice = "delete something, or ask for more" if retry_after is None else "send this again later"
        super().__init__(f"the tenant's quota of {limit} {what} is used up ({used}): {advice}")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.retry_after = retry_after


class SetupError(CheckpointdError):
    """An operator's mistake; the message says what to do about it."""


class SchemaTooNew(SetupError):
    """The database was migrated by a newer checkpointd than this one."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the database's schema has migration {found}, with which checkpointd of this release can't work (it knows "
            f"those up to {known}): run the newer checkpointd that migrated it"
        )
        self.found = found
        self.known = known


class SchemaChanged(SetupError):
    """The database was migrated by another build of checkpointd, with a different migration of the same number.

    Releases never change a migration; builds between releases do.
    """

    def __init__(self, schema: str, number: int) -> None:
        super().__init__(
            f"schema {schema!r} of the database was made by another build of checkpointd: its migration {number} is "
            "another one, and no migration leads from there to here. Serve on an empty database, schema or data folder "
            "(--database-url, --schema, --data-dir). To bring threads over, `checkpointd export` them from a server of "
            "the build that made it, and `checkpointd import` them"
        )
        self.number = number
