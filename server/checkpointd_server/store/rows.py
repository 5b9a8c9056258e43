"""Result rows into what the domain knows."""

from __future__ import annotations

from checkpointd_server.domain.model import ChannelValue, StoredCheckpoint, TaskWrite, TypedValue
from checkpointd_server.store.database import Row
from checkpointd_server.store.pieces import read_value, value_place, write_place


def read_checkpoint(row: Row, version: int) -> StoredCheckpoint:
    """Reads the columns of the fragment `checkpoint_columns`."""
    channels: list[str] = row["channels"]
    versions: list[str] = row["channel_versions"]
    checkpoint_ns, checkpoint_id = row["checkpoint_ns"], row["checkpoint_id"]
    return StoredCheckpoint(
        thread_id=row["thread_id"],
        checkpoint_ns=checkpoint_ns,
        checkpoint_id=checkpoint_id,
        parent_checkpoint_id=row["parent_checkpoint_id"],
        body=row["body"],
        channel_versions=dict(zip(channels, versions, strict=True)),
        metadata=TypedValue(row["metadata_type"], row["metadata"]),
        version=version,
        values=[
            ChannelValue(
                channels[slot - 1],
                versions[slot - 1],
                TypedValue(type_, data)
                if size is None
                else read_value(type_, data, size, value_place(checkpoint_ns, channels[slot - 1], versions[slot - 1])),
            )
            for slot, type_, data, size in zip(
                row["value_slots"] or (),
                row["value_types"] or (),
                row["value_data"] or (),
                row["value_sizes"] or (),
                strict=True,
            )
        ],
        pending_writes=read_writes(row, checkpoint_ns, checkpoint_id, prefix="write_"),
    )


def read_writes(row: Row, checkpoint_ns: str, checkpoint_id: str, *, prefix: str = "") -> list[TaskWrite]:
    """Reads the task writes beside a checkpoint from parallel arrays, which are null where there are none."""
    task_ids = row[f"{prefix}task_ids"]
    if task_ids is None:
        return []
    return [
        TaskWrite(
            task_id,
            task_path,
            idx,
            channel,
            TypedValue(type_, data)
            if size is None
            else read_value(type_, data, size, write_place(checkpoint_ns, checkpoint_id, task_id, idx)),
        )
        for task_id, task_path, idx, channel, type_, data, size in zip(
            task_ids,
            row[f"{prefix}task_paths"],
            row[f"{prefix}idxs"],
            row[f"{prefix}channels"],
            row[f"{prefix}types"],
            row[f"{prefix}data"],
            row[f"{prefix}sizes"],
            strict=True,
        )
    ]
