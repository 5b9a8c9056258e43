"""CheckpointService: puts, reads and lists."""

from __future__ import annotations

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.model import (
    CheckpointPosition,
    ListQuery,
    StoredCheckpoint,
)
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.batches import Batches
from checkpointd_server.rpc.calls import Calls
from checkpointd_server.rpc.messages import (
    read_optional_id,
    write_checkpoint,
    write_task_writes,
)
from checkpointd_server.rpc.operations import get_checkpoint, put_checkpoint, put_writes
from checkpointd_server.rpc.paging import read_page_token, write_page_token
from checkpointd_server.rpc.pieces import write_pieces, write_value
from checkpointd_server.rpc.projection import project_filter
from checkpointd_server.rpc.requests import read_target
from checkpointd_server.rpc.validation import (
    check_batch,
    check_optional_text,
    check_text,
    check_texts,
)
from checkpointd_server.rpc.versions import write_version


class CheckpointServicer:
    """Serves checkpoints out of a store. Each method takes a request and returns the encoded response."""

    def __init__(self, store: CheckpointStore, limits: Limits, calls: Calls) -> None:
        self._store = store
        self._limits = limits
        self._batches = Batches(store, limits, calls)
        # Half of a message is left for what the store doesn't count: names, versions and the encoding itself.
        self._page_bytes = min(limits.max_page_bytes, limits.max_message_bytes // 2)

    async def put_checkpoint(self, request: pb.PutCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores a checkpoint."""
        return (await put_checkpoint(self._store, request, tenant, self._limits, timeout)).SerializeToString()

    async def put_writes(self, request: pb.PutWritesRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores task writes."""
        return (await put_writes(self._store, request, tenant, self._limits, timeout)).SerializeToString()

    async def get_checkpoint(self, request: pb.GetCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads one checkpoint."""
        return (await get_checkpoint(self._store, request, tenant, self._limits, timeout)).SerializeToString()

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
            write_pieces(page.pieces, response.pieces)
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
        namespace, checkpoint_id = read_target(request, tenant, self._limits)
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
            for write, beside in zip(message.writes, history.checkpoint_ids, strict=True):
                write.checkpoint_id = beside
            if history.seed is not None and history.seed_version is not None:
                write_value(history.seed, message.seed)
                write_version(history.seed_version, message.seed_version)
        write_pieces(found.pieces, response.pieces)
        return response.SerializeToString()

    async def batch(self, request: pb.BatchRequest, identity: Identity, timeout: float | None) -> bytes:
        """Does several calls at once, those that the caller may do."""
        results = await self._batches.do(request.operations, identity, timeout)
        return pb.BatchResponse(results=results).SerializeToString()

    async def stream_batches(
        self, request: pb.StreamBatchesRequest, identity: Identity, timeout: float | None
    ) -> bytes:
        """Does a batch that came over an open call."""
        results = await self._batches.do(request.operations, identity, timeout)
        return pb.StreamBatchesResponse(id=request.id, results=results).SerializeToString()


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


def _position(stored: StoredCheckpoint) -> CheckpointPosition:
    return CheckpointPosition(stored.checkpoint_id, stored.thread_id, stored.checkpoint_ns)
