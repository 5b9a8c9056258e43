"""Retention: protobuf to domain and back."""

from __future__ import annotations

from checkpointd.v1 import retention_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.retention import (
    MAX_HOLD_SECONDS,
    MAX_KEEP_NEWEST,
    MAX_POLICY_NAME_BYTES,
    MAX_THREAD_BYTES,
    Expiring,
    RetentionAction,
    RetentionEffect,
    RetentionOutcome,
    RetentionPolicy,
)
from checkpointd_server.domain.thread_lists import MAX_TTL_SECONDS
from checkpointd_server.rpc.conversion.metadata_index import project_filter
from checkpointd_server.rpc.conversion.validation import check_optional_text, check_text

_LIMITS = {
    "max_idle_seconds": MAX_TTL_SECONDS,
    "max_age_seconds": MAX_TTL_SECONDS,
    "keep_newest": MAX_KEEP_NEWEST,
    "max_bytes": MAX_THREAD_BYTES,
}
"""The maximum of each limit of a policy."""
_ACTIONS = {
    RetentionAction.DELETE: pb.RETENTION_ACTION_DELETE,
    RetentionAction.TRIM: pb.RETENTION_ACTION_TRIM,
}
_OUTCOMES = {
    RetentionOutcome.PLANNED: pb.RETENTION_OUTCOME_PLANNED,
    RetentionOutcome.DONE: pb.RETENTION_OUTCOME_DONE,
    RetentionOutcome.HELD: pb.RETENTION_OUTCOME_HELD,
    RetentionOutcome.BUSY: pb.RETENTION_OUTCOME_BUSY,
}


def read_policy(message: pb.RetentionPolicy, limits: Limits) -> RetentionPolicy:
    """Returns the policy of a request. Raises InvalidArgument."""
    check_text(message.name, "policy.name", MAX_POLICY_NAME_BYTES)
    check_optional_text(message.thread_id_prefix, "policy.thread_id_prefix", limits.max_thread_id_bytes)
    given = {field: getattr(message, field) for field in _LIMITS if message.HasField(field)}
    for field, number in given.items():
        if not 1 <= number <= _LIMITS[field]:
            problem = f"is {number}, must be from 1 to {_LIMITS[field]}"
            raise InvalidArgument(f"policy.{field}", problem, limit=_LIMITS[field])
    if not 0 <= message.hold_seconds <= MAX_HOLD_SECONDS:
        problem = f"is {message.hold_seconds}, must be from 0 to {MAX_HOLD_SECONDS}"
        raise InvalidArgument("policy.hold_seconds", problem, limit=MAX_HOLD_SECONDS)
    if not given and not message.keep_last_of_run:
        alone = next((field for field in ("hold_seconds", "delete_interrupted") if getattr(message, field)), None)
        problem = f"sets no limit: set one of {', '.join(_LIMITS)}, keep_last_of_run"
        if alone is not None:
            raise InvalidArgument(f"policy.{alone}", f"deletes nothing by itself, and the policy {problem}")
        raise InvalidArgument("policy", problem)
    return RetentionPolicy(
        name=message.name,
        prefix=message.thread_id_prefix,
        metadata=project_filter(message.metadata, limits, field="policy.metadata") or None,
        deletes_interrupted=message.delete_interrupted,
        keep_last_of_run=message.keep_last_of_run,
        hold_seconds=message.hold_seconds,
        **given,
    )


def write_policy(policy: RetentionPolicy, message: pb.RetentionPolicy) -> None:
    """Fills in a policy."""
    message.name = policy.name
    message.thread_id_prefix = policy.prefix
    message.metadata_json = policy.metadata or ""
    message.delete_interrupted = policy.deletes_interrupted
    message.keep_last_of_run = policy.keep_last_of_run
    message.hold_seconds = policy.hold_seconds
    for field in _LIMITS:
        if (number := getattr(policy, field)) is not None:
            setattr(message, field, number)
    if policy.updated_at is not None:
        message.updated_at.FromDatetime(policy.updated_at)


def write_effect(effect: RetentionEffect, message: pb.RetentionEffect) -> None:
    """Fills in a deletion."""
    message.thread_id = effect.thread_id
    message.action = _ACTIONS[effect.action]
    message.outcome = _OUTCOMES[effect.outcome]
    message.reason = effect.reason
    message.policy = effect.policy
    message.checkpoints = effect.checkpoints
    if effect.until is not None:
        message.held_until.FromDatetime(effect.until)
    message.hold_policy = effect.hold_policy


def write_expiring(entry: Expiring, message: pb.ExpiringThread) -> None:
    """Fills in an announced deletion."""
    message.thread_id = entry.thread_id
    message.action = _ACTIONS[entry.action]
    message.reason = entry.reason
    message.policy = entry.policy
    message.checkpoints = entry.checkpoints
    message.below_checkpoint_id = entry.below
    message.deadline_at.FromDatetime(entry.deadline_at)
    message.hold_policy = entry.hold_policy
