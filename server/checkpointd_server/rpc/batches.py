"""Several calls in one: each as if it had been called alone."""

from __future__ import annotations

import asyncio
from time import perf_counter

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument, ResultTooLarge
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.calls import Calls
from checkpointd_server.rpc.messages import write_checkpoint
from checkpointd_server.rpc.requests import read_put_checkpoint, read_put_writes, read_target
from checkpointd_server.rpc.validation import check_batch

_NAMES = {
    "put_checkpoint": "CheckpointService/PutCheckpoint",
    "put_writes": "CheckpointService/PutWrites",
    "get_checkpoint": "CheckpointService/GetCheckpoint",
    None: "CheckpointService/Batch",
}


class Batches:
    """Does the calls of a batch."""

    def __init__(self, store: CheckpointStore, limits: Limits, calls: Calls) -> None:
        self._store = store
        self._limits = limits
        self._calls = calls

    async def do(self, request: pb.BatchRequest, tenant: str, timeout: float | None) -> bytes:
        """Does all calls at once and returns the encoded answer. The store keeps those on one namespace in order."""
        operations = request.operations
        check_batch(operations, "operations", self._limits.max_batch_operations)
        results = await asyncio.gather(*[self._operate(operation, tenant, timeout) for operation in operations])
        room = self._limits.max_message_bytes - 64 * 1024
        for position, result in enumerate(results):
            room -= result.ByteSize()
            if room < 0 and result.HasField("get_checkpoint"):
                # The others' answers must not be lost for the sake of this one, which has room in a call of its own.
                size = result.ByteSize()
                room += size
                error = ResultTooLarge(size, limit=self._limits.max_message_bytes)
                results[position] = self._failure("get_checkpoint", perf_counter(), operations[position], error)
        return pb.BatchResponse(results=results).SerializeToString()

    async def _operate(self, operation: pb.BatchOperation, tenant: str, timeout: float | None) -> pb.BatchResult:
        started = perf_counter()
        result = pb.BatchResult()
        kind = operation.WhichOneof("operation")
        try:
            if kind == "put_checkpoint":
                put = read_put_checkpoint(operation.put_checkpoint, tenant, self._limits)
                result.put_checkpoint.version = await self._store.put_checkpoint(put, timeout=timeout)
            elif kind == "put_writes":
                writes = read_put_writes(operation.put_writes, tenant, self._limits)
                result.put_writes.version = await self._store.put_writes(writes, timeout=timeout)
            elif kind == "get_checkpoint":
                namespace, checkpoint_id = read_target(operation.get_checkpoint, tenant, self._limits)
                checkpoint, version = await self._store.get_checkpoint(namespace, checkpoint_id, timeout=timeout)
                result.get_checkpoint.version = version
                if checkpoint is not None:
                    write_checkpoint(checkpoint, result.get_checkpoint.tuple)
            else:
                raise InvalidArgument("operation", "is required: set put_checkpoint, put_writes or get_checkpoint")
        except Exception as error:
            return self._failure(kind, started, operation, error)
        return result

    def _failure(
        self, kind: str | None, started: float, operation: pb.BatchOperation, error: Exception
    ) -> pb.BatchResult:
        request = getattr(operation, kind) if kind else None
        failure = self._calls.failure(_NAMES[kind], started, request, error)
        told = pb.OperationFailure(
            code=failure.code.value[0], message=failure.message, reason=failure.reason, metadata=failure.metadata
        )
        return pb.BatchResult(failure=told)
