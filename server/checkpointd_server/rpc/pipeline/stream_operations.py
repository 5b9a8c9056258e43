"""The operations of a stream: their order, and their results.

A message's writes go to the store as one list, and come back in lists as commits finish. A read waits for the stream's
earlier writes on its namespace, and later operations on that namespace wait for the read. A refused operation waits for
its turn too, and later ones wait for it. Operations on different namespaces don't wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from time import perf_counter

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1.operation_failure_pb2 import OperationFailure
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.checkpoints import PendingWrite
from checkpointd_server.domain.errors import ResultTooLarge
from checkpointd_server.domain.tracing import Span, current_spans
from checkpointd_server.rpc.calls.admission import AdmissionController
from checkpointd_server.rpc.calls.call import Call
from checkpointd_server.rpc.calls.handler import Calls, this_task
from checkpointd_server.rpc.errors import Failure
from checkpointd_server.rpc.operations import GetCheckpoint, Operations, give_up
from checkpointd_server.rpc.pipeline.outbox import Outbox
from checkpointd_server.rpc.tenants import TenantState

READS_AT_ONCE = 4
"""Maximum number of concurrent reads of a stream."""

OPERATION_METHODS = {
    "put_checkpoint": "CheckpointService/PutCheckpoint",
    "put_writes": "CheckpointService/PutWrites",
    "get_checkpoint": "CheckpointService/GetCheckpoint",
    "store_batch": "StoreService/Batch",
    None: "CheckpointService/Pipeline",
}

NamespaceKey = tuple[str, str]
"""Thread and namespace, as in the request. Both empty for batches."""


class StreamOperation:
    """An accepted operation, until its result is in the outbox."""

    __slots__ = (
        "batch", "deadline", "failure", "id", "identity", "key", "kind", "pending", "read", "size", "span",
        "started", "tenant",
    )  # fmt: skip

    def __init__(self, number: int, kind: str | None, key: NamespaceKey) -> None:
        self.id = number
        self.kind = kind
        self.key = key
        self.identity: Identity | None = None
        self.tenant: TenantState | None = None
        """The tenant, if it counts as in flight."""
        self.size = 0
        """The bytes that are held for it."""
        self.deadline: float | None = None
        self.started = 0.0
        self.span: Span | None = None
        # One of these four is set.
        self.pending: PendingWrite | None = None
        self.read: GetCheckpoint | None = None
        self.batch: store_pb.BatchRequest | None = None
        self.failure: Failure | None = None

    @property
    def method(self) -> str:
        """The call that it stands for."""
        return OPERATION_METHODS[self.kind]

    @property
    def thread_id(self) -> str:
        """Its thread."""
        return self.key[0]

    def as_call(self) -> Call:
        """Returns it as a call, for the log."""
        call = Call(OPERATION_METHODS[self.kind], "pipeline")
        call.identity, call.span = self.identity, self.span
        call.request = _Named(self.key) if self.batch is None else self.batch
        call.started = self.started or call.started
        return call


class _Named:
    """A request with a thread_id."""

    __slots__ = ("thread_id",)

    def __init__(self, key: NamespaceKey) -> None:
        self.thread_id = key[0]


class _Namespace:
    """The unfinished operations of a stream on one namespace."""

    __slots__ = ("reading", "waiting", "writes")

    def __init__(self) -> None:
        self.writes: deque[StreamOperation] = deque()
        """The writes that the store has, in order."""
        self.reading = False
        """True if a read is in progress."""
        self.waiting: deque[StreamOperation] = deque()
        """The operations that wait for these, in order."""


class StreamOperations:
    """Executes the operations of a stream.

    Args:
        operations: Executes those on checkpoints.
        calls: Counts and logs them.
        load: Counts the bytes of results.
        write: Sends a message.
        changed: Called when results were sent.
        unread: Called once if no more can be sent: with the seconds waited, or None if the client is gone.
    """

    def __init__(
        self,
        operations: Operations,
        calls: Calls,
        load: AdmissionController,
        *,
        write: Callable[[bytes], Awaitable[None]],
        changed: Callable[[], None],
        unread: Callable[[float | None], None],
    ) -> None:
        self._operations = operations
        self._calls = calls
        self._load = load
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        metrics = calls.log.metrics
        self._metrics = {kind: metrics.of(name, "pipeline") for kind, name in OPERATION_METHODS.items() if kind}
        self._namespaces: dict[NamespaceKey, _Namespace] = {}
        self._writes: set[PendingWrite] = set()
        self._reads: set[asyncio.Task[None]] = set()
        self._ready_reads: deque[StreamOperation] = deque()
        self._outbox: Outbox | None = Outbox(write, calls.time_for(None), self._results_sent, unread)
        self.unsent = 0
        """The number of accepted operations without a sent result."""
        self.unsent_bytes = 0
        """The size of these, in bytes."""

    @property
    def can_be_answered(self) -> bool:
        """True if results can be sent."""
        return self._outbox is not None and not self._outbox.is_broken

    def place(self, operation: StreamOperation, writes: list[PendingWrite]) -> None:
        """Starts an operation as soon as earlier ones on its namespace allow it."""
        namespace = self._namespaces.get(operation.key)
        if namespace is None:
            namespace = self._namespaces[operation.key] = _Namespace()
        namespace.waiting.append(operation)
        if len(namespace.waiting) == 1:
            self._advance(operation.key, namespace, writes)

    def _advance(self, key: NamespaceKey, namespace: _Namespace, writes: list[PendingWrite]) -> None:
        """Starts the operations whose turn has come, and appends writes to the list."""
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
                self.answer((operation,), response.SerializeToString())
            else:
                namespace.reading = True
                self._ready_reads.append(operation)
                self._start_reads()
            waiting.popleft()
        if not (waiting or namespace.writes or namespace.reading):
            del self._namespaces[key]

    def submit(self, writes: list[PendingWrite]) -> None:
        """Submits writes to the store."""
        if writes:
            self._writes.update(writes)
            self._operations.store.submit(writes)

    def take_results(self, done: list[PendingWrite]) -> None:
        """Receives finished writes. One that timed out may finish before earlier ones."""
        self._writes.difference_update(done)
        response = pb.PipelineResponse()
        add, answered, stored = response.results.add, [], 0
        namespaces = {pending.tag.key: self._namespaces[pending.tag.key] for pending in done}
        for namespace in namespaces.values():
            while namespace.writes:
                operation = namespace.writes[0]
                assert operation.pending is not None
                result = operation.pending.result
                if result is None or operation.pending in self._writes:
                    break
                if self._outbox is None:
                    self._calls.log.cancelled(operation.as_call())
                elif isinstance(result, Exception):
                    response.results.append(failed(operation.id, self._calls.refused(operation.as_call(), result)))
                else:
                    if operation.kind == "put_checkpoint":
                        add(id=operation.id).put_checkpoint.version = result
                    else:
                        add(id=operation.id, put_writes=pb.PutWritesResponse(version=result))
                    self._finished(operation, 0)
                    stored += 1
                answered.append(namespace.writes.popleft())
        if stored:
            self._load.finished(stored)
        if answered:
            self.answer(answered, response.SerializeToString())
        writes: list[PendingWrite] = []
        for key, namespace in namespaces.items():
            if not namespace.writes:
                self._advance(key, namespace, writes)
        self.submit(writes)

    def _start_reads(self) -> None:
        while self._ready_reads and len(self._reads) < READS_AT_ONCE and self.has_room:
            operation = self._ready_reads.popleft()
            task = self._loop.create_task(self._get(operation))
            self._reads.add(task)
            task.add_done_callback(partial(self._read_ended, operation))

    def _read_ended(self, operation: StreamOperation, task: asyncio.Task[None]) -> None:
        self._reads.discard(task)
        if task.cancelled():
            self._calls.log.cancelled(operation.as_call())
            self.free((operation,))
        elif (error := task.exception()) is not None:
            raise error

    async def _get(self, operation: StreamOperation) -> None:
        """Executes a read."""
        response = pb.PipelineResponse()
        result = response.results.add(id=operation.id)
        when_sent: list[Callable[[object], None]] = []
        assert operation.read is not None
        try:
            timeout = self.begin(operation)
            result.get_checkpoint.SetInParent()
            await self._operations.get_checkpoint(operation.read, result.get_checkpoint, timeout)
            encoded = self.encode(operation, response, when_sent, refuse=True)
        except Exception as error:
            failure = failed(operation.id, self._calls.refused(operation.as_call(), error))
            encoded = pb.PipelineResponse(results=[failure]).SerializeToString()
        del response, result
        self._reads.discard(this_task())
        self.answer((operation,), encoded, when_sent)
        namespace, writes = self._namespaces[operation.key], list[PendingWrite]()
        namespace.reading = False
        self._advance(operation.key, namespace, writes)
        self.submit(writes)
        self._start_reads()

    def begin(self, operation: StreamOperation) -> float | None:
        """Begins an operation's work in its task, and returns how long it may take, in seconds."""
        if operation.span is not None:
            current_spans.set((operation.span,))
        return None if operation.deadline is None else max(operation.deadline - self._loop.time(), 0)

    def encode(
        self,
        operation: StreamOperation,
        response: pb.PipelineResponse,
        when_sent: list[Callable[[object], None]],
        *,
        refuse: bool,
    ) -> bytes:
        """Encodes the answer of an operation that has succeeded.

        Args:
            operation: The operation.
            response: Its answer.
            when_sent: Gets what to call when the answer was sent, or was dropped.
            refuse: Whether to refuse answers for which there is no memory: not if they tell of changes.

        Raises:
            ResultTooLarge: The answer exceeds the maximum message size.
            Overloaded: There is no memory for it.
        """
        encoded = response.SerializeToString()
        if len(encoded) > self._operations.limits.max_message_bytes:
            raise ResultTooLarge(len(encoded), limit=self._operations.limits.max_message_bytes)
        tenants = self._calls.tenants
        assert operation.identity is not None
        state = tenants.of(operation.identity.tenant)
        tenants.take_answer(state, self._load, len(encoded), when_sent.append, refuse=refuse)
        self._finished(operation, len(encoded))
        self._load.finished()
        return encoded

    def _finished(self, operation: StreamOperation, response_bytes: int) -> None:
        assert operation.kind is not None
        seconds = perf_counter() - operation.started
        self._metrics[operation.kind].succeeded(seconds, operation.size, response_bytes)
        if operation.tenant is not None:
            operation.tenant.activity.note(operation, seconds)
        if operation.span is not None:
            operation.span.end()
        if seconds >= self._calls.log.slow_call_log.slow_seconds:
            self._calls.log.slow_call_log.slow(operation.as_call().fields(), operation.size, response_bytes)
        if self._calls.log.logs_calls:
            self._calls.log.succeeded(operation.as_call())

    def answer(
        self, operations: Iterable[StreamOperation], encoded: bytes, when_sent: Sequence[Callable[[object], None]] = ()
    ) -> None:
        """Puts the results of operations in the outbox."""
        count, size = self.free(operations)
        if self._outbox is None:
            for note in when_sent:
                note(None)
        else:
            self._outbox.put(encoded, count, size, when_sent)

    def free(self, operations: Iterable[StreamOperation]) -> tuple[int, int]:
        """Counts operations as no longer in flight, and returns their number and size in bytes."""
        count = total = reserved = size = 0
        tenant: TenantState | None = None  # all the same, unless a key was given to another tenant
        for operation in operations:
            count += 1
            total += operation.size
            operation.pending = None  # breaks reference cycles, which would wait for the garbage collector
            if operation.tenant is None:
                continue
            if tenant is not operation.tenant:
                if tenant is not None:
                    self._calls.active.release(tenant, reserved, size)
                tenant, reserved, size = operation.tenant, 0, 0
            reserved += 1
            size += operation.size
            tenant.activity.ended(operation)
        if tenant is not None:
            self._calls.active.release(tenant, reserved, size)
        return count, total

    @property
    def has_room(self) -> bool:
        """True if more reads may be started."""
        return self._outbox is not None and self._outbox.has_room

    def _results_sent(self, count: int, size: int) -> None:
        self.unsent -= count
        self.unsent_bytes -= size
        self._start_reads()
        self._changed()

    def drop(self) -> None:
        """Drops unfinished operations. Writes that the store has are finished there."""
        give_up(list(self._writes), self._loop.time())
        for task in self._reads:
            task.cancel()
        dropped = [operation for namespace in self._namespaces.values() for operation in namespace.waiting]
        self.free(dropped)
        self.free(self._ready_reads)
        for namespace in self._namespaces.values():
            namespace.waiting.clear()
        self._ready_reads.clear()
        if self._outbox is not None:
            self._outbox.close()
        # Breaks reference cycles with this object, which would wait for the garbage collector.
        self._outbox, self._changed = None, _tell_nobody


def _tell_nobody() -> None:
    """Does nothing."""


def failed(number: int, failure: Failure) -> pb.OperationResult:
    """Returns the result of an operation that failed."""
    told = OperationFailure(
        code=failure.code.value[0],
        message=failure.message,
        reason=failure.reason,
        metadata=failure.metadata,
        retry_after_ms=failure.retry_after_ms,
    )
    return pb.OperationResult(id=number, failure=told)
