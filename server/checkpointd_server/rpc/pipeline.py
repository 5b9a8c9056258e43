"""The multiplexed stream: operations come in, results go out, those of a namespace in their order.

A message's writes go to the store as one list, and come back as lists, as commits end. A read waits for the stream's
own earlier writes on its namespace, and what comes after it on that namespace waits for the read. So does what comes
after a refusal, whose turn comes like that of any other. Operations on different namespaces don't wait for each other.

Nothing piles up: beyond so many operations, or bytes, whose results haven't been written the stream reads no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
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
    ResultTooLarge,
)
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.auth import Gate
from checkpointd_server.rpc.calls import Call, Calls, this_task
from checkpointd_server.rpc.conversion.checkpoints import read_put_checkpoint, read_put_writes
from checkpointd_server.rpc.conversion.wire import parse
from checkpointd_server.rpc.errors import Draining, Failure, RequestTooLarge
from checkpointd_server.rpc.identity import OPERATIONS, Unauthenticated, check_scope
from checkpointd_server.rpc.load import Load
from checkpointd_server.rpc.operations import GetCheckpoint, Operations, give_up, read_get_checkpoint
from checkpointd_server.rpc.outbox import Outbox

MAX_STREAMS = 1024
"""How many streams there are at once. Most of them are idle at any moment."""
MAX_OPERATIONS = 1024
"""How many operations of a stream may be without a result that was sent. More are not read."""
MAX_BYTES = 8 * 1024 * 1024
"""How many bytes these may have."""
READS_AT_ONCE = 4
"""How many reads of a stream are done at once."""
TRY_AGAIN_SECONDS = 30.0
"""When to try again to open a stream, where as many are open as may be."""
READ_BYTES = 200
"""What a read counts for."""
SLICE_SECONDS = 0.02
"""How long operations are taken in before others get their turn."""

_NAMES = {
    "put_checkpoint": "CheckpointService/PutCheckpoint",
    "put_writes": "CheckpointService/PutWrites",
    "get_checkpoint": "CheckpointService/GetCheckpoint",
    None: "CheckpointService/Pipeline",
}

_Key = tuple[str, str]
"""A namespace as its stream names it: thread and namespace, as they came."""


class Pipelines:
    """Serves streams, and knows those that are open.

    Args:
        operations: What does the operations.
        calls: What they are counted and logged by.
        gate: Tells who calls.
        load: What is held of requests and answers.
    """

    def __init__(self, operations: Operations, calls: Calls, gate: Gate, load: Load) -> None:
        self.operations = operations
        self.calls = calls
        self.gate = gate
        self.load = load
        self._open: set[_Stream] = set()
        self._draining = False

    def handler(self, name: str) -> grpc.RpcMethodHandler:
        """Returns the handler of the method.

        Args:
            name: The method as the log has it.
        """

        async def serve(requests: object, context: grpc.aio.ServicerContext) -> None:
            task = this_task()
            self.calls.follow(task)
            failure = await self._refuse(name, context)
            if failure is None:
                stream = _Stream(self, name, context, task)
                self._open.add(stream)
                # Not when it has been served: of a client that doesn't read, gRPC goes on to hold a message.
                task.add_done_callback(lambda _: self._open.discard(stream))
                failure = await stream.serve()
            if failure is not None:
                await context.abort(failure.code, failure.message, failure.trailers)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _refuse(self, name: str, context: grpc.aio.ServicerContext) -> Failure | None:
        """Returns why a stream can't be opened, if so."""
        call = Call(name)
        try:
            call.identity = await self.gate.identify(context)
            if self._draining:
                raise Draining()
        except Exception as error:
            return self.calls.refused(call, error)
        if len(self._open) >= MAX_STREAMS:
            # That is no load: most of them are idle, and whoever gets none calls without.
            return self.calls.turned_away(call, Overloaded("streams", limit=MAX_STREAMS), TRY_AGAIN_SECONDS)
        return None

    def end(self) -> None:
        """Ends all streams when they have answered what they took, and refuses new ones."""
        self._draining = True
        for stream in self._open:
            stream.end(Draining())


class _Operation:
    """An operation that was taken, until its result is in the outbox."""

    __slots__ = (
        "deadline", "failure", "id", "identity", "is_reserved", "key", "kind", "pending", "read", "size", "started"
    )  # fmt: skip

    def __init__(self, number: int, kind: str | None, key: _Key) -> None:
        self.id = number
        self.kind = kind
        self.key = key
        self.identity: Identity | None = None
        self.is_reserved = False
        """Whether it counts as at work."""
        self.size = 0
        """The bytes that are held for it."""
        self.deadline: float | None = None
        self.started = 0.0
        # One of these three is set.
        self.pending: PendingWrite | None = None
        self.read: GetCheckpoint | None = None
        self.failure: Failure | None = None

    def as_call(self) -> Call:
        """Returns it as the call that it stands for, for the log."""
        call = Call(_NAMES[self.kind])
        call.identity, call.request = self.identity, _Named(self.key)
        call.started = self.started or call.started
        return call


class _Named:
    """Has a thread_id, as requests have."""

    __slots__ = ("thread_id",)

    def __init__(self, key: _Key) -> None:
        self.thread_id = key[0]


class _Namespace:
    """The operations of a stream on one namespace that have no result yet."""

    __slots__ = ("reading", "waiting", "writes")

    def __init__(self) -> None:
        self.writes: deque[_Operation] = deque()
        """Those that the store has, in order."""
        self.reading = False
        """Whether one is being read."""
        self.waiting: deque[_Operation] = deque()
        """Those that wait for them, in order."""


class _Stream:
    """A stream that is open."""

    def __init__(
        self, pipelines: Pipelines, name: str, context: grpc.aio.ServicerContext, task: asyncio.Task[Any]
    ) -> None:
        self._operations = pipelines.operations
        self._limits: Limits = pipelines.operations.limits
        self._calls = pipelines.calls
        self._gate = pipelines.gate
        self._load = pipelines.load
        self._name = name
        self._context = context
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._is_served = False
        self._failure: Failure | None = None
        self._namespaces: dict[_Key, _Namespace] = {}
        self._writes: set[PendingWrite] = set()
        self._reads: set[asyncio.Task[None]] = set()
        self._ready_reads: deque[_Operation] = deque()
        self._unsent = 0
        self._unsent_bytes = 0
        self._changed: asyncio.Future[None] | None = None
        self._outbox = Outbox(context.write, self._calls.time_for(None), self._results_sent, self._results_unread)

    async def serve(self) -> Failure | None:
        """Serves operations until the client has no more, or the stream has to end: returns why, then."""
        with suppress(Exception):  # the client has gone: then there is nothing to read either
            # At once, so that the client knows that nothing on the way holds the stream back.
            await self._context.send_initial_metadata(())
        try:
            while self._failure is None:
                if self._unsent >= MAX_OPERATIONS or self._unsent_bytes >= MAX_BYTES:
                    await self._change()
                    continue
                raw = await self._read()
                if raw is grpc.aio.EOF:
                    break
                self._load.was_read(len(raw))
                await self._take(raw)
                del raw
            while self._unsent and not self._outbox.is_broken:
                await self._change()
        finally:
            self._is_served = True
            self._drop()
        return self._failure

    def end(self, error: Exception) -> None:
        """Has the stream end, as soon as all that it took is answered."""
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

    # What comes in.

    async def _take(self, raw: bytes) -> None:
        """Takes a message's operations."""
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
            # There is nobody to answer: which operations it holds can't be known, or they are too many.
            self.end(error)
            return
        identity: Identity | None = None
        refusal: Exception | None = None
        try:
            # Anew for each message: a key may have been withdrawn, and a token have run out.
            identity = await self._gate.identify(self._context)
            self._calls.reserve(count, size)
        except Exception as error:
            refusal = error.with_traceback(None)
            if isinstance(error, Unauthenticated):
                self.end(error)  # a stream's token stays the same
        self._unsent += count
        writes: list[PendingWrite] = []
        slice_end = self._loop.time() + SLICE_SECONDS
        try:
            for message in messages:
                kind = message.WhichOneof("operation")
                request = getattr(message, kind) if kind else None
                key = (request.thread_id, request.checkpoint_ns) if request is not None else ("", "")
                operation = _Operation(message.id, kind, key)
                if refusal is not None or identity is None:
                    operation.identity = identity
                    operation.failure = self._calls.refused(operation.as_call(), refusal or Draining())
                else:
                    self._read_operation(operation, message, request, identity)
                    count, size = count - 1, size - operation.size
                self._place(operation, writes)
                if self._loop.time() > slice_end:
                    self._submit(writes)
                    writes = []
                    await asyncio.sleep(0)
                    slice_end = self._loop.time() + SLICE_SECONDS
        finally:
            if refusal is None:
                self._calls.release(count, size)  # what is around the operations, and those that weren't taken
        self._submit(writes)

    def _read_operation(self, operation: _Operation, message: Any, request: Any, identity: Identity) -> None:
        """Finds out what an operation wants, including that it is to be refused."""
        kind, operation.identity, operation.is_reserved = operation.kind, identity, True
        timeout = self._calls.time_for(message.timeout_ms / 1000 or None)
        deadline = operation.deadline = None if timeout is None else self._loop.time() + timeout
        operation.started = perf_counter()
        try:
            if kind is None:
                raise InvalidArgument("operation", "is required: set put_checkpoint, put_writes or get_checkpoint")
            check_scope(identity, OPERATIONS[kind])
            if kind == "get_checkpoint":
                operation.read = read_get_checkpoint(request, identity.tenant, self._limits)
                operation.size = READ_BYTES
            else:
                write: PutCheckpoint | PutWrites
                if kind == "put_checkpoint":
                    write = read_put_checkpoint(request, identity.tenant, self._limits)
                else:
                    write = read_put_writes(request, identity.tenant, self._limits)
                operation.size = write.size
                operation.pending = PendingWrite(write, operation.size, deadline, self._take_results, operation)
        except Exception as error:
            operation.failure = self._calls.refused(operation.as_call(), error)
        self._unsent_bytes += operation.size

    # Whose turn it is.

    def _place(self, operation: _Operation, writes: list[PendingWrite]) -> None:
        """Has an operation done as soon as those before it on its namespace allow it."""
        namespace = self._namespaces.get(operation.key)
        if namespace is None:
            namespace = self._namespaces[operation.key] = _Namespace()
        namespace.waiting.append(operation)
        if len(namespace.waiting) == 1:
            self._advance(operation.key, namespace, writes)

    def _advance(self, key: _Key, namespace: _Namespace, writes: list[PendingWrite]) -> None:
        """Has those operations done whose turn has come; adds those that are writes to the list."""
        waiting = namespace.waiting
        while waiting and not namespace.reading:
            operation = waiting[0]
            if operation.pending is not None:
                namespace.writes.append(operation)
                writes.append(operation.pending)
            elif namespace.writes:
                return
            elif operation.failure is not None:
                response = pb.PipelineResponse(results=[failed(operation.id, operation.failure)])
                self._answer((operation,), response.SerializeToString())
            else:
                namespace.reading = True
                self._ready_reads.append(operation)
                self._start_reads()
            waiting.popleft()
        if not (waiting or namespace.writes or namespace.reading):
            del self._namespaces[key]

    def _submit(self, writes: list[PendingWrite]) -> None:
        if writes:
            self._writes.update(writes)
            self._operations.store.submit(writes)

    def _take_results(self, done: list[PendingWrite]) -> None:
        """Takes writes that have a result. One whose time ran out may be done before those ahead of it."""
        self._writes.difference_update(done)
        response = pb.PipelineResponse()
        add, answered = response.results.add, []
        namespaces = {pending.tag.key: self._namespaces[pending.tag.key] for pending in done}
        for namespace in namespaces.values():
            while namespace.writes:
                operation = namespace.writes[0]
                assert operation.pending is not None
                result = operation.pending.result
                if result is None or operation.pending in self._writes:
                    break
                if isinstance(result, Exception):
                    response.results.append(failed(operation.id, self._calls.refused(operation.as_call(), result)))
                else:
                    if operation.kind == "put_checkpoint":
                        add(id=operation.id).put_checkpoint.version = result
                    else:
                        add(id=operation.id, put_writes=pb.PutWritesResponse(version=result))
                    self._finished(operation)
                answered.append(namespace.writes.popleft())
        self._answer(answered, response.SerializeToString())
        writes: list[PendingWrite] = []
        for key, namespace in namespaces.items():
            if not namespace.writes:
                self._advance(key, namespace, writes)
        self._submit(writes)

    def _start_reads(self) -> None:
        while self._ready_reads and len(self._reads) < READS_AT_ONCE and self._outbox.has_room:
            operation = self._ready_reads.popleft()
            task = self._loop.create_task(self._get(operation))
            self._reads.add(task)
            task.add_done_callback(partial(self._read_ended, operation))

    def _read_ended(self, operation: _Operation, task: asyncio.Task[None]) -> None:
        self._reads.discard(task)
        if task.cancelled():
            self._calls.cancelled(operation.as_call())
            self._free((operation,))
        elif (error := task.exception()) is not None:
            raise error

    async def _get(self, operation: _Operation) -> None:
        """Does a read."""
        response = pb.PipelineResponse()
        result = response.results.add(id=operation.id)
        when_sent: list[Callable[[object], None]] = []
        assert operation.read is not None
        try:
            timeout = None if operation.deadline is None else max(operation.deadline - self._loop.time(), 0)
            result.get_checkpoint.SetInParent()
            await self._operations.get_checkpoint(operation.read, result.get_checkpoint, timeout)
            encoded = response.SerializeToString()
            if len(encoded) > self._limits.max_message_bytes:
                raise ResultTooLarge(len(encoded), limit=self._limits.max_message_bytes)
            self._load.take_answer(len(encoded), when_sent.append, refuse=True)
            self._finished(operation)
        except Exception as error:
            failure = failed(operation.id, self._calls.refused(operation.as_call(), error))
            encoded = pb.PipelineResponse(results=[failure]).SerializeToString()
        del response, result
        self._reads.discard(this_task())
        self._answer((operation,), encoded, when_sent)
        namespace, writes = self._namespaces[operation.key], list[PendingWrite]()
        namespace.reading = False
        self._advance(operation.key, namespace, writes)
        self._submit(writes)
        self._start_reads()

    def _finished(self, operation: _Operation) -> None:
        if self._calls.logs_calls:
            self._calls.finished(operation.as_call())
        else:
            self._load.finished()

    # What goes out.

    def _answer(
        self, operations: Iterable[_Operation], encoded: bytes, when_sent: Sequence[Callable[[object], None]] = ()
    ) -> None:
        """Puts the results of operations into the outbox."""
        count, size = self._free(operations)
        if self._is_served:
            for note in when_sent:
                note(None)
        else:
            self._outbox.put(encoded, count, size, when_sent)

    def _free(self, operations: Iterable[_Operation]) -> tuple[int, int]:
        """Counts operations as no longer at work, and returns how many they are, and how many bytes they had."""
        count = size = reserved = 0
        for operation in operations:
            count += 1
            size += operation.size
            reserved += operation.is_reserved
            operation.pending = None  # they name each other, and would be the collector's
        self._calls.release(reserved, size)
        return count, size

    def _results_sent(self, count: int, size: int) -> None:
        self._unsent -= count
        self._unsent_bytes -= size
        self._start_reads()
        self._notify()

    def _results_unread(self, patience: float | None) -> None:
        """Ends a stream whose results can't be sent. None: its client has gone."""
        if patience is not None:
            # What is held for a client that doesn't read is needed for others.
            self.end(DeadlineExceeded(f"no result of this stream was read for {patience:g} s"))
        self._notify()

    def _drop(self) -> None:
        """Lets go of what has no result yet. What the store has of it, it has until it is done."""
        give_up(list(self._writes), self._loop.time())
        for task in self._reads:
            task.cancel()
        dropped = [operation for namespace in self._namespaces.values() for operation in namespace.waiting]
        self._free(dropped)
        self._free(self._ready_reads)
        for namespace in self._namespaces.values():
            namespace.waiting.clear()
        self._ready_reads.clear()
        self._outbox.close()
        del self._outbox  # it names this stream, and both would be the collector's


def failed(number: int, failure: Failure) -> pb.OperationResult:
    """Returns the result of an operation that failed."""
    told = pb.OperationFailure(
        code=failure.code.value[0],
        message=failure.message,
        reason=failure.reason,
        metadata=failure.metadata,
        retry_after_ms=failure.retry_after_ms,
    )
    return pb.OperationResult(id=number, failure=told)
