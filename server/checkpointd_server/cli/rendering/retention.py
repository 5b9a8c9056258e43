"""Retention as the commands print it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from checkpointd.v1 import retention_service_pb2 as pb
from checkpointd_server.cli.rendering.tables import byte_size, printable, table

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"))


def duration(seconds: int) -> str:
    """Returns a length of time in the form that the options accept: 90d."""
    for unit, name in _UNITS:
        if seconds and seconds % unit == 0:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def policy_json(policy: pb.RetentionPolicy) -> dict[str, Any]:
    """Returns a policy as JSON has it."""
    return {
        "name": policy.name,
        "prefix": policy.thread_id_prefix,
        "metadata": json.loads(policy.metadata_json) if policy.metadata_json else None,
        "max_idle_seconds": _given(policy, "max_idle_seconds"),
        "delete_interrupted": policy.delete_interrupted,
        "max_age_seconds": _given(policy, "max_age_seconds"),
        "keep_newest": _given(policy, "keep_newest"),
        "keep_last_of_run": policy.keep_last_of_run,
        "max_bytes": _given(policy, "max_bytes"),
        "hold_seconds": policy.hold_seconds,
        "updated_at": _iso(policy.updated_at),
    }


def target_of(policy: pb.RetentionPolicy) -> str:
    """Describes the threads that a policy applies to."""
    told = [f"{printable(policy.thread_id_prefix)}*"] if policy.thread_id_prefix else []
    if policy.metadata_json:
        told.append(printable(policy.metadata_json))
    return " ".join(told) or "all"


def limits_of(policy: pb.RetentionPolicy) -> str:
    """Describes the limits of a policy."""
    told = []
    if policy.HasField("max_idle_seconds"):
        told.append(f"idle {duration(policy.max_idle_seconds)}")
    if policy.delete_interrupted:
        told.append("interrupted too")
    if policy.HasField("max_age_seconds"):
        told.append(f"age {duration(policy.max_age_seconds)}")
    if policy.HasField("keep_newest"):
        told.append(f"newest {policy.keep_newest}")
    if policy.keep_last_of_run:
        told.append("last of each run")
    if policy.HasField("max_bytes"):
        told.append(f"at most {byte_size(policy.max_bytes)}")
    if policy.hold_seconds:
        told.append(f"held {duration(policy.hold_seconds)}")
    return ", ".join(told)


def action_of(entry: pb.RetentionEffect | pb.ExpiringThread) -> str:
    """Returns the action as one word."""
    return pb.RetentionAction.Name(entry.action).removeprefix("RETENTION_ACTION_").lower()


def outcome_of(effect: pb.RetentionEffect) -> str:
    """Returns the outcome as one word."""
    return pb.RetentionOutcome.Name(effect.outcome).removeprefix("RETENTION_OUTCOME_").lower()


def effect_json(effect: pb.RetentionEffect) -> dict[str, Any]:
    """Returns a deletion as JSON has it."""
    return {
        "thread_id": effect.thread_id,
        "action": action_of(effect),
        "outcome": outcome_of(effect),
        "reason": effect.reason,
        "policy": effect.policy or None,
        "checkpoints": effect.checkpoints,
        "held_until": _iso(effect.held_until) if effect.HasField("held_until") else None,
        "hold_policy": effect.hold_policy or None,
    }


def split_json(effects: Sequence[pb.RetentionEffect]) -> dict[str, list[dict[str, Any]]]:
    """Returns what would be deleted, and what would be held, as JSON has it."""
    going, held = _split(effects)
    return {
        "would_delete": [effect_json(effect) for effect in going],
        "would_hold": [effect_json(effect) for effect in held],
    }


def expiring_json(entry: pb.ExpiringThread) -> dict[str, Any]:
    """Returns an announced deletion as JSON has it."""
    return {
        "thread_id": entry.thread_id,
        "action": action_of(entry),
        "reason": entry.reason,
        "policy": entry.policy or None,
        "checkpoints": entry.checkpoints,
        "below_checkpoint_id": entry.below_checkpoint_id or None,
        "deadline_at": _iso(entry.deadline_at),
        "hold_policy": entry.hold_policy,
    }


def tables_of(effects: Sequence[pb.RetentionEffect]) -> list[str]:
    """Returns the deletions as the lines of a table, or no lines if there are none."""
    if not effects:
        return []
    rows = [
        (
            printable(one.thread_id),
            action_of(one),
            outcome_of(one),
            one.checkpoints,
            one.reason,
            printable(one.policy) or "-",
            printable(one.hold_policy) or "-",
        )
        for one in effects
    ]
    header = ("THREAD", "ACTION", "OUTCOME", "CHECKPOINTS", "REASON", "POLICY", "HELD BY")
    return table(header, rows, right=("CHECKPOINTS",))


def summary_of(effects: Sequence[pb.RetentionEffect]) -> str:
    """Says how much is deleted, and how much is held: "3 threads, and 120 checkpoints of 7 others"."""
    going, held = _split(effects)
    return f"{_count(going)}, and hold back {_count(held)}" if held else _count(going)


def _split(effects: Sequence[pb.RetentionEffect]) -> tuple[list[pb.RetentionEffect], list[pb.RetentionEffect]]:
    """Returns what is deleted, and what is held."""
    parts: tuple[list[pb.RetentionEffect], list[pb.RetentionEffect]] = ([], [])
    for effect in effects:
        parts[effect.outcome == pb.RETENTION_OUTCOME_HELD].append(effect)
    return parts


def _count(effects: Sequence[pb.RetentionEffect]) -> str:
    whole = [effect for effect in effects if effect.action == pb.RETENTION_ACTION_DELETE]
    trimmed = [effect for effect in effects if effect.action == pb.RETENTION_ACTION_TRIM]
    checkpoints = sum(effect.checkpoints for effect in trimmed)
    return f"{len(whole)} threads, and {checkpoints} checkpoints of {len(trimmed)} others"


def _given(policy: pb.RetentionPolicy, field: str) -> int | None:
    return getattr(policy, field) if policy.HasField(field) else None


def _iso(time: Timestamp) -> str:
    return time.ToDatetime(tzinfo=UTC).isoformat()
