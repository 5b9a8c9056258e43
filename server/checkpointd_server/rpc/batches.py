"""Several calls in one: each as if it had been called alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.values_pb2 import Piece
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.errors import InvalidArgument, ResultTooLarge
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.calls import Call, Calls
from checkpointd_server.rpc.errors import Failure, SlowOperation
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

    async def do(
        self, operations: Sequence[pb.BatchOperation], identity: Identity, timeout: float | None
    ) -> list[pb.BatchResult]:
        """Does all calls at once and returns what came of each. The store keeps a namespace's writes in order."""
        check_batch(operations, "operations", self._limits.max_batch_operations)
        reads = _Reads(min(READ_BYTES, self._limits.max_message_bytes // 2))
        kinds = [operation.WhichOneof("operation") for operation in operations]
        calls = [_begin(operation, kind, identity) for operation, kind in zip(operations, kinds, strict=True)]
        if len(calls) == 1:
            return [await self._do(kinds[0], calls[0], timeout, reads, in_company=False)]
        tasks = [
            asyncio.ensure_future(self._do(kind, call, timeout, reads, in_company=True))
            for kind, call in zip(kinds, calls, strict=True)
        ]
        try:
            await _until_most_are_done(tasks)
            return [
                task.result() if task.done() else self._failure(call, SlowOperation())
                for task, call in zip(tasks, calls, strict=True)
            ]
        finally:
            for task in tasks:
                task.cancel()

    async def _do(
        self, kind: str | None, call: Call, timeout: float | None, reads: _Reads, *, in_company: bool
    ) -> pb.BatchResult:
        store, limits, request, identity = self._store, self._limits, call.request, call.identity
        assert identity is not None
        tenant = identity.tenant
        try:
            if kind is not None:
                check_scope(identity, OPERATIONS[kind])
            if kind == "put_checkpoint":
                _check_pieces(request.pieces)
                put = await put_checkpoint(store, request, tenant, limits, timeout, in_company=in_company)
                return pb.BatchResult(put_checkpoint=put)
            if kind == "put_writes":
                _check_pieces(request.pieces)
                written = await put_writes(store, request, tenant, limits, timeout, in_company=in_company)
                return pb.BatchResult(put_writes=written)
            if kind == "get_checkpoint":
                async with reads.turn():
                    read = await get_checkpoint(store, request, tenant, limits, timeout)
                    reads.count(read.ByteSize())
                return pb.BatchResult(get_checkpoint=read)
            raise InvalidArgument("operation", "is required: set put_checkpoint, put_writes or get_checkpoint")
        except Exception as error:
            return self._failure(call, error)

    def _failure(self, call: Call, error: Exception) -> pb.BatchResult:
        return pb.BatchResult(failure=write_failure(self._calls.refused(call, error)))


def write_failure(failure: Failure) -> pb.OperationFailure:
    """Returns a failure as a message."""
    return pb.OperationFailure(
        code=failure.code.value[0],
        message=failure.message,
        reason=failure.reason,
        metadata=failure.metadata,
        retry_after_ms=failure.retry_after_ms,
    )


def _begin(operation: pb.BatchOperation, kind: str | None, identity: Identity) -> Call:
    """Returns an operation as the call that it stands for."""
    call = Call(_NAMES[kind])
    call.identity = identity
    call.request = getattr(operation, kind) if kind else None
    return call


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
