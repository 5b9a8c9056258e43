"""Checkpoints, and differences between two, as plain data for tools. No user's class is instantiated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from checkpointd.v1.values_pb2 import CheckpointTuple, TypedValue
from checkpointd_server.rpc.conversion.plain_data import left_out, plain

MAX_VALUE_BYTES = 256 * 1024
MAX_TOTAL_BYTES = 1024 * 1024
"""How many bytes a value has, and all of them together, that are decoded. What is larger is shown by its size."""


class Decoder:
    """Decodes values up to a total size.

    Args:
        room: The total size of values to decode, in bytes. None: no limit.
    """

    def __init__(self, room: int | None = None) -> None:
        self._room = room

    def decode(self, value: TypedValue) -> Any:
        """Returns a value in the form of `plain_data.plain`."""
        if value.HasField("parts"):
            return left_out(value.type, value.parts.size)
        if self._room is not None:
            if len(value.data) > min(self._room, MAX_VALUE_BYTES):
                return left_out(value.type, len(value.data))
            self._room -= len(value.data)
        return plain(value.type, value.data)


def show(checkpoint: CheckpointTuple, decoder: Decoder) -> dict[str, Any]:
    """Returns a checkpoint as JSON has it."""
    return {
        "checkpoint_ns": checkpoint.checkpoint_ns,
        "checkpoint_id": checkpoint.checkpoint_id,
        "parent_checkpoint_id": checkpoint.parent_checkpoint_id or None,
        "ts": ts_of(checkpoint) or None,
        "namespace_version": checkpoint.version,
        "metadata": decoder.decode(checkpoint.metadata.value),
        "values": {value.channel: decoder.decode(value.value) for value in checkpoint.values},
        "pending_writes": [
            {"task_id": write.task_id, "idx": write.idx, "channel": write.channel, "value": decoder.decode(write.value)}
            for write in checkpoint.pending_writes
        ],
    }


def ts_of(checkpoint: CheckpointTuple) -> str:
    """Returns a checkpoint's time, as set by its client, or an empty text."""
    body = plain("msgpack", checkpoint.body)
    ts = body.get("ts") if isinstance(body, dict) else None
    return ts if isinstance(ts, str) else ""


def compare(before: CheckpointTuple, after: CheckpointTuple, decoder: Decoder) -> dict[str, Any]:
    """Returns the differences between two checkpoints as JSON has them.

    "values" and "metadata" each have "added", "removed" and "changed". Values that can't be read as plain data, because
    they are encrypted or large, count as changed if their versions differ.
    """
    old, new = (
        {value.channel: (value.version, value.value) for value in one.values if value.HasField("value")}
        for one in (before, after)
    )
    values: dict[str, dict[str, Any]] = {
        "added": {name: decoder.decode(value) for name, (_, value) in new.items() if name not in old},
        "removed": {name: decoder.decode(value) for name, (_, value) in old.items() if name not in new},
        "changed": {},
    }
    for name in sorted(old.keys() & new.keys()):
        (version, value), (new_version, new_value) = old[name], new[name]
        # Two versions may have the same value.
        if version != new_version:
            shown = {"before": decoder.decode(value), "after": decoder.decode(new_value)}
            if shown["before"] != shown["after"] or "$serialized" in json.dumps(shown["before"]):
                values["changed"][name] = shown
    metadata = [decoder.decode(one.metadata.value) for one in (before, after)]
    return {
        "thread_id": before.thread_id,
        "checkpoint_ns": before.checkpoint_ns,
        "before": before.checkpoint_id,
        "after": after.checkpoint_id,
        "values": values,
        "metadata": _differences(*(found if isinstance(found, dict) else {"": found} for found in metadata)),
    }


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "added": {name: after[name] for name in after if name not in before},
        "removed": {name: before[name] for name in before if name not in after},
        "changed": {
            name: {"before": before[name], "after": after[name]}
            for name in before
            if name in after and before[name] != after[name]
        },
    }
