"""Outcomes of `commit_writes` for a group, as the results of its writes, and how these get back to their callers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from checkpointd_server.domain.checkpoints import PendingWrite, PutCheckpoint, PutWrites
from checkpointd_server.domain.errors import (
    BaseMissing,
    ChainTooLong,
    CheckpointdError,
    DatabaseUnavailable,
    InvalidArgument,
    PredecessorMissing,
    SerializerMismatch,
    VersionConflict,
    lease_refusal,
)
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.store.writes.merge import NO_PRECONDITION, Group

Result = int | CheckpointdError


class Outcome(NamedTuple):
    """The outcome of a group."""

    reason: str
    version: int | None
    previous: int
    last_checkpoint_id: str | None
    remaining: float | None
    serializer: int | None
    channel: str | None


def stored(version: int, previous: int) -> Outcome:
    """Returns the outcome of a stored group from its namespace's versions."""
    return Outcome("ok", version, previous, None, None, None, None)


def read_outcomes(columns: Iterable[list[Any] | None], groups: int) -> list[Outcome]:
    """Reads the columns of the result, which have an entry for each group."""
    return [Outcome(*entry) for entry in zip(*(column or (None,) * groups for column in columns), strict=True)]


def versions_of_stored(group: Group, outcome: Outcome) -> list[int]:
    """Returns the versions of a stored group's writes."""
    assert outcome.version is not None
    current, following = outcome.previous, outcome.version - group.puts + 1
    versions = []
    for write in group.writes():
        if isinstance(write, PutCheckpoint):
            current, following = following, following + 1
        versions.append(current)
    return versions


def result_of_refused(write: PutCheckpoint | PutWrites, outcome: Outcome, limits: Limits) -> Result:
    """Returns the result of a write that was a group by itself."""
    thread_id = write.namespace.thread_id
    match outcome.reason:
        case "repeated":
            if outcome.version is not None:
                return outcome.version
            return InvalidArgument(
                "request_id",
                "is that of the namespace's last put, of another checkpoint; choose one at random for each put",
            )
        case "serializer":
            assert outcome.serializer is not None
            assert write.serializer is not None
            return SerializerMismatch(thread_id, found=SerializerFamily(outcome.serializer), family=write.serializer)
        case "held" | "lost":
            return lease_refusal(outcome.reason, thread_id, outcome.remaining)
        case "conflict" | "predecessor":
            error = PredecessorMissing if outcome.reason == "predecessor" else VersionConflict
            return error(
                thread_id=thread_id,
                checkpoint_ns=write.namespace.checkpoint_ns,
                expected_version=(write.precondition or NO_PRECONDITION).if_version_match,
                current_version=outcome.version or 0,
                current_checkpoint_id=outcome.last_checkpoint_id,
            )
        case "base":
            return BaseMissing(thread_id, outcome.channel or "")
        case "full":
            return InvalidArgument(
                "writes",
                "the checkpoint has as many task writes beside it as an answer holds",
                limit=limits.max_written_bytes,
            )
        case "chain":
            return ChainTooLong(thread_id, outcome.channel or "", limit=limits.max_chain)
    return DatabaseUnavailable("others got in the way of this write again and again; try again")


def finish(results: Iterable[tuple[PendingWrite, int | Exception]]) -> None:
    """Sets the results of writes that have none, and delivers them: those that belong together in one list."""
    finished: dict[Callable[[list[PendingWrite]], None], list[PendingWrite]] = {}
    for pending, result in results:
        if pending.result is None:
            # The traceback of a known error is useless, and its frames would form a reference cycle with the write.
            pending.result = result.with_traceback(None) if isinstance(result, CheckpointdError) else result
            finished.setdefault(pending.deliver, []).append(pending)
    for deliver, writes in finished.items():
        deliver(writes)
