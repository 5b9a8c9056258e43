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
from langgraph.checkpoint.grpc.bindings import ChannelBinding, ExtraBinding, MetadataBinding, WriteBinding
from langgraph.checkpoint.grpc.codec import Codec
from langgraph.checkpoint.grpc.errors import IntegrityError
from langgraph.checkpoint.serde.types import TASKS

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

PENDING_SENDS_FIRST_STORED_INLINE = 4
"""The checkpoint format ("v") since which a checkpoint holds its own pending sends."""


def config_of(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> RunnableConfig:
    """Returns the config of a checkpoint: these three keys and no others, since LangGraph compares configs."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}}


def check_place(
    codec: Codec,
    request: pb.GetCheckpointRequest | pb.ListCheckpointsRequest,
    messages: Iterable[values.CheckpointTuple],
) -> None:
    """Raises IntegrityError if an answer is about another place than was asked about.

    With encryption only: every value opens in its own place, so a server that passed one thread off as another would go
    unnoticed otherwise.
    """
    if codec.encryption is None:
        return
    asked = {"thread_id": request.thread_id, "checkpoint_ns": request.checkpoint_ns}
    if isinstance(request, pb.ListCheckpointsRequest):
        asked = {name: wanted for name, wanted in asked.items() if request.HasField(name)}
    if request.checkpoint_id:
        asked["checkpoint_id"] = request.checkpoint_id
    for message in messages:
        for name, wanted in asked.items():
            if getattr(message, name) != wanted:
                raise IntegrityError(
                    f"{name}: the server answered with another one than was asked for",
                    thread_id=request.thread_id,
                    place=name,
                )


def checkpoint_tuple(codec: Codec, message: values.CheckpointTuple) -> CheckpointTuple:
    """Reads a checkpoint with all that belongs to it."""
    thread_id, checkpoint_ns = message.thread_id, message.checkpoint_ns
    # First, for it vouches for the versions that the values are bound to.
    place = (thread_id, checkpoint_ns, message.checkpoint_id, message.parent_checkpoint_id)
    metadata = codec.load(message.metadata.value, MetadataBinding(*place, message.checkpoint))
    return CheckpointTuple(
        config=config_of(thread_id, checkpoint_ns, message.checkpoint_id),
        checkpoint=_checkpoint(codec, message),
        metadata=cast(CheckpointMetadata, metadata),
        parent_config=(
            config_of(thread_id, checkpoint_ns, message.parent_checkpoint_id)
            if message.HasField("parent_checkpoint_id")
            else None
        ),
        pending_writes=pending_writes(codec, message),
    )


def pending_writes(codec: Codec, message: values.CheckpointTuple) -> list[PendingWrite]:
    """Reads a checkpoint's task writes, in the order they came."""
    place = (message.thread_id, message.checkpoint_ns, message.checkpoint_id)
    return [
        (write.task_id, write.channel, codec.load(write.value, _write_binding(place, write)))
        for write in message.pending_writes
    ]


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


def own_request(message: values.CheckpointTuple) -> pb.GetCheckpointRequest:
    """Builds the request that reads a checkpoint by its id."""
    return pb.GetCheckpointRequest(
        thread_id=message.thread_id,
        checkpoint_ns=message.checkpoint_ns,
        checkpoint_id=message.checkpoint_id,
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
    codec: Codec, request: pb.GetDeltaChannelHistoryRequest, response: pb.GetDeltaChannelHistoryResponse
) -> Mapping[str, DeltaChannelHistory]:
    """Reads the histories of channels."""
    key = (request.thread_id, request.checkpoint_ns)
    histories: dict[str, DeltaChannelHistory] = {}
    for history in response.channels:
        entry: DeltaChannelHistory = {
            "writes": [
                (
                    write.task_id,
                    write.channel,
                    codec.load(write.value, _write_binding((*key, write.checkpoint_id), write)),
                )
                for write in history.writes
            ]
        }
        if history.HasField("seed"):
            entry["seed"] = codec.load(history.seed, ChannelBinding(*key, history.channel, history.seed_version))
        histories[history.channel] = entry
    return histories


def _write_binding(place: tuple[str, str, str], write: values.TaskWrite) -> WriteBinding:
    return WriteBinding(*place, write.task_id, write.task_path, write.idx, write.channel)


def _checkpoint(codec: Codec, message: values.CheckpointTuple) -> Checkpoint:
    thread_id, checkpoint_ns = message.thread_id, message.checkpoint_ns
    fields = message.checkpoint
    checkpoint: dict[str, Any] = {}
    if fields.HasField("v"):
        checkpoint["v"] = fields.v
    checkpoint["id"] = message.checkpoint_id
    if fields.HasField("ts"):
        checkpoint["ts"] = fields.ts
    # The version that the checkpoint names, not the one that came with the value; none where it has no such channel.
    versions = fields.channel_versions.versions
    checkpoint["channel_values"] = {
        entry.channel: codec.load(
            entry.value,
            ChannelBinding(
                thread_id,
                checkpoint_ns,
                entry.channel,
                versions[entry.channel] if entry.channel in versions else values.ChannelVersion(),
            ),
        )
        for entry in message.values
    }
    checkpoint["channel_versions"] = _versions(fields.channel_versions)
    checkpoint["versions_seen"] = {node: _versions(seen) for node, seen in fields.versions_seen.items()}
    checkpoint["updated_channels"] = (
        list(fields.updated_channels.names) if fields.HasField("updated_channels") else None
    )
    if fields.HasField("extra"):
        checkpoint.update(codec.load(fields.extra, ExtraBinding(thread_id, checkpoint_ns, message.checkpoint_id)))
    return cast(Checkpoint, checkpoint)


def _versions(message: values.ChannelVersions) -> dict[str, Any]:
    return {channel: _version(version) for channel, version in message.versions.items()}


def _version(message: values.ChannelVersion) -> str | int | float:
    kind = message.WhichOneof("value")
    return cast("str | int | float", getattr(message, kind)) if kind else ""
