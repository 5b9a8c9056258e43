"""What differs between two checkpoints."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from checkpointd.v1.values_pb2 import CheckpointTuple, TypedValue
from checkpointd_server.cli.rendering.tables import printable
from checkpointd_server.rpc.conversion.plain_data import left_out, plain, text


def compare(before: CheckpointTuple, after: CheckpointTuple) -> dict[str, Any]:
    """Returns what differs between two checkpoints as JSON has it.

    Under "values" and "metadata" is what was "added", "removed" and "changed". Values that can't be read as plain data,
    because they are encrypted or large, have changed if their versions have.
    """
    old, new = (
        {value.channel: (value.version, _plain(value.value)) for value in one.values if value.HasField("value")}
        for one in (before, after)
    )
    values = _differences(
        {channel: value for channel, (_, value) in old.items()}, {channel: value for channel, (_, value) in new.items()}
    )
    for channel in old.keys() & new.keys():
        (version, value), (new_version, new_value) = old[channel], new[channel]
        if channel not in values["changed"] and version != new_version and _is_left_out(value):
            values["changed"][channel] = {"before": value, "after": new_value}
    metadata = [_plain(one.metadata.value) for one in (before, after)]
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


def difference_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the differences as lines for a person, those of lists and objects as a diff of their lines."""
    yield f"--- {printable(found['before'])}"
    yield f"+++ {printable(found['after'])}"
    for title in ("values", "metadata"):
        parts = found[title]
        if any(parts.values()):
            yield title
        for name, value in sorted(parts["removed"].items()):
            yield f"- {printable(name)} = {text(value)}"
        for name, value in sorted(parts["added"].items()):
            yield f"+ {printable(name)} = {text(value)}"
        for name, change in sorted(parts["changed"].items()):
            yield f"  {printable(name)}"
            yield from _changed_lines(change["before"], change["after"])


def _changed_lines(before: Any, after: Any) -> Iterator[str]:
    old, new = _lines(before), _lines(after)
    for line in difflib.unified_diff(old, new, n=1, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield f"    {line}"


def _lines(value: Any) -> list[str]:
    if isinstance(value, list) and value:
        return [text(item) for item in value]
    if isinstance(value, dict) and value and not any(key.startswith("$") for key in value):
        return [f"{printable(key)}: {text(item)}" for key, item in value.items()]
    return [text(value)]


def _plain(value: TypedValue) -> Any:
    if value.HasField("parts"):
        return left_out(value.type, value.parts.size)
    return plain(value.type, value.data)


def _is_left_out(value: Any) -> bool:
    return "$serialized" in json.dumps(value)
