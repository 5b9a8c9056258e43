"""Batches of the store on a stream. They wait for nothing, neither for each other nor for operations on checkpoints."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.errors import DeadlineExceeded
from checkpointd_server.rpc.auth.scopes import OPERATIONS, only_reads
from checkpointd_server.rpc.calls.handler import Calls, this_task
from checkpointd_server.rpc.pipeline.stream_operations import StreamOperation, StreamOperations, failed

BATCHES_AT_ONCE = 64
"""Maximum number of concurrent batches of a stream."""

DoBatch = Callable[[store_pb.BatchRequest, Identity, store_pb.BatchResponse, "float | None"], Awaitable[None]]
"""Executes a batch: takes it, its caller, the response to fill in, and the remaining seconds."""


class StoreBatches:
    """Executes the batches of a stream.

    Args:
        do_batch: Executes one.
        operations: The operations of the stream, which sends the results.
        calls: Logs and audits them.
        peer: The client, as gRPC names it.
    """

    def __init__(self, do_batch: DoBatch, operations: StreamOperations, calls: Calls, peer: str) -> None:
        self._do_batch = do_batch
        self._operations = operations
        self._calls = calls
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._ready: deque[StreamOperation] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def place(self, operation: StreamOperation) -> None:
        """Starts a batch, now or when fewer are in progress."""
        self._ready.append(operation)
        self.start()

    def start(self) -> None:
        """Starts batches, as many as may be in progress."""
        while self._ready and len(self._running) < BATCHES_AT_ONCE and self._operations.has_room:
            operation = self._ready.popleft()
            task = self._loop.create_task(self._run(operation))
            self._running.add(task)
            task.add_done_callback(partial(self._ended, operation))

    def _ended(self, operation: StreamOperation, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            self._calls.audit_batch(operation.as_call(), self._peer, "CANCELLED")
            self._calls.log.cancelled(operation.as_call())
            self._operations.free((operation,))
        elif (error := task.exception()) is not None:
            raise error

    async def _run(self, operation: StreamOperation) -> None:
        response = pb.PipelineResponse()
        result = response.results.add(id=operation.id).store_batch
        when_sent: list[Callable[[object], None]] = []
        assert operation.batch is not None
        assert operation.identity is not None
        try:
            timeout = self._operations.begin(operation)
            result.SetInParent()
            try:
                async with asyncio.timeout(timeout):
                    await self._do_batch(operation.batch, operation.identity, result, timeout)
            except TimeoutError as error:
                raise DeadlineExceeded from error
            may_refuse = only_reads(OPERATIONS["store_batch"], operation.batch)
            encoded = self._operations.encode(operation, response, when_sent, refuse=may_refuse)
            self._calls.audit_batch(operation.as_call(), self._peer, result)
        except Exception as error:
            failure = self._calls.refused(operation.as_call(), error)
            self._calls.audit_batch(operation.as_call(), self._peer, failure.code.name)
            encoded = pb.PipelineResponse(results=[failed(operation.id, failure)]).SerializeToString()
        del response, result
        self._running.discard(this_task())
        self._operations.answer((operation,), encoded, when_sent)
        self.start()

    def drop(self) -> None:
        """Drops unfinished batches. Changes whose commit has begun are finished."""
        for task in self._running:
            task.cancel()
        self._operations.free(self._ready)
        self._ready.clear()
