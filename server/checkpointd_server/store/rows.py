"""Result rows into what the domain knows."""

from __future__ import annotations

from checkpointd_server.domain.model import ChannelValue, StoredCheckpoint, TaskWrite, TypedValue
from checkpointd_server.store.pool import Row


def read_checkpoint(row: Row, version: int) -> StoredCheckpoint:
    """Reads the columns of the fragment `checkpoint_columns`."""
    channels: list[str] = row["channels"]
    versions: list[str] = row["channel_versions"]
    return StoredCheckpoint(
        thread_id=row["thread_id"],
        checkpoint_ns=row["checkpoint_ns"],
        checkpoint_id=row["checkpoint_id"],
        parent_checkpoint_id=row["parent_checkpoint_id"],
        body=row["body"],
        channel_versions=dict(zip(channels, versions, strict=True)),
        metadata=TypedValue(row["metadata_type"], row["metadata"]),
        version=version,
        values=[
            ChannelValue(channels[slot - 1], versions[slot - 1], TypedValue(type_, data))
            for slot, type_, data in zip(
                row["value_slots"] or (), row["value_types"] or (), row["value_data"] or (), strict=True
            )
        ],
        pending_writes=read_writes(row, "write_"),
    )


def read_writes(row: Row, prefix: str = "") -> list[TaskWrite]:
    """Reads task writes from parallel arrays, which are null where there are none."""
    task_ids = row[f"{prefix}task_ids"]
    if task_ids is None:
        return []
    return [
        TaskWrite(task_id, task_path, idx, channel, TypedValue(type_, data))
        for task_id, task_path, idx, channel, type_, data in zip(
            task_ids,
            row[f"{prefix}task_paths"],
            row[f"{prefix}idxs"],
            row[f"{prefix}channels"],
            row[f"{prefix}types"],
            row[f"{prefix}data"],
            strict=True,
        )
    ]
