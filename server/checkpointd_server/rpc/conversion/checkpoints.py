"""Checkpoints: protobuf to domain, with checks, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values_pb
from checkpointd_server.domain.checkpoints import (
    ListQuery,
    Namespace,
    PutCheckpoint,
    PutWrites,
    StoredCheckpoint,
    TaskWrite,
)
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.serializers import SerializerFamily, family_of_metadata, family_of_writes
from checkpointd_server.domain.thread_lists import MAX_TTL_SECONDS
from checkpointd_server.domain.values import ChannelValue, ChannelValueKey, TypedValue
from checkpointd_server.rpc.conversion.metadata_index import project_filter, project_metadata
from checkpointd_server.rpc.conversion.metadata_struct import pack_struct, value_of_struct
from checkpointd_server.rpc.conversion.page_tokens import read_list_token
from checkpointd_server.rpc.conversion.validation import (
    check_count,
    check_distinct,
    check_lease_token,
    check_optional_text,
    check_text,
    check_texts,
    check_token,
    check_versions,
    read_namespace,
    read_optional_id,
)
from checkpointd_server.rpc.conversion.values import (
    read_channel_values,
    read_precondition,
    read_task_writes,
    read_whole_value,
    write_task_writes,
    write_value,
)

_SMALL_BYTES = 64 * 1024
_FEW_CHANNELS = 128
"""Below these, the size of a checkpoint without its values isn't computed."""

_FAMILIES = {
    None: values_pb.SERIALIZER_FAMILY_UNSPECIFIED,
    SerializerFamily.LANGGRAPH_MSGPACK: values_pb.SERIALIZER_FAMILY_LANGGRAPH_MSGPACK,
    SerializerFamily.LANGGRAPH_JSON: values_pb.SERIALIZER_FAMILY_LANGGRAPH_JSON,
    SerializerFamily.OTHER: values_pb.SERIALIZER_FAMILY_OTHER,
}


def read_put_checkpoint(request: pb.PutCheckpointRequest, tenant: str, limits: Limits) -> PutCheckpoint:
    """Returns the put of a request. Raises InvalidArgument."""
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    checkpoint_id, parent_checkpoint_id = request.checkpoint_id, request.parent_checkpoint_id
    check_text(checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
    if parent_checkpoint_id:
        check_optional_text(parent_checkpoint_id, "parent_checkpoint_id", limits.max_checkpoint_id_bytes)
    body = request.body
    if not body:
        raise InvalidArgument("body", "is required")
    channels, versions = list(request.channels), list(request.channel_versions)
    distinct = _check_channels(channels, versions, limits)
    values = read_channel_values(request.values, distinct, set(versions), limits)
    if not request.HasField("metadata"):
        raise InvalidArgument("metadata", "is required")
    message = request.metadata
    if message.HasField("value"):
        if message.HasField("struct"):
            raise InvalidArgument("metadata.struct", "must be unset where metadata.value is set")
        metadata = read_whole_value(message.value, "metadata.value", limits)
    elif message.HasField("struct"):
        metadata = value_of_struct(message.struct)
    else:
        raise InvalidArgument("metadata.value", "is required")
    _check_size(body, metadata, channels, versions, limits)
    index = project_metadata(metadata, message.index, limits)
    writer, request_id = request.writer, request.request_id
    check_token(writer, "writer", limits.max_token_bytes)
    check_token(request_id, "request_id", limits.max_token_bytes)
    return PutCheckpoint(
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        parent_checkpoint_id=parent_checkpoint_id or None,
        body=body,
        channels=channels,
        channel_versions=versions,
        values=values,
        metadata=metadata,
        metadata_index=index.json,
        run_id=index.run_id,
        fingerprint=index.fingerprint,
        precondition=read_precondition(request.precondition, limits) if request.HasField("precondition") else None,
        writer=writer,
        request_id=request_id,
        lease_token=check_lease_token(request.lease_token),
        ttl_seconds=read_ttl(request.ttl_seconds) if request.HasField("ttl_seconds") else None,
    )


def read_ttl(ttl_seconds: int) -> int:
    """Returns a thread's time to live after its last use, in seconds. 0: none. Raises InvalidArgument."""
    if not 0 <= ttl_seconds <= MAX_TTL_SECONDS:
        problem = f"is {ttl_seconds}, must be from 0 to {MAX_TTL_SECONDS}"
        raise InvalidArgument("ttl_seconds", problem, limit=MAX_TTL_SECONDS)
    return ttl_seconds


def _check_channels(channels: list[str], versions: list[str], limits: Limits) -> set[str]:
    """Checks the channels and their versions, and returns the set of the channels."""
    check_count(len(channels), "channels", limits.max_channels)
    if len(versions) != len(channels):
        problem = f"has {len(versions)} entries, channels has {len(channels)}: each has its version"
        raise InvalidArgument("channel_versions", problem)
    check_texts(channels, "channels[{}]", limits.max_channel_bytes)
    distinct = check_distinct(channels, "channels[{}]")
    check_versions(versions, "channel_versions[{}]", limits)
    return distinct


def _check_size(body: bytes, metadata: TypedValue, channels: list[str], versions: list[str], limits: Limits) -> None:
    size = len(body) + len(metadata.data)
    if size > _SMALL_BYTES or len(channels) > _FEW_CHANNELS:
        size += len("".join(channels).encode()) + len("".join(versions).encode())
        limit = limits.max_checkpoint_bytes
        if size > limit:
            problem = f"has {size} bytes with channels, channel_versions and metadata, at most {limit} are allowed"
            raise InvalidArgument("body", problem, limit=limit)


def read_put_writes(request: pb.PutWritesRequest, tenant: str, limits: Limits) -> PutWrites:
    """Returns the task writes of a request. Raises InvalidArgument."""
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    checkpoint_id, task_id, task_path = request.checkpoint_id, request.task_id, request.task_path
    check_text(checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
    check_text(task_id, "task_id", limits.max_task_id_bytes)
    check_optional_text(task_path, "task_path", limits.max_task_path_bytes)
    writes = read_task_writes(request.writes, task_id, task_path, limits)
    request_id = request.request_id
    check_token(request_id, "request_id", limits.max_token_bytes)
    return PutWrites(
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        writes=writes,
        precondition=read_precondition(request.precondition, limits) if request.HasField("precondition") else None,
        request_id=request_id,
        lease_token=check_lease_token(request.lease_token),
        serializer=_read_serializer(request, writes),
    )


def _read_serializer(request: pb.PutWritesRequest, writes: Sequence[TaskWrite]) -> SerializerFamily | None:
    """Returns the family of the serializer of task writes. None: unknown. Raises InvalidArgument."""
    family = request.serializer_family
    if not family:
        return family_of_writes(write.value.type for write in writes)
    for known, number in _FAMILIES.items():
        if number == family:
            return known
    raise InvalidArgument("serializer_family", f"{family} is not a family that this server knows")


def write_serializer(family: SerializerFamily | None) -> values_pb.SerializerFamily:
    """Returns a family of serializers as the protocol numbers it; None: unspecified."""
    return _FAMILIES[family]


def read_target(
    request: pb.GetCheckpointRequest | pb.GetDeltaChannelHistoryRequest, tenant: str, limits: Limits
) -> tuple[Namespace, str | None]:
    """Returns the namespace and the checkpoint of a request. None: the latest. Raises InvalidArgument."""
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    return namespace, read_optional_id(request.checkpoint_id, "checkpoint_id", limits)


def read_list(request: pb.ListCheckpointsRequest, tenant: str, limits: Limits) -> ListQuery:
    """Returns the query of a request. Raises InvalidArgument."""
    thread_id = request.thread_id if request.HasField("thread_id") else None
    if thread_id is not None:
        check_text(thread_id, "thread_id", limits.max_thread_id_bytes)
    check_optional_text(request.checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
    if request.all_namespaces and request.checkpoint_ns:
        raise InvalidArgument("checkpoint_ns", "must be empty where all_namespaces is set")
    filter = request.filter
    if request.HasField("filter_struct"):
        if filter:
            raise InvalidArgument("filter_struct", "must be unset where filter is set")
        filter = pack_struct(request.filter_struct)
    view = request.view
    if view not in pb.CheckpointView.values():
        raise InvalidArgument("view", f"{view} is not a view that this server knows")
    page_size = request.page_size
    if page_size < 0:
        raise InvalidArgument("page_size", "is negative")
    if page_size > limits.max_page_size:
        limit = limits.max_page_size
        raise InvalidArgument("page_size", f"is {page_size}, at most {limit} are allowed", limit=limit)
    return ListQuery(
        tenant=tenant,
        thread_id=thread_id,
        checkpoint_ns=None if request.all_namespaces else request.checkpoint_ns,
        checkpoint_id=read_optional_id(request.checkpoint_id, "checkpoint_id", limits),
        before_checkpoint_id=read_optional_id(request.before_checkpoint_id, "before_checkpoint_id", limits),
        metadata_filter=project_filter(filter, limits),
        metadata_only=view == pb.CHECKPOINT_VIEW_METADATA,
        page_size=page_size or min(limits.default_page_size, limits.max_page_size),
        page_bytes=limits.max_page_bytes,
        after=read_list_token(request, tenant, limits),
    )


def write_checkpoint(
    stored: StoredCheckpoint, message: values_pb.CheckpointTuple, whole_writes: Sequence[TaskWrite] | None = None
) -> None:
    """Fills in a checkpoint with its task writes, as stored or assembled, but without its values."""
    message.thread_id = stored.thread_id
    message.checkpoint_ns = stored.checkpoint_ns
    message.checkpoint_id = stored.checkpoint_id
    if stored.parent_checkpoint_id is not None:
        message.parent_checkpoint_id = stored.parent_checkpoint_id
    message.body = stored.body
    message.channels.extend(stored.channels)
    message.channel_versions.extend(stored.channel_versions)
    write_value(stored.metadata, message.metadata.value)
    message.serializer_family = write_serializer(family_of_metadata(stored.metadata.type))
    message.version = stored.version
    if stored.pending_writes:
        writes = stored.pending_writes if whole_writes is None else whole_writes
        write_task_writes(writes, message.pending_writes)


def write_values(values: Iterable[ChannelValue], message: values_pb.CheckpointTuple) -> None:
    """Fills in the values of a checkpoint's channels."""
    add = message.values.add
    for channel, version, value in values:
        entry = add(channel=channel, version=version)
        if value is not None:
            write_value(value, entry.value)


def keys_of(stored: StoredCheckpoint) -> Iterable[ChannelValueKey]:
    """Returns the keys of the values of a checkpoint's channels."""
    return map(ChannelValueKey, stored.channels, stored.channel_versions)
