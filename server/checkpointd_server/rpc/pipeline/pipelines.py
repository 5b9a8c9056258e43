"""The multiplexed stream: operations come in, results go out, in order for each namespace.

All queues are bounded: a stream isn't read further while too many operations, or bytes, have no sent result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
import grpc.aio

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.checkpoints import PendingWrite, PutCheckpoint, PutWrites
from checkpointd_server.domain.errors import (
    CheckpointdError,
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    QuotaExceeded,
)
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.auth import Authenticator
from checkpointd_server.rpc.auth.scopes import OPERATIONS, Unauthenticated, check_scope
from checkpointd_server.rpc.calls.admission import AdmissionController
from checkpointd_server.rpc.calls.call import Call
from checkpointd_server.rpc.calls.handler import Calls, this_task
from checkpointd_server.rpc.conversion.checkpoints import read_put_checkpoint, read_put_writes
from checkpointd_server.rpc.conversion.wire import parse
from checkpointd_server.rpc.errors import Draining, Failure, RequestTooLarge
from checkpointd_server.rpc.operations import Operations, read_get_checkpoint
from checkpointd_server.rpc.pipeline.store_batches import DoBatch, StoreBatches
from checkpointd_server.rpc.pipeline.stream_operations import OPERATION_METHODS, StreamOperation, StreamOperations
from checkpointd_server.rpc.tenants import TenantState

TRY_AGAIN_SECONDS = 30.0
"""Pause before another attempt to open a stream when too many are open, in seconds."""
READ_BYTES = 200
"""Bytes that a read counts for."""
SLICE_SECONDS = 0.02
"""How long operations are accepted before yielding, in seconds."""


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """Limits of streams."""

    max_streams: int = 1024
    """Maximum number of streams. Most are idle at any moment."""
    max_operations: int = 1024
    """Maximum number of a stream's operations without a sent result. No more are read."""
    max_bytes: int = 8 * 1024 * 1024
    """Maximum size of these, in bytes."""


class Pipelines:
    """Serves streams, and keeps track of open ones.

    Args:
        operations: Executes the operations on checkpoints.
        do_batch: Executes batches of the store.
        calls: Counts and logs them.
        authenticator: Authenticates callers.
        load: Counts the bytes of requests and answers.
        options: The limits of streams.
    """

    def __init__(
        self,
        operations: Operations,
        do_batch: DoBatch,
        calls: Calls,
        authenticator: Authenticator,
        load: AdmissionController,
        options: PipelineOptions,
    ) -> None:
        self.operations = operations
        self.do_batch = do_batch
        self.calls = calls
        self.authenticator = authenticator
        self.load = load
        self.options = options
        self._open: set[_Stream] = set()
        self._draining = False

    @property
    def open_streams(self) -> int:
        """The number of open streams."""
        return len(self._open)

    def handler(self, name: str) -> grpc.RpcMethodHandler:
        """Returns the handler of the method.

        Args:
            name: The method as the log has it.
        """

        async def serve(requests: object, context: grpc.aio.ServicerContext) -> None:
            task = this_task()
            self.calls.active.follow(task)
            tenant = await self._open_for(name, context)
            failure: Failure | None
            if isinstance(tenant, Failure):
                failure = tenant
            else:
                stream = _Stream(self, name, context, task)
                self._open.add(stream)
                tenant.streams += 1
                # Not when it has been served: gRPC still holds messages for a client that doesn't read.
                task.add_done_callback(lambda _: self._closed(stream, tenant))
                failure = await stream.serve()
            if failure is not None:
                await context.abort(failure.code, failure.message, failure.trailers)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _open_for(self, name: str, context: grpc.aio.ServicerContext) -> TenantState | Failure:
        """Returns the identity of a new stream's caller, or why the stream can't be opened."""
        call = Call(name)
        try:
            call.identity = await self.authenticator.authenticate(context)
            if self._draining:
                raise Draining()
        except Exception as error:
            self.calls.note_wasted(context.peer(), error)
            return self.calls.refused(call, error)
        tenant = self.calls.tenants.of(call.identity.tenant)
        try:
            if len(self._open) >= self.options.max_streams:
                raise Overloaded("streams", limit=self.options.max_streams)
            self.calls.tenants.check_stream(tenant, len(self._open))
        except Overloaded as error:
            # That isn't overload: most streams are idle, and clients can call without one.
            return self.calls.log.failed(call, error, TRY_AGAIN_SECONDS)
        return tenant

    def _closed(self, stream: _Stream, tenant: TenantState) -> None:
        self._open.discard(stream)
        tenant.streams -= 1

    def end(self) -> None:
        """Ends all streams once their operations are answered, and rejects new ones."""
        self._draining = True
        for stream in self._open:
            stream.end(Draining())


class _Stream:
    """A stream that is open."""

    def __init__(
        self, pipelines: Pipelines, name: str, context: grpc.aio.ServicerContext, task: asyncio.Task[Any]
    ) -> None:
        self._limits: Limits = pipelines.operations.limits
        self._calls = pipelines.calls
        self._authenticator = pipelines.authenticator
        self._load = pipelines.load
        self._options = pipelines.options
        self._name = name
        self._context = context
        self._peer = context.peer()  # unknown once the stream has ended
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._was_used = False
        self._is_served = False
        self._failure: Failure | None = None
        self._changed: asyncio.Future[None] | None = None
        self._taken = StreamOperations(
            pipelines.operations,
            self._calls,
            self._load,
            write=context.write,
            changed=self._results_sent,
            unread=self._results_unread,
        )
        self._deliver = self._taken.take_results
        self._batches = StoreBatches(pipelines.do_batch, self._taken, self._calls, self._peer)

    async def serve(self) -> Failure | None:
        """Serves operations until the client ends the stream, or it has to end; returns why, then."""
        bounds = self._options
        try:
            with suppress(Exception):  # the client is gone: there is nothing to read either
                # At once: it tells the client that no proxy buffers the stream.
                await self._context.send_initial_metadata(())
            while self._failure is None:
                if self._taken.unsent >= bounds.max_operations or self._taken.unsent_bytes >= bounds.max_bytes:
                    await self._change()
                    continue
                raw = await self._read()
                if raw is grpc.aio.EOF:
                    break
                self._was_used = True
                self._load.was_read(len(raw))
                await self._take(raw)
                del raw
            while self._taken.unsent and self._taken.can_be_answered:
                await self._change()
        finally:
            if not self._was_used and self._failure is None:
                self._calls.note_wasted(self._peer)  # even if it was cancelled: gRPC may say that it has ended
            self._is_served = True
            self._taken.drop()
            self._batches.drop()
        return self._failure

    def end(self, error: Exception) -> None:
        """Ends the stream once everything that it accepted is answered."""
        if self._failure is None and not self._is_served:
            self._failure = self._calls.refused(Call(self._name), error)
            if self._reading:
                self._task.cancel()
            self._notify()

    async def _read(self) -> Any:
        self._reading = True
        try:
            return await self._context.read()
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            self._task.uncancel()
            return grpc.aio.EOF
        finally:
            self._reading = False

    async def _change(self) -> None:
        """Waits until results were sent, or the stream has to end."""
        self._changed = self._loop.create_future()
        await self._changed

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _results_sent(self) -> None:
        self._batches.start()
        self._notify()

    def _results_unread(self, timeout: float | None) -> None:
        """Ends a stream whose results can't be sent. None: its client is gone."""
        if timeout is not None:
            # Memory held for a client that doesn't read is needed for others. gRPC keeps what it was given,
            # and keeps sending it, as long as the connection exists.
            self._calls.close_unread(self._peer, self._task)
            self.end(DeadlineExceeded(f"no result of this stream was read for {timeout:g} s"))
        self._notify()

    async def _take(self, raw: bytes) -> None:
        """Accepts a message's operations."""
        size = len(raw)
        try:
            limit = self._limits.max_pipeline_bytes
            if size > limit:
                raise RequestTooLarge(size, limit=limit)
            messages = (await parse(pb.PipelineRequest, raw)).operations
            limit, count = self._limits.max_pipeline_operations, len(messages)
            if count > limit:
                problem = f"has {count} entries, at most {limit} are allowed"
                raise InvalidArgument("operations", problem, limit=limit)
        except CheckpointdError as error:
            # The operations can't be answered: they are unknown, or too many.
            self.end(error)
            return
        identity: Identity | None = None
        tenant: TenantState | None = None
        refusal: Exception | None = None
        refused_threads: Mapping[str, QuotaExceeded] = {}
        self._taken.unsent += count
        admitted = 0
        try:
            # Again for each message: a key may have been revoked, or a token expired.
            identity = await self._authenticator.authenticate(self._context)
            tenant = self._calls.tenants.of(identity.tenant)
            admitted, refusal = self._calls.active.reserve(tenant, count, size)
        except Exception as error:
            refusal, size = error.with_traceback(None), 0
            if isinstance(error, Unauthenticated):
                self.end(error)  # a stream's token stays the same
        writes: list[PendingWrite] = []
        slice_end = self._loop.time() + SLICE_SECONDS
        try:
            if tenant is not None and admitted and tenant.has_all_threads():
                refused_threads = await self._calls.quotas.refuse_new(tenant, _written_threads(messages))
            for message in messages:
                kind = message.WhichOneof("operation")
                request = getattr(message, kind) if kind else None
                if request is None or kind == "store_batch":
                    key = ("", "")
                else:
                    key = (request.thread_id, request.checkpoint_ns)
                operation = StreamOperation(message.id, kind, key)
                if not admitted or identity is None or tenant is None:
                    operation.identity = identity
                    refusal = refusal or Overloaded(limit=self._load.max_calls)
                    operation.failure = self._calls.refused(operation.as_call(), refusal)
                else:
                    operation.tenant = tenant
                    tenant.activity.begun(operation)
                    self._read_operation(operation, message, request, identity, refused_threads)
                    admitted, size = admitted - 1, size - operation.size
                if operation.batch is None:
                    self._taken.place(operation, writes)
                else:
                    self._batches.place(operation)
                if self._loop.time() > slice_end:
                    self._taken.submit(writes)
                    writes = []
                    await asyncio.sleep(0)
                    slice_end = self._loop.time() + SLICE_SECONDS
        finally:
            if tenant is not None and (admitted or size):
                self._calls.active.release(
                    tenant, admitted, size
                )  # the rest of the message, and operations that weren't accepted
        self._taken.submit(writes)

    def _read_operation(
        self,
        operation: StreamOperation,
        message: Any,
        request: Any,
        identity: Identity,
        refused_threads: Mapping[str, QuotaExceeded],
    ) -> None:
        """Decides what to do with an operation, or why it is refused."""
        kind, operation.identity = operation.kind, identity
        timeout = self._calls.time_for(message.timeout_ms / 1000 or None)
        deadline = operation.deadline = None if timeout is None else self._loop.time() + timeout
        operation.started = perf_counter()
        if (tracing := self._calls.tracing) is not None:
            operation.span = tracing.serve(OPERATION_METHODS[kind], message.traceparent, operation.key[0])
        try:
            if kind is None:
                raise InvalidArgument("operation", "is required: set one of its fields")
            check_scope(identity, OPERATIONS[kind])
            if kind == "store_batch":
                operation.batch = request
                operation.size = request.ByteSize()
            elif kind == "get_checkpoint":
                operation.read = read_get_checkpoint(request, identity.tenant, self._limits)
                operation.size = READ_BYTES
            else:
                if refused_threads and (full := refused_threads.get(operation.key[0])):
                    raise full.with_traceback(None)
                write: PutCheckpoint | PutWrites
                if kind == "put_checkpoint":
                    write = read_put_checkpoint(request, identity.tenant, self._limits)
                    self._calls.log.slow_call_log.look_at(write)
                else:
                    write = read_put_writes(request, identity.tenant, self._limits)
                if operation.tenant is not None and operation.tenant.usage is not None:
                    self._calls.tenants.check_storing(operation.tenant, write.size)
                operation.size = write.size
                operation.pending = PendingWrite(write, operation.size, deadline, self._deliver, operation)
                if operation.span is not None:
                    operation.pending.spans = (operation.span,)
        except Exception as error:
            operation.failure = self._calls.refused(operation.as_call(), error)
        self._taken.unsent_bytes += operation.size


def _written_threads(messages: Iterable[Any]) -> Iterator[str]:
    """Yields the threads that operations write to."""
    for message in messages:
        kind = message.WhichOneof("operation")
        if kind in ("put_checkpoint", "put_writes"):
            yield getattr(message, kind).thread_id
