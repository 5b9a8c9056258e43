"""Batches of many callers' operations: those that wait in one event loop share an operation of the pipeline.

Operations that arrive while batches are in flight wait for the next one, so batches grow with the load, and a single
operation doesn't wait. If many wait, a batch takes half of them, to keep client, server and database busy at the same
time. Searches, which may take long, share no batch. Writes to one item are made in order, one after another: batches
aren't ordered, and of several writes in one batch the server would only do the last, whatever versions they expect.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from weakref import ref

from langgraph.checkpoint.grpc._store.encoding import Encoded, ItemPlace
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc._transport.operation import BATCH, Metadata, Operation
from langgraph.checkpoint.grpc.errors import CheckpointdError, CorruptValueError, again

from checkpointd.v1 import store_service_pb2 as pb

MAX_IN_FLIGHT = 4
"""Maximum number of batches in flight."""
MAX_QUERIES = 48
"""Maximum number of searches, lists and counts in flight. Further ones are separate calls: the server does 64 batches
of a stream at once, and others aren't to wait for queries."""
MAX_OPERATIONS = 256
"""Maximum number of operations in a batch."""
MIN_SHARED = 16
"""Number of waiting callers above which a batch leaves some of them to the next one."""
MAX_BYTES = 900 * 1024
"""Maximum size of a batch in bytes, unless a single caller's operations are larger: it fits into a message."""

Done = asyncio.Future[list[pb.StoreResult]] | concurrent.futures.Future[list[pb.StoreResult]]
Settled = Callable[[Operation], None]
_numbers = itertools.count()


class _Submission:
    """Operations submitted by one caller."""

    __slots__ = ("context", "done", "metadata", "operations")

    def __init__(self, operations: Encoded, metadata: Metadata, context: Context | None, done: Done) -> None:
        self.operations = operations
        self.metadata = metadata
        self.context = context
        """The caller's context, if its token or its span depends on it."""
        self.done = done


class BatchQueue:
    """The operations that wait in one event loop.

    Args:
        client: The client whose pipeline in that loop does them.
        loop: The event loop.
    """

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        # Queues are kept by their loops, which must not be kept alive by them.
        self._loop = ref(loop)
        self._token_differs = callable(client.options.token)
        self._keeps_context = self._token_differs or client.tracing is not None
        self._metadata = () if self._token_differs else client.options.metadata()
        self._waiting: deque[_Submission] = deque()
        self._in_flight = 0
        self._queries = 0
        """The number of queries in flight, each an operation of its own."""
        self._writing: set[ItemPlace] = set()
        """The items that batches in flight write."""
        self._is_scheduled = False

    def submit(self, operations: Encoded) -> asyncio.Future[list[pb.StoreResult]]:
        """Queues operations in their event loop. The future has their results, or raises CheckpointdError."""
        done: asyncio.Future[list[pb.StoreResult]] = asyncio.get_running_loop().create_future()
        self._accept(self._submission(operations, done))
        return done

    def submit_alone(self, query: Encoded) -> asyncio.Future[list[pb.StoreResult]] | None:
        """Sends a query, which shares no batch, as `submit` does. None: there are too many of them."""
        if self._queries >= MAX_QUERIES:
            return None
        done: asyncio.Future[list[pb.StoreResult]] = asyncio.get_running_loop().create_future()
        self._queries += 1
        Context().run(self._send, [self._submission(query, done)], self._query_settled)
        return done

    def submit_elsewhere(self, operations: Encoded) -> concurrent.futures.Future[list[pb.StoreResult]]:
        """Queues operations from another thread than that of the event loop. Otherwise as `submit`."""
        done: concurrent.futures.Future[list[pb.StoreResult]] = concurrent.futures.Future()
        loop = self._loop()
        assert loop is not None
        loop.call_soon_threadsafe(self._accept, self._submission(operations, done))
        return done

    def _submission(self, operations: Encoded, done: Done) -> _Submission:
        # Callers may have different tokens. Only those with the same token share a batch.
        metadata = self._client.options.metadata() if self._token_differs else self._metadata
        return _Submission(operations, metadata, copy_context() if self._keeps_context else None, done)

    def _accept(self, submission: _Submission) -> None:
        self._waiting.append(submission)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and self._waiting and self._in_flight < MAX_IN_FLIGHT:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._send_all, context=Context())

    def _send_all(self) -> None:
        self._is_scheduled = False
        while self._waiting and self._in_flight < MAX_IN_FLIGHT:
            group = self._take()
            if not group:
                return
            self._in_flight += 1
            self._send(group, self._settled)

    def _take(self) -> list[_Submission]:
        """Takes the submissions of the next batch, in order, without those that others must precede."""
        group: list[_Submission] = []
        written: set[ItemPlace] = set()
        held: list[_Submission] = []
        blocked: set[ItemPlace] = set()
        operations = size = 0
        most = max(MIN_SHARED, (len(self._waiting) + 1) // 2)
        while self._waiting and len(group) < most:
            first = self._waiting[0]
            if first.done.done():  # its caller was cancelled
                self._waiting.popleft()
                continue
            wanted = first.operations
            if wanted.written and not (
                written.isdisjoint(wanted.written)
                and self._writing.isdisjoint(wanted.written)
                and blocked.isdisjoint(wanted.written)
            ):
                blocked.update(wanted.written)
                held.append(self._waiting.popleft())
                continue
            operations += len(wanted.kinds)
            size += len(wanted.body)
            if group and (operations > MAX_OPERATIONS or size > MAX_BYTES or first.metadata != group[0].metadata):
                break
            written.update(wanted.written)
            group.append(self._waiting.popleft())
        self._waiting.extendleft(reversed(held))
        self._writing |= written
        return group

    def _send(self, group: list[_Submission], settled: Settled) -> None:
        """Hands a batch to the pipeline, and has a function called with its operation when that is settled."""
        first = group[0]
        body = b"".join([submission.operations.body for submission in group])
        # In a lane of its own: batches wait for nothing.
        operation = Operation(BATCH, ("", str(next(_numbers))), body, settled)
        operation.owner = group
        operation.metadata = first.metadata
        if first.context is not None:
            if self._token_differs:
                operation.context = first.context
            if self._client.tracing is not None:
                operation.trace_by(first.context.run(self._client.tracing.begin, BATCH.method, ""))
        try:
            pipeline = self._client.channels.aio().pipeline
        except CheckpointdError as error:  # the channels were closed
            operation.settle(None, error)
            return
        if pipeline.loop is not asyncio.get_running_loop():  # this loop's connection was closed
            operation.on_settled = partial(self._settled_elsewhere, settled)
        pipeline.accept(operation)
        pipeline.flush()

    def _settled_elsewhere(self, settled: Settled, operation: Operation) -> None:
        loop = self._loop()
        with suppress(RuntimeError):  # the loop has ended, and nobody waits in it
            if loop is not None:
                loop.call_soon_threadsafe(settled, operation)

    def _settled(self, operation: Operation) -> None:
        self._in_flight -= 1
        for submission in operation.owner:
            self._writing.difference_update(submission.operations.written)
        self._schedule()
        self._deliver(operation)

    def _query_settled(self, operation: Operation) -> None:
        self._queries -= 1
        self._deliver(operation)

    def _deliver(self, operation: Operation) -> None:
        """Delivers the results of a batch."""
        group: list[_Submission] = operation.owner
        error = operation.error
        if error is None:
            results = list(operation.response.results)
            if len(results) != sum([len(submission.operations.kinds) for submission in group]):
                error = CorruptValueError("the server answered with results of other operations")
        if error is not None:
            for submission in group:
                if not submission.done.done():
                    submission.done.set_exception(again(error))
            return
        at = 0
        for submission in group:
            end = at + len(submission.operations.kinds)
            if not submission.done.done():
                submission.done.set_result(results[at:end])
            at = end
