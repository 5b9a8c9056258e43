"""CheckpointService: puts, reads and lists."""

from __future__ import annotations

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.model import (
    CheckpointPosition,
    ListQuery,
    Namespace,
    PutCheckpoint,
    PutWrites,
    StoredCheckpoint,
    TaskWrite,
    TypedValue,
)
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.leases import read_lease_token
from checkpointd_server.rpc.messages import (
    check_checkpoint,
    check_typed_value,
    read_channel_values,
    read_channel_versions,
    read_namespace,
    read_optional_id,
    read_precondition,
    write_checkpoint,
    write_task_writes,
    write_typed_value,
)
from checkpointd_server.rpc.paging import read_page_token, write_page_token
from checkpointd_server.rpc.projection import project_filter, project_metadata
from checkpointd_server.rpc.validation import (
    check_batch,
    check_optional_text,
    check_text,
    check_texts,
    check_token,
)


class CheckpointServicer:
    """Serves checkpoints out of a store. Each method takes a request and returns the encoded response."""

    def __init__(self, store: CheckpointStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        # Half of a message is left for what the store doesn't count: names, versions and the encoding itself.
        self._page_bytes = min(limits.max_page_bytes, limits.max_message_bytes // 2)

    async def put_checkpoint(self, request: pb.PutCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores a checkpoint."""
        put = read_put_checkpoint(request, tenant, self._limits)
        version = await self._store.put_checkpoint(put, timeout=timeout)
        return pb.PutCheckpointResponse(version=version).SerializeToString()

    async def put_writes(self, request: pb.PutWritesRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores task writes."""
        put = read_put_writes(request, tenant, self._limits)
        version = await self._store.put_writes(put, timeout=timeout)
        return pb.PutWritesResponse(version=version).SerializeToString()

    async def get_checkpoint(self, request: pb.GetCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads one checkpoint."""
        namespace, checkpoint_id = _read_target(request, tenant, self._limits)
        checkpoint, version = await self._store.get_checkpoint(namespace, checkpoint_id, timeout=timeout)
        response = pb.GetCheckpointResponse(version=version)
        if checkpoint is not None:
            write_checkpoint(checkpoint, response.tuple)
        return response.SerializeToString()

    async def list_checkpoints(self, request: pb.ListCheckpointsRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads a page of checkpoints."""
        query = read_list(request, tenant, self._limits, self._page_bytes)
        page = await self._store.list_checkpoints(query, timeout=timeout)
        checkpoints, after = page.checkpoints, page.after
        while True:
            token = "" if after is None else write_page_token(after, request, tenant)
            response = pb.ListCheckpointsResponse(next_page_token=token, version=page.version)
            for checkpoint in checkpoints:
                write_checkpoint(checkpoint, response.tuples.add())
            encoded = response.SerializeToString()
            if len(encoded) <= self._limits.max_message_bytes or len(checkpoints) <= 1:
                return encoded
            # What the store doesn't count outgrew the room left for it. A shorter page keeps the list going.
            checkpoints = checkpoints[: len(checkpoints) // 2]
            after = _position(checkpoints[-1])

    async def get_delta_channel_history(
        self, request: pb.GetDeltaChannelHistoryRequest, tenant: str, timeout: float | None
    ) -> bytes:
        """Reads the histories of channels."""
        namespace, checkpoint_id = _read_target(request, tenant, self._limits)
        channels = list(request.channels)
        check_batch(channels, "channels", self._limits.max_batch)
        check_texts(channels, "channels[{}]", self._limits.max_channel_bytes)
        distinct = list(dict.fromkeys(channels))
        found = await self._store.get_delta_history(namespace, checkpoint_id, distinct, timeout=timeout)
        histories = {history.channel: history for history in found.channels}
        response = pb.GetDeltaChannelHistoryResponse(version=found.version)
        for channel in channels:
            message = response.channels.add(channel=channel)
            history = histories[channel]
            write_task_writes(history.writes, message.writes)
            if history.seed is not None:
                write_typed_value(history.seed, message.seed)
        return response.SerializeToString()


def read_put_checkpoint(request: pb.PutCheckpointRequest, tenant: str, limits: Limits) -> PutCheckpoint:
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
    )


def read_put_writes(request: pb.PutWritesRequest, tenant: str, limits: Limits) -> PutWrites:
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
        channel = write.channel
        check_text(channel, f"writes[{position}].channel", limits.max_channel_bytes)
        if not write.HasField("value"):
            raise InvalidArgument(f"writes[{position}].value", "is required")
        value = write.value
        check_typed_value(value, f"writes[{position}].value", limits)
        idx = write.idx
        if idx < 0 or idx not in writes:
            writes[idx] = TaskWrite(task_id, task_path, idx, channel, TypedValue(value.type, value.data))
    return PutWrites(
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        writes=list(writes.values()),
        precondition=read_precondition(request.HasField("precondition"), request.precondition, limits),
        lease_token=read_lease_token(request.lease_token),
    )


def read_list(request: pb.ListCheckpointsRequest, tenant: str, limits: Limits, page_bytes: int) -> ListQuery:
    """Returns the query that a request asks for. Raises InvalidArgument."""
    thread_id = request.thread_id if request.HasField("thread_id") else None
    if thread_id is not None:
        check_text(thread_id, "thread_id", limits.max_thread_id_bytes)
    checkpoint_ns = request.checkpoint_ns if request.HasField("checkpoint_ns") else None
    if checkpoint_ns is not None:
        check_optional_text(checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
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
        checkpoint_ns=checkpoint_ns,
        checkpoint_id=read_optional_id(request.checkpoint_id, "checkpoint_id", limits),
        before_checkpoint_id=read_optional_id(request.before_checkpoint_id, "before_checkpoint_id", limits),
        metadata_filter=project_filter(request.filter, limits),
        metadata_only=view == pb.CHECKPOINT_VIEW_METADATA,
        page_size=page_size or min(limits.default_page_size, limits.max_page_size),
        page_bytes=page_bytes,
        after=read_page_token(request, tenant, limits),
    )


def _read_target(
    request: pb.GetCheckpointRequest | pb.GetDeltaChannelHistoryRequest, tenant: str, limits: Limits
) -> tuple[Namespace, str | None]:
    namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, limits)
    return namespace, read_optional_id(request.checkpoint_id, "checkpoint_id", limits)


def _position(stored: StoredCheckpoint) -> CheckpointPosition:
    return CheckpointPosition(stored.checkpoint_id, stored.thread_id, stored.checkpoint_ns)
