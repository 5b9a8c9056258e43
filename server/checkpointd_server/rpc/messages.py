"""The protocol's messages and the domain's types: what checkpoints and writes have in common.

`read_...` takes what a request holds and checks it, `write_...` fills a message of an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from checkpointd.v1 import values_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.model import (
    ChannelValue,
    Namespace,
    Precondition,
    StoredCheckpoint,
    TaskWrite,
)
from checkpointd_server.rpc.pieces import check_whole, read_value, write_value
from checkpointd_server.rpc.validation import are_plain, check_optional_text, check_text, check_texts, check_token
from checkpointd_server.rpc.versions import read_plain_versions, read_version, write_version


def read_namespace(tenant: str, thread_id: str, checkpoint_ns: str, limits: Limits) -> Namespace:
    """Returns the namespace that a request names."""
    check_text(thread_id, "thread_id", limits.max_thread_id_bytes)
    check_optional_text(checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
    return Namespace(tenant, thread_id, checkpoint_ns)


def read_optional_id(checkpoint_id: str, field: str, limits: Limits) -> str | None:
    """Returns the id of a checkpoint that may be left out: unset and empty mean the same."""
    if not checkpoint_id:
        return None
    check_optional_text(checkpoint_id, field, limits.max_checkpoint_id_bytes)
    return checkpoint_id


def read_precondition(request_has_it: bool, precondition: pb.Precondition, limits: Limits) -> Precondition | None:
    """Returns what a write expects; None: nothing."""
    if not request_has_it:
        return None
    version = precondition.if_version_match if precondition.HasField("if_version_match") else None
    if version is not None and version < 0:
        raise InvalidArgument("precondition.if_version_match", "is negative; versions begin at 1, and 0 means none yet")
    writer = precondition.if_last_writer
    check_token(writer, "precondition.if_last_writer", limits.max_token_bytes)
    if version is None and not writer:
        return None
    return Precondition(if_version_match=version, if_last_writer=writer)


def check_typed_value(value: pb.TypedValue, field: str, limits: Limits) -> None:
    """Checks a value that is sent whole: its type, for its bytes may be anything."""
    check_text(value.type, f"{field}.type", limits.max_type_bytes)
    check_whole(value, field)


def read_channel_values(values: Collection[pb.ChannelValue], limits: Limits) -> list[ChannelValue]:
    """Returns the changed channels of a put."""
    channels = [value.channel for value in values]
    check_texts(channels, "values[{}].channel", limits.max_channel_bytes)
    if len(set(channels)) < len(channels):
        position = next(i for i, channel in enumerate(channels) if channel in channels[:i])
        first = channels.index(channels[position])
        raise InvalidArgument(f"values[{position}].channel", f"repeats values[{first}].channel")
    versions = read_plain_versions([value.version for value in values], limits)
    if versions is None:
        versions = [read_version(value.version, f"values[{i}].version", limits) for i, value in enumerate(values)]
    typed = [
        read_value(value.value, f"values[{position}].value", value.channel, limits) if value.HasField("value") else None
        for position, value in enumerate(values)
    ]
    types = [value.type for value in typed if value is not None]
    if not are_plain(types, limits.max_type_bytes):
        for position, value in enumerate(typed):
            if value is not None:
                check_text(value.type, f"values[{position}].value.type", limits.max_type_bytes)
    return list(map(ChannelValue, channels, versions, typed))


def read_channel_versions(versions: Mapping[str, pb.ChannelVersion], field: str, limits: Limits) -> dict[str, str]:
    """Returns a map of channel versions as tagged texts."""
    channels = list(versions)
    check_texts(channels, field, limits.max_channel_bytes)
    # Not `values()`: of protobuf's maps that is a Python generator.
    texts = read_plain_versions(list(map(versions.__getitem__, channels)), limits)
    if texts is None:
        return {channel: read_version(versions[channel], f'{field}["{channel}"]', limits) for channel in channels}
    return dict(zip(channels, texts, strict=True))


def check_checkpoint(checkpoint: pb.Checkpoint, limits: Limits) -> None:
    """Checks a checkpoint's own fields, but for its channel_versions."""
    # The protocol gives neither ts nor the names of nodes a limit of their own.
    check_optional_text(checkpoint.ts, "checkpoint.ts", limits.max_message_bytes)
    check_texts(checkpoint.updated_channels.names, "checkpoint.updated_channels.names[{}]", limits.max_channel_bytes)
    if checkpoint.HasField("extra"):
        check_typed_value(checkpoint.extra, "checkpoint.extra", limits)
    channels: list[str] = []
    versions: list[pb.ChannelVersion] = []
    versions_seen = checkpoint.versions_seen
    for node in versions_seen:
        check_optional_text(node, "checkpoint.versions_seen", limits.max_message_bytes)
        seen_versions = versions_seen[node].versions
        names = list(seen_versions)
        channels += names
        versions += map(seen_versions.__getitem__, names)
    if not are_plain(channels, limits.max_channel_bytes) or read_plain_versions(versions, limits) is None:
        for node, seen in versions_seen.items():
            read_channel_versions(seen.versions, f'checkpoint.versions_seen["{node}"].versions', limits)


def write_task_writes(writes: Iterable[TaskWrite], messages: Collection[pb.TaskWrite]) -> None:
    """Fills a list of task writes in."""
    add = messages.add  # type: ignore[attr-defined]
    for task_id, task_path, idx, channel, typed in writes:
        message = add()
        message.task_id = task_id
        message.task_path = task_path
        message.idx = idx
        message.channel = channel
        write_value(typed, message.value)


def write_checkpoint(stored: StoredCheckpoint, message: pb.CheckpointTuple) -> None:
    """Fills a checkpoint in, with all that belongs to it."""
    message.thread_id = stored.thread_id
    message.checkpoint_ns = stored.checkpoint_ns
    message.checkpoint_id = stored.checkpoint_id
    if stored.parent_checkpoint_id is not None:
        message.parent_checkpoint_id = stored.parent_checkpoint_id
    message.version = stored.version
    checkpoint = message.checkpoint
    checkpoint.MergeFromString(stored.body)
    checkpoint.channel_versions.SetInParent()
    versions = checkpoint.channel_versions.versions
    for channel, version in stored.channel_versions.items():
        write_version(version, versions[channel])
    write_value(stored.metadata, message.metadata.value)
    add_value = message.values.add
    for channel, version, value in stored.values:
        entry = add_value()
        entry.channel = channel
        write_version(version, entry.version)
        if value is not None:
            write_value(value, entry.value)
    write_task_writes(stored.pending_writes, message.pending_writes)
