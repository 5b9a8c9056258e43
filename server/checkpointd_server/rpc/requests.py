"""From the requests that write and read one checkpoint to the domain's words."""

from __future__ import annotations

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.model import Namespace, PutCheckpoint, PutWrites, TaskWrite, TypedValue
from checkpointd_server.rpc.leases import read_lease_token
from checkpointd_server.rpc.messages import (
    check_checkpoint,
    check_typed_value,
    read_channel_values,
    read_channel_versions,
    read_namespace,
    read_optional_id,
    read_precondition,
)
from checkpointd_server.rpc.pieces import read_pieces, read_value
from checkpointd_server.rpc.projection import project_metadata
from checkpointd_server.rpc.validation import check_optional_text, check_text, check_token


async def read_put_checkpoint(request: pb.PutCheckpointRequest, tenant: str, limits: Limits) -> PutCheckpoint:
    """Returns the put that a request asks for, and empties its channel_versions. Raises InvalidArgument."""
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    checkpoint_id = request.checkpoint_id
    check_text(checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
    parent_checkpoint_id = read_optional_id(request.parent_checkpoint_id, "parent_checkpoint_id", limits)
    if not request.HasField("checkpoint"):
        raise InvalidArgument("checkpoint", "is required")
    checkpoint = request.checkpoint
    field = "checkpoint.channel_versions.versions"
    channel_versions = read_channel_versions(checkpoint.channel_versions.versions, field, limits)
    check_checkpoint(checkpoint, limits)
    values = read_channel_values(request.values, limits)
    if not request.HasField("metadata"):
        raise InvalidArgument("metadata", "is required")
    metadata = request.metadata
    if not metadata.HasField("value"):
        raise InvalidArgument("metadata.value", "is required")
    check_typed_value(metadata.value, "metadata.value", limits)
    projection = project_metadata(metadata, limits)
    precondition = read_precondition(request.HasField("precondition"), request.precondition, limits)
    writer, request_id = request.writer, request.request_id
    check_token(writer, "writer", limits.max_token_bytes)
    check_token(request_id, "request_id", limits.max_token_bytes)
    # The body is what lies in the database: a serialized checkpointd.v1.Checkpoint without its channel_versions, which
    # the store keeps beside it and write_checkpoint puts back. Changing this message is changing the storage format.
    checkpoint.ClearField("channel_versions")
    return PutCheckpoint(
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        parent_checkpoint_id=parent_checkpoint_id,
        body=checkpoint.SerializeToString(),
        channel_versions=channel_versions,
        values=values,
        metadata=TypedValue(metadata.value.type, metadata.value.data),
        metadata_index=projection.json,
        run_id=projection.run_id,
        precondition=precondition,
        writer=writer,
        request_id=request_id,
        lease_token=read_lease_token(request.lease_token),
        pieces=await read_pieces(request.pieces, limits),
    )


async def read_put_writes(request: pb.PutWritesRequest, tenant: str, limits: Limits) -> PutWrites:
    """Returns the writes that a request asks for. Raises InvalidArgument."""
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    checkpoint_id = request.checkpoint_id
    check_text(checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
    task_id, task_path = request.task_id, request.task_path
    check_text(task_id, "task_id", limits.max_task_id_bytes)
    check_optional_text(task_path, "task_path", limits.max_task_path_bytes)
    writes: dict[int, TaskWrite] = {}
    for position, write in enumerate(request.writes):
        if write.task_id or write.task_path:
            field = f"writes[{position}].{'task_id' if write.task_id else 'task_path'}"
            raise InvalidArgument(field, "must be unset: the request names the task of all its writes")
        if write.checkpoint_id:
            field = f"writes[{position}].checkpoint_id"
            raise InvalidArgument(field, "must be unset: the request names the checkpoint of all its writes")
        channel = write.channel
        check_text(channel, f"writes[{position}].channel", limits.max_channel_bytes)
        if not write.HasField("value"):
            raise InvalidArgument(f"writes[{position}].value", "is required")
        value = write.value
        field = f"writes[{position}].value"
        check_text(value.type, f"{field}.type", limits.max_type_bytes)
        typed = read_value(value, field, channel, limits)
        idx = write.idx
        if idx < 0 or idx not in writes:
            writes[idx] = TaskWrite(task_id, task_path, idx, channel, typed)
    check_token(request.request_id, "request_id", limits.max_token_bytes)
    return PutWrites(
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        writes=list(writes.values()),
        precondition=read_precondition(request.HasField("precondition"), request.precondition, limits),
        request_id=request.request_id,
        lease_token=read_lease_token(request.lease_token),
        pieces=await read_pieces(request.pieces, limits),
    )


def read_target(
    request: pb.GetCheckpointRequest | pb.GetDeltaChannelHistoryRequest, tenant: str, limits: Limits
) -> tuple[Namespace, str | None]:
    """Returns the namespace and the checkpoint that a request names; None: the latest. Raises InvalidArgument."""
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    return namespace, read_optional_id(request.checkpoint_id, "checkpoint_id", limits)
