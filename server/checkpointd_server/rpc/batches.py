"""Several calls in one: each as if it had been called alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from time import perf_counter

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.values_pb2 import Piece
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.errors import InvalidArgument, ResultTooLarge
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.calls import Calls
from checkpointd_server.rpc.errors import SlowOperation
from checkpointd_server.rpc.identity import OPERATIONS, check_scope
from checkpointd_server.rpc.operations import get_checkpoint, put_checkpoint, put_writes
from checkpointd_server.rpc.pieces import INLINE_BYTES
from checkpointd_server.rpc.validation import check_batch

_NAMES = {
    "put_checkpoint": "CheckpointService/PutCheckpoint",
    "put_writes": "CheckpointService/PutWrites",
    "get_checkpoint": "CheckpointService/GetCheckpoint",
    None: "CheckpointService/Batch",
}


SLOW_SECONDS = 0.5
"""How long the calls of a batch that are done wait for those that aren't."""
READ_BYTES = 3 * 1024 * 1024
"""How much the reads of a batch may bring together, in bytes. What comes after is to be asked for alone."""
READS_AT_ONCE = 4
"""How many reads of a batch are done at once."""


class _Reads:
    """The reads of a batch: a few at a time, and no more than fit."""

    def __init__(self, room: int) -> None:
        self._limit = self._room = room
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a read's turn. Raises ResultTooLarge if those before it took all the room."""
        async with self._turns:
            if self._room <= 0:
                raise ResultTooLarge(self._limit - self._room, limit=self._limit)
            yield

    def count(self, size: int) -> None:
        """Notes what a read has brought. Raises ResultTooLarge if it doesn't fit with the others."""
        self._room -= size
        if self._room < 0:
            raise ResultTooLarge(size, limit=self._limit)


class Batches:
    """Does the calls of a batch."""

    def __init__(self, store: CheckpointStore, limits: Limits, calls: Calls) -> None:
        self._store = store
        self._limits = limits
        self._calls = calls

    async def do(self, request: pb.BatchRequest, identity: Identity, timeout: float | None) -> bytes:
        """Does all calls at once and returns the encoded answer. The store keeps a namespace's writes in order."""
        operations = request.operations
        check_batch(operations, "operations", self._limits.max_batch_operations)
        started = perf_counter()
        reads = _Reads(min(READ_BYTES, self._limits.max_message_bytes // 2))
        tasks = [asyncio.ensure_future(self._operate(operation, identity, timeout, reads)) for operation in operations]
        try:
            await _until_most_are_done(tasks)
            results = [
                task.result()
                if task.done()
                else self._failure(operation.WhichOneof("operation"), started, operation, SlowOperation(), identity)
                for task, operation in zip(tasks, operations, strict=True)
            ]
        finally:
            for task in tasks:
                task.cancel()
        return pb.BatchResponse(results=results).SerializeToString()

    async def _operate(
        self, operation: pb.BatchOperation, identity: Identity, timeout: float | None, reads: _Reads
    ) -> pb.BatchResult:
        started, tenant = perf_counter(), identity.tenant
        kind = operation.WhichOneof("operation")
        try:
            if kind is not None:
                check_scope(identity, OPERATIONS[kind])
            if kind == "put_checkpoint":
                _check_pieces(operation.put_checkpoint.pieces)
                put = await put_checkpoint(
                    self._store, operation.put_checkpoint, tenant, self._limits, timeout, in_company=True
                )
                return pb.BatchResult(put_checkpoint=put)
            if kind == "put_writes":
                _check_pieces(operation.put_writes.pieces)
                written = await put_writes(
                    self._store, operation.put_writes, tenant, self._limits, timeout, in_company=True
                )
                return pb.BatchResult(put_writes=written)
            if kind == "get_checkpoint":
                async with reads.turn():
                    read = await get_checkpoint(self._store, operation.get_checkpoint, tenant, self._limits, timeout)
                    reads.count(read.ByteSize())
                return pb.BatchResult(get_checkpoint=read)
            raise InvalidArgument("operation", "is required: set put_checkpoint, put_writes or get_checkpoint")
        except Exception as error:
            return self._failure(kind, started, operation, error, identity)

    def _failure(
        self, kind: str | None, started: float, operation: pb.BatchOperation, error: Exception, identity: Identity
    ) -> pb.BatchResult:
        request = getattr(operation, kind) if kind else None
        failure = self._calls.failure(_NAMES[kind], started, request, error, identity)
        told = pb.OperationFailure(
            code=failure.code.value[0],
            message=failure.message,
            reason=failure.reason,
            metadata=failure.metadata,
            retry_after_ms=failure.retry_after_ms,
        )
        return pb.BatchResult(failure=told)


def _check_pieces(pieces: Iterable[Piece]) -> None:
    """Refuses a put with so many pieces that unpacking them would let later ones overtake it."""
    size = sum([len(piece.data) for piece in pieces])
    if size > INLINE_BYTES:
        problem = f"have {size} bytes, at most {INLINE_BYTES} are allowed in a batch; send this call alone"
        raise InvalidArgument("pieces", problem, limit=INLINE_BYTES)


async def _until_most_are_done(tasks: Collection[asyncio.Future[pb.BatchResult]]) -> None:
    """Waits until all calls are done, but not for long once the first is: one may wait for a lock."""
    if tasks:
        _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if left:
            await asyncio.wait(left, timeout=SLOW_SECONDS)
