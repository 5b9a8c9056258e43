"""Conversion of answers to LangGraph's types. Pure functions, shared by the sync and the async methods.

An answer may come from any server: invalid data raises CorruptValueError, never another exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import ormsgpack
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
)
from langgraph.checkpoint.grpc._convert.arguments import config_of, version_of
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.aad import (
    ChannelAssociatedData,
    ExtraAssociatedData,
    MetadataAssociatedData,
    WriteAssociatedData,
)
from langgraph.checkpoint.grpc._values.cache import CachedValue
from langgraph.checkpoint.grpc.errors import CorruptValueError, TamperedValueError
from langgraph.checkpoint.serde.types import TASKS

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

PENDING_SENDS_FIRST_STORED_INLINE = 4
"""The checkpoint format ("v") since which a checkpoint holds its own pending sends."""


def check_place(
    serde: ValueSerde,
    request: pb.GetCheckpointRequest | pb.ListCheckpointsRequest,
    messages: Iterable[values.CheckpointTuple],
) -> None:
    """Raises TamperedValueError if an answer is about another place than the request.

    With encryption only: every value opens in its own place, so a server that passed one thread off as another would go
    unnoticed otherwise.
    """
    if serde.encryption is None:
        return
    asked = {"thread_id": request.thread_id, "checkpoint_ns": request.checkpoint_ns}
    if isinstance(request, pb.ListCheckpointsRequest):
        if not request.HasField("thread_id"):
            del asked["thread_id"]
        if request.all_namespaces:
            del asked["checkpoint_ns"]
    if request.checkpoint_id:
        asked["checkpoint_id"] = request.checkpoint_id
    for message in messages:
        for name, wanted in asked.items():
            if getattr(message, name) != wanted:
                raise TamperedValueError(
                    f"{name}: the server answered with a different one",
                    thread_id=request.thread_id,
                    place=name,
                )


def metadata_of(serde: ValueSerde, message: values.CheckpointTuple) -> CheckpointMetadata:
    """Reads a checkpoint's metadata. With encryption, it authenticates the checkpoint's plain fields."""
    place = (metadata_place, message, message.thread_id)
    stored = message.metadata.value
    type_tag, data = serde.open(stored.type, stored.data, place)
    metadata = serde.load_metadata(type_tag, data, place, message.thread_id)
    if not isinstance(metadata, dict):
        raise _corrupt(message, "its metadata is no map")
    return cast(CheckpointMetadata, metadata)


def metadata_place(message: values.CheckpointTuple, thread_id: str) -> MetadataAssociatedData:
    """Returns where a checkpoint's metadata is stored, in this thread or a copy of it."""
    if len(message.channels) != len(message.channel_versions):
        raise _corrupt(message, "it has different numbers of channels and versions")
    return MetadataAssociatedData(
        thread_id,
        message.checkpoint_ns,
        message.checkpoint_id,
        message.parent_checkpoint_id,
        message.body,
        message.channels,
        message.channel_versions,
    )


def checkpoint_tuple(
    serde: ValueSerde,
    message: values.CheckpointTuple,
    metadata: CheckpointMetadata,
    channel_values: Mapping[str, CachedValue],
    writes: Sequence[tuple[str, bytes]],
) -> CheckpointTuple:
    """Reads a checkpoint with its values and task writes.

    Args:
        serde: Decrypts and deserializes values.
        message: The checkpoint.
        metadata: Its metadata.
        channel_values: Its channels' values, without those of empty channels.
        writes: The types and the serialized bytes of its task writes, in their order.
    """
    thread_id, checkpoint_ns = message.thread_id, message.checkpoint_ns
    parent_id = message.parent_checkpoint_id
    return CheckpointTuple(
        config=config_of(thread_id, checkpoint_ns, message.checkpoint_id),
        checkpoint=_checkpoint(serde, message, channel_values),
        metadata=metadata,
        parent_config=config_of(thread_id, checkpoint_ns, parent_id) if parent_id else None,
        pending_writes=pending_writes(serde, message, writes),
    )


def pending_writes(
    serde: ValueSerde, message: values.CheckpointTuple, data: Sequence[tuple[str, bytes]]
) -> list[PendingWrite]:
    """Reads a checkpoint's task writes, given their types and serialized bytes, in the same order."""
    key = (message.thread_id, message.checkpoint_ns)
    return [
        task_write(serde, key, message.checkpoint_id, write, opened)
        for write, opened in zip(message.pending_writes, data, strict=True)
    ]


def task_write(
    serde: ValueSerde, key: tuple[str, str], checkpoint_id: str, write: values.TaskWrite, opened: tuple[str, bytes]
) -> PendingWrite:
    """Reads a task's write beside a checkpoint, given its type and serialized bytes."""
    place = (write_place, key, checkpoint_id, write)
    return write.task_id, write.channel, serde.load_in(write.channel, *opened, place)


def write_place(key: tuple[str, str], checkpoint_id: str, write: values.TaskWrite) -> WriteAssociatedData:
    """Returns where a task's write is stored."""
    return WriteAssociatedData(*key, checkpoint_id, write.task_id, write.task_path, write.idx, write.channel)


def needs_parent_sends(saved: CheckpointTuple) -> bool:
    """Returns whether a checkpoint is of a format whose pending sends are among its parent's writes."""
    version = saved.checkpoint.get("v")
    is_old = isinstance(version, int) and version < PENDING_SENDS_FIRST_STORED_INLINE
    return is_old and saved.parent_config is not None


def add_parent_sends(saved: CheckpointTuple, sends: Sequence[PendingWrite], first_version: Any) -> None:
    """Adds the sends of its parent's tasks to a checkpoint of an old format, as the TASKS channel's value.

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


def body_of(message: values.CheckpointTuple) -> dict[str, Any]:
    """Reads a checkpoint's own fields."""
    try:
        found = ormsgpack.unpackb(message.body)
    except ValueError as error:
        raise _corrupt(message, "its body isn't msgpack") from error
    if not isinstance(found, dict):
        raise _corrupt(message, "its body is no map")
    return found


def extra_of(message: values.CheckpointTuple, body: Mapping[str, Any]) -> tuple[str, bytes]:
    """Returns the type and the stored bytes of the fields that msgpack can't hold."""
    match body["extra"]:
        case [str(type_tag), bytes(data)]:
            return type_tag, data
    raise _corrupt(message, "the extra fields of its body are invalid")


def _checkpoint(
    serde: ValueSerde, message: values.CheckpointTuple, channel_values: Mapping[str, CachedValue]
) -> Checkpoint:
    key = (message.thread_id, message.checkpoint_ns)
    checkpoint = body_of(message)
    extra = None
    if "extra" in checkpoint:
        place = (ExtraAssociatedData, *key, message.checkpoint_id)
        extra = serde.load(*serde.open(*extra_of(message, checkpoint), place), place)
        if not isinstance(extra, dict):
            raise _corrupt(message, "the extra fields of its body are invalid")
        del checkpoint["extra"]
    checkpoint["id"] = message.checkpoint_id
    versions = dict(zip(message.channels, message.channel_versions, strict=True))
    checkpoint["channel_versions"] = {channel: version_of(version) for channel, version in versions.items()}
    checkpoint["channel_values"] = {
        channel: serde.load_in(
            channel, value.type, value.data, (ChannelAssociatedData, *key, channel, versions[channel])
        )
        for channel, value in channel_values.items()
    }
    if extra is not None:
        checkpoint.update(extra)
    # The type requires them, but LangGraph's stub in exit mode lacks them.
    checkpoint.setdefault("versions_seen", {})
    checkpoint.setdefault("updated_channels", None)
    return cast(Checkpoint, checkpoint)


def _corrupt(message: values.CheckpointTuple, what: str) -> CorruptValueError:
    return CorruptValueError(f"checkpoint {message.checkpoint_id!r} of thread {message.thread_id!r}: {what}")
