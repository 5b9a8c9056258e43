"""CheckpointService: puts, reads and lists. rpc/pipeline serves its pipeline."""

from __future__ import annotations

import itertools

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.checkpoints import CheckpointPosition, Page, StoredCheckpoint, TaskWrite
from checkpointd_server.domain.patches import Assembler, Budget
from checkpointd_server.domain.values import ChannelValueKey, TypedValue
from checkpointd_server.rpc.calls.executor import BoundedExecutor
from checkpointd_server.rpc.conversion.checkpoints import (
    read_list,
    read_put_checkpoint,
    read_put_writes,
    read_target,
    write_checkpoint,
    write_values,
)
from checkpointd_server.rpc.conversion.metadata_struct import write_struct
from checkpointd_server.rpc.conversion.page_tokens import read_history_token, write_history_token, write_list_token
from checkpointd_server.rpc.conversion.validation import check_count, check_texts
from checkpointd_server.rpc.conversion.values import write_stored_values, write_task_writes, write_value
from checkpointd_server.rpc.operations import Operations, read_get_checkpoint
from checkpointd_server.rpc.values.whole_values import MADE_FOR_INLINE, WholeValues, within


class CheckpointServicer:
    """Serves the checkpoints of a store. Each method takes a request and returns the encoded response."""

    def __init__(self, operations: Operations, executor: BoundedExecutor) -> None:
        self._operations = operations
        self._store = operations.store
        self._limits = operations.limits
        self._executor = executor

    async def put_checkpoint(self, request: pb.PutCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores a checkpoint."""
        put = read_put_checkpoint(request, tenant, self._limits)
        self._operations.slow_call_log.look_at(put)
        version = await self._operations.write(put, timeout)
        return pb.PutCheckpointResponse(version=version).SerializeToString()

    async def put_writes(self, request: pb.PutWritesRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores task writes."""
        put = read_put_writes(request, tenant, self._limits)
        version = await self._operations.write(put, timeout)
        return pb.PutWritesResponse(version=version).SerializeToString()

    async def get_checkpoint(self, request: pb.GetCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads one checkpoint."""
        response = pb.GetCheckpointResponse()
        read = read_get_checkpoint(request, tenant, self._limits)
        await self._operations.get_checkpoint(read, response, timeout)
        return response.SerializeToString()

    async def list_checkpoints(self, request: pb.ListCheckpointsRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads a page of checkpoints."""
        query = read_list(request, tenant, self._limits)
        page = await self._store.list_checkpoints(query, timeout=timeout)
        response = pb.ListCheckpointsResponse(version=page.version)
        after = page.after
        if request.patches or query.metadata_only:
            for stored in page.checkpoints:
                message = response.tuples.add()
                write_checkpoint(stored, message)
                if request.metadata_struct:
                    write_struct(stored.metadata, message.metadata, self._limits)
            write_stored_values(page.values, response.stored_values)
        else:
            whole = WholeValues(page.checkpoints, page.values, self._limits)
            if whole.takes_long:
                after = await self._executor.run(self._write_whole, page, whole, response, request.metadata_struct)
            else:
                after = self._write_whole(page, whole, response, request.metadata_struct)
        if after is not None:
            response.next_page_token = write_list_token(after, request, tenant)
        return response.SerializeToString()

    def _write_whole(
        self,
        page: Page,
        whole: WholeValues,
        response: pb.ListCheckpointsResponse,
        metadata_struct: bool,
    ) -> CheckpointPosition | None:
        """Adds the values of checkpoints, and returns where the next page starts.

        Whole values are larger than the rows they are made of, and each checkpoint has its own: so the page may end
        earlier than the store's.
        """
        size, before = 0, None
        for stored in page.checkpoints:
            message = response.tuples.add()
            values, writes = whole.of(stored)
            write_checkpoint(stored, message, writes)
            if metadata_struct:
                write_struct(stored.metadata, message.metadata, self._limits)
            write_values(values, message)
            size += message.ByteSize()
            if size > self._limits.max_page_bytes and before is not None:
                del response.tuples[-1]
                return _position(before)
            before = stored
        return page.after

    async def get_delta_channel_history(
        self, request: pb.GetDeltaChannelHistoryRequest, tenant: str, timeout: float | None
    ) -> bytes:
        """Reads a page of the histories of channels."""
        limits = self._limits
        namespace, checkpoint_id = read_target(request, tenant, limits)
        channels = list(request.channels)
        check_count(len(channels), "channels", limits.max_batch)
        check_texts(channels, "channels[{}]", limits.max_channel_bytes)
        after = read_history_token(request, tenant)
        found = await self._store.get_delta_history(
            namespace,
            checkpoint_id,
            list(dict.fromkeys(channels)),
            after=after,
            page_bytes=limits.max_page_bytes,
            timeout=timeout,
        )
        histories = {history.channel: history for history in found.channels}
        response = pb.GetDeltaChannelHistoryResponse(version=found.version)
        rows = {ChannelValueKey(channel, version): value for _, channel, version, value in found.values}
        seeds = [
            ChannelValueKey(history.channel, history.seed_version)
            for history in found.channels
            if history.seed_version is not None
        ]
        writes = [write for history in found.channels for _, write in history.writes]
        whole: dict[ChannelValueKey, TypedValue] = {}
        whole_writes = iter(writes)
        if request.patches:
            write_stored_values(found.values, response.stored_values)
        elif any(value.patch is not None for value in rows.values()) or any(w.value.patch is not None for w in writes):
            whole, made = await self._executor.run(self._whole, rows, seeds, writes)
            whole_writes = iter(made)
        else:
            whole = {key: rows[key] for key in seeds if key in rows}
        by_channel = {
            history.channel: list(itertools.islice(whole_writes, len(history.writes))) for history in found.channels
        }
        for channel in channels:
            message, history = response.channels.add(channel=channel), histories[channel]
            write_task_writes(by_channel[channel], message.writes)
            for written, (beside, _) in zip(message.writes, history.writes, strict=True):
                written.checkpoint_id = beside
            if history.seed_version is not None:
                message.seed_version = history.seed_version
                if seed := whole.get(ChannelValueKey(channel, history.seed_version)):
                    write_value(seed, message.seed)
        if found.after is not None:
            response.next_page_token = write_history_token(found.after, request, tenant)
        return response.SerializeToString()

    def _whole(
        self, rows: dict[ChannelValueKey, TypedValue], seeds: list[ChannelValueKey], writes: list[TaskWrite]
    ) -> tuple[dict[ChannelValueKey, TypedValue], list[TaskWrite]]:
        """Assembles seeds and task writes, as many of the writes as fit on a page."""
        room = largest = self._limits.max_inline_bytes
        assembler = Assembler(rows, largest=largest, budget=Budget(MADE_FOR_INLINE * largest))
        made = {key: assembler.value(key) for key in seeds}
        whole: list[TaskWrite] = []
        for write in writes:
            if write.value.patch is not None:
                value, room = within(assembler.write(write.channel, write.value), room)
                write = write._replace(value=value)
            whole.append(write)
        return {key: value for key, value in made.items() if value is not None}, whole


def _position(stored: StoredCheckpoint) -> CheckpointPosition:
    return CheckpointPosition(stored.checkpoint_id, stored.thread_id, stored.checkpoint_ns)
