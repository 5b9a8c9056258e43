"""From answers to LangGraph's types. Pure functions, shared by the sync and the async methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import TASKS

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

PENDING_SENDS_FIRST_STORED_INLINE = 4
"""The checkpoint format ("v") since which a checkpoint holds its own pending sends."""


def config_of(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> RunnableConfig:
    """Returns the config of a checkpoint: these three keys and no others, since LangGraph compares configs."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}}


def checkpoint_tuple(serde: SerializerProtocol, message: values.CheckpointTuple) -> CheckpointTuple:
    """Reads a checkpoint with all that belongs to it."""
    thread_id, checkpoint_ns = message.thread_id, message.checkpoint_ns
    return CheckpointTuple(
        config=config_of(thread_id, checkpoint_ns, message.checkpoint_id),
        checkpoint=_checkpoint(serde, message),
        metadata=cast(CheckpointMetadata, _load(serde, message.metadata.value)),
        parent_config=(
            config_of(thread_id, checkpoint_ns, message.parent_checkpoint_id)
            if message.HasField("parent_checkpoint_id")
            else None
        ),
        pending_writes=pending_writes(serde, message.pending_writes),
    )


def pending_writes(serde: SerializerProtocol, writes: Iterable[values.TaskWrite]) -> list[PendingWrite]:
    """Reads task writes, in the order they came."""
    return [(write.task_id, write.channel, _load(serde, write.value)) for write in writes]


def needs_parent_sends(message: values.CheckpointTuple) -> bool:
    """Whether the checkpoint is of a format whose pending sends are among its parent's writes."""
    checkpoint = message.checkpoint
    return (
        checkpoint.HasField("v")
        and checkpoint.v < PENDING_SENDS_FIRST_STORED_INLINE
        and message.HasField("parent_checkpoint_id")
    )


def parent_request(message: values.CheckpointTuple) -> pb.GetCheckpointRequest:
    """Builds the request that reads a checkpoint's parent."""
    return pb.GetCheckpointRequest(
        thread_id=message.thread_id,
        checkpoint_ns=message.checkpoint_ns,
        checkpoint_id=message.parent_checkpoint_id,
    )


def add_parent_sends(saved: CheckpointTuple, sends: Sequence[PendingWrite], first_version: Any) -> None:
    """Gives a checkpoint of an old format the sends that its parent's tasks wrote, as a value of the TASKS channel.

    Args:
        saved: The checkpoint; changed in place.
        sends: The parent's writes, in their order.
        first_version: The TASKS channel's version, if the checkpoint has no versions to take one from.
    """
    pending = [value for _, channel, value in sends if channel == TASKS]
    if pending:
        versions = saved.checkpoint["channel_versions"]
        saved.checkpoint["channel_values"][TASKS] = pending
        versions[TASKS] = max(versions.values(), default=first_version)


def delta_history(
    serde: SerializerProtocol, response: pb.GetDeltaChannelHistoryResponse
) -> Mapping[str, DeltaChannelHistory]:
    """Reads the histories of channels."""
    histories: dict[str, DeltaChannelHistory] = {}
    for history in response.channels:
        entry: DeltaChannelHistory = {"writes": pending_writes(serde, history.writes)}
        if history.HasField("seed"):
            entry["seed"] = _load(serde, history.seed)
        histories[history.channel] = entry
    return histories


def _checkpoint(serde: SerializerProtocol, message: values.CheckpointTuple) -> Checkpoint:
    fields = message.checkpoint
    checkpoint: dict[str, Any] = {}
    if fields.HasField("v"):
        checkpoint["v"] = fields.v
    checkpoint["id"] = message.checkpoint_id
    if fields.HasField("ts"):
        checkpoint["ts"] = fields.ts
    checkpoint["channel_values"] = {entry.channel: _load(serde, entry.value) for entry in message.values}
    checkpoint["channel_versions"] = _versions(fields.channel_versions)
    checkpoint["versions_seen"] = {node: _versions(seen) for node, seen in fields.versions_seen.items()}
    checkpoint["updated_channels"] = (
        list(fields.updated_channels.names) if fields.HasField("updated_channels") else None
    )
    if fields.HasField("extra"):
        checkpoint.update(_load(serde, fields.extra))
    return cast(Checkpoint, checkpoint)


def _versions(message: values.ChannelVersions) -> dict[str, Any]:
    return {channel: _version(version) for channel, version in message.versions.items()}


def _version(message: values.ChannelVersion) -> str | int | float:
    kind = message.WhichOneof("value")
    return cast("str | int | float", getattr(message, kind)) if kind else ""


def _load(serde: SerializerProtocol, message: values.TypedValue) -> Any:
    return serde.loads_typed((message.type, message.data))
