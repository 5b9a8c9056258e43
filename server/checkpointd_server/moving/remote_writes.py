"""Writing threads through a server's RPCs: many operations per message, and large values in parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc

from checkpointd.v1.checkpoint_service_pb2 import (
    Operation,
    PipelineRequest,
    PutCheckpointRequest,
    PutWritesRequest,
)
from checkpointd.v1.export_pb2 import ExportedThread
from checkpointd.v1.operation_failure_pb2 import OperationFailure
from checkpointd.v1.thread_service_pb2 import ArchiveThreadRequest, DeleteThreadRequest, UpdateThreadRequest
from checkpointd.v1.value_service_pb2 import PutPartRequest
from checkpointd.v1.values_pb2 import ChannelValue, CheckpointTuple, TaskWrite, TypedValue
from checkpointd_server.moving.content import MoveError
from checkpointd_server.moving.quotas import check_quota
from checkpointd_server.moving.remote_threads import RemoteThreads
from checkpointd_server.remote.refusals import Refusal
from checkpointd_server.remote.retries import Retries

BATCH_OPERATIONS = 64
"""Maximum number of operations per message."""
BATCH_BYTES = 2 * 1024 * 1024
"""Maximum size of a message, in bytes. A larger operation is sent by a unary call."""
INLINE_BYTES = 256 * 1024
"""Maximum size of a value within its operation, in bytes. A larger one is uploaded before, in parts."""
PART_BYTES = 1024 * 1024
"""Size of a part, in bytes."""
_OF_ONE_THREAD = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)
"""Status codes of failures that concern only one thread."""


class RemoteTarget(RemoteThreads):
    """A server as a target of threads.

    Args:
        channel: To the server.
        timeout: How long each call may take, in seconds.
    """

    def delete(self, thread_id: str) -> None:
        """Deletes a thread. Raises MoveError, grpc.RpcError."""
        request = DeleteThreadRequest(thread_id=thread_id)
        with _refusing(thread_id):
            self._threads.DeleteThread(request, timeout=self._timeout)

    @contextmanager
    def writing(self, thread: ExportedThread) -> Iterator[_RemoteWriter]:
        """Receives a thread step by step: what was written stays, even after an error."""
        writer = _RemoteWriter(self._checkpoints, self._values, thread.thread_id, self._timeout)
        yield writer
        writer.flush()
        if thread.tags or thread.pinned or thread.ttl_seconds:
            update = UpdateThreadRequest(
                thread_id=thread.thread_id, set_tags=thread.tags, pinned=thread.pinned, ttl_seconds=thread.ttl_seconds
            )
            with _refusing(thread.thread_id):
                self._threads.UpdateThread(update, timeout=self._timeout)
        if thread.archived:
            archive = ArchiveThreadRequest(thread_id=thread.thread_id)
            with _refusing(thread.thread_id):
                self._threads.ArchiveThread(archive, timeout=self._timeout)


class _RemoteWriter:
    """Writes the checkpoints of a thread in order."""

    def __init__(self, checkpoints: Any, values: Any, thread_id: str, timeout: float) -> None:
        self._checkpoints = checkpoints
        self._values = values
        self._thread_id = thread_id
        self._timeout = timeout
        self._batch: list[Operation] = []
        self._size = 0

    def write(self, checkpoint: CheckpointTuple) -> None:
        """Writes the next checkpoint with its task writes."""
        for values in _rounds(checkpoint.values):
            put = PutCheckpointRequest(
                thread_id=self._thread_id,
                checkpoint_ns=checkpoint.checkpoint_ns,
                checkpoint_id=checkpoint.checkpoint_id,
                parent_checkpoint_id=checkpoint.parent_checkpoint_id,
                body=checkpoint.body,
                channels=checkpoint.channels,
                channel_versions=checkpoint.channel_versions,
                metadata=checkpoint.metadata,
                request_id=os.urandom(16),
            )
            for value in values:
                sent = put.values.add(channel=value.channel, version=value.version)
                self._send_ahead(sent.value, value.value)
            self._add(Operation(put_checkpoint=put))
        tasks: dict[tuple[str, str], list[TaskWrite]] = {}
        for write in checkpoint.pending_writes:
            tasks.setdefault((write.task_id, write.task_path), []).append(write)
        for (task_id, task_path), written in tasks.items():
            request = PutWritesRequest(
                thread_id=self._thread_id,
                checkpoint_ns=checkpoint.checkpoint_ns,
                checkpoint_id=checkpoint.checkpoint_id,
                task_id=task_id,
                task_path=task_path,
                request_id=os.urandom(16),
            )
            for write in written:
                self._send_ahead(request.writes.add(idx=write.idx, channel=write.channel).value, write.value)
            self._add(Operation(put_writes=request))

    def _send_ahead(self, target: TypedValue, value: TypedValue) -> None:
        """Adds a value to an operation, or uploads it in parts if it is large."""
        if len(value.data) <= INLINE_BYTES or (value.HasField("patch") and not value.patch.sealed):
            target.CopyFrom(value)
            return
        upload_id = os.urandom(16)
        for offset in range(0, len(value.data), PART_BYTES):
            part = PutPartRequest(
                thread_id=self._thread_id,
                upload_id=upload_id,
                offset=offset,
                data=value.data[offset : offset + PART_BYTES],
            )
            with _refusing(self._thread_id):
                self._values.PutPart(part, timeout=self._timeout)
        target.type = value.type
        if value.HasField("patch"):
            target.patch.CopyFrom(value.patch)
        target.crc32 = value.crc32
        target.parts.upload_id = upload_id
        target.parts.size = len(value.data)

    def _add(self, operation: Operation) -> None:
        size = operation.ByteSize()
        if self._batch and (len(self._batch) >= BATCH_OPERATIONS or self._size + size > BATCH_BYTES):
            self.flush()
        operation.id = len(self._batch) + 1
        self._batch.append(operation)
        self._size += size
        if size > BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Sends the rest, and waits until it is stored. Raises MoveError, grpc.RpcError."""
        batch, self._batch, size, self._size = self._batch, [], self._size, 0
        if not batch:
            return
        if size > BATCH_BYTES:
            (operation,) = batch
            self._call(operation)
            return
        retries = Retries()
        while True:
            error: Exception
            try:
                failure = self._send(batch)
            except grpc.RpcError as broken:
                refusal, error = Refusal.of_call(broken), broken
            else:
                if failure is None:
                    return
                refusal = Refusal.of_operation(failure)
                error = MoveError(f"thread {self._thread_id!r} is refused ({refusal.reason}): {refusal.message}")
            check_quota(refusal)
            pause = retries.next_pause(refusal)
            if pause is None:
                raise error
            time.sleep(pause)

    def _call(self, operation: Operation) -> None:
        kind = operation.WhichOneof("operation")
        method = self._checkpoints.PutCheckpoint if kind == "put_checkpoint" else self._checkpoints.PutWrites
        with _refusing(self._thread_id):
            method(getattr(operation, kind), timeout=self._timeout)

    def _send(self, batch: list[Operation]) -> OperationFailure | None:
        """Sends a batch over a stream. Returns the error of its first failed operation, if any."""
        requests: SimpleQueue[PipelineRequest | None] = SimpleQueue()
        requests.put(PipelineRequest(operations=batch))
        stream = self._checkpoints.Pipeline(iter(requests.get, None), timeout=self._timeout)
        waiting, failures = len(batch), dict[int, OperationFailure]()
        try:
            for response in stream:
                for result in response.results:
                    waiting -= 1
                    if result.HasField("failure"):
                        failures[result.id] = result.failure
                if not waiting:
                    break
        finally:
            requests.put(None)
            stream.cancel()
        return failures[min(failures)] if failures else None


@contextmanager
def _refusing(thread_id: str) -> Iterator[None]:
    """Turns a refusal that concerns one thread into a MoveError."""
    try:
        yield
    except grpc.RpcError as error:
        check_quota(Refusal.of_call(error))
        if error.code() in _OF_ONE_THREAD:
            raise MoveError(f"thread {thread_id!r} is refused: {error.details()}") from error
        raise


def _rounds(values: Iterable[ChannelValue]) -> list[list[ChannelValue]]:
    """Distributes values over puts, at least one: each has at most one value of a channel.

    A channel has several values if an encrypted patch's base is included.
    """
    rounds: list[list[ChannelValue]] = [[]]
    counts: dict[str, int] = {}
    for value in values:
        number = counts.get(value.channel, 0)
        counts[value.channel] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(value)
    return rounds
