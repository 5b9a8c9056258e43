"""Batches of many callers' operations: those that wait in one event loop share a call.

Operations that arrive while calls are in flight wait for the next call, so batches grow with the load, and a single
operation doesn't wait. If many wait, a call takes half of them, to keep client, server and database busy at the same
time. Writes to one item never share a call: the server would only do the last one, whatever versions they expect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import Context, copy_context
from typing import Any

from langgraph.checkpoint.grpc._store.answers import check_results
from langgraph.checkpoint.grpc._store.operations import written_item
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc.errors import CheckpointdError, again

from checkpointd.v1 import store_service_pb2 as pb

MAX_IN_FLIGHT = 4
"""Maximum number of calls in flight."""
MAX_OPERATIONS = 256
"""Maximum number of operations in a call."""
MIN_SHARED = 16
"""Number of waiting callers above which a call leaves some of them to the next one."""
MAX_BYTES = 2 * 1024 * 1024
"""Maximum size of a call's operations in bytes, unless a single caller's are larger."""


class _Submission:
    """Operations submitted by one caller."""

    __slots__ = ("context", "done", "metadata", "operations", "size", "written")

    def __init__(self, operations: Sequence[pb.StoreOperation], metadata: Any, done: asyncio.Future[Any]) -> None:
        self.operations = operations
        self.metadata = metadata
        self.done = done
        self.context: Context = copy_context()
        self.size = sum(operation.ByteSize() for operation in operations)
        self.written = [key for operation in operations if (key := written_item(operation)) is not None]


class BatchQueue:
    """The operations that wait in one event loop. Used in that loop only.

    Args:
        client: The client that makes the calls.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[_Submission] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    def submit(self, operations: Sequence[pb.StoreOperation]) -> asyncio.Future[Sequence[pb.StoreResult]]:
        """Queues operations for one call, and returns a future of their results; it may raise CheckpointdError."""
        # Callers may have different tokens. Only those with the same token share a call.
        metadata = self._client.options.metadata()
        done: asyncio.Future[Sequence[pb.StoreResult]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Submission(operations, metadata, done))
        self._schedule()
        return done

    def _schedule(self) -> None:
        if not self._is_scheduled and self._waiting and len(self._tasks) < MAX_IN_FLIGHT:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._is_scheduled = False
        while self._waiting and len(self._tasks) < MAX_IN_FLIGHT:
            if group := self._take():
                task = asyncio.get_running_loop().create_task(self._call(group), context=group[0].context)
                self._tasks.add(task)

    def _take(self) -> list[_Submission]:
        """Takes the submissions of the next call, in order."""
        group: list[_Submission] = []
        written: set[tuple[str, ...]] = set()
        operations = size = 0
        most = max(MIN_SHARED, (len(self._waiting) + 1) // 2)
        while self._waiting and len(group) < most:
            first = self._waiting[0]
            if first.done.done():  # its caller was cancelled
                self._waiting.popleft()
                continue
            operations += len(first.operations)
            size += first.size
            if group and (
                operations > MAX_OPERATIONS
                or size > MAX_BYTES
                or first.metadata != group[0].metadata
                or not written.isdisjoint(first.written)
            ):
                break
            written.update(first.written)
            group.append(self._waiting.popleft())
        return group

    async def _call(self, group: list[_Submission]) -> None:
        request = pb.BatchRequest(operations=[one for submission in group for one in submission.operations])
        try:
            results = check_results(await self._client.acall(request), request)
            at = 0
            for submission in group:
                end = at + len(submission.operations)
                if not submission.done.done():
                    submission.done.set_result(results[at:end])
                at = end
        except asyncio.CancelledError:  # the loop ends
            for submission in group:
                submission.done.cancel()
            raise
        except Exception as error:
            for submission in group:
                if not submission.done.done():
                    submission.done.set_exception(again(error) if isinstance(error, CheckpointdError) else error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.discard(task)
            self._schedule()
