"""Calls that are made at once share a message on an open call, or an RPC where there is none.

A call on its own is sent at once. Calls that come while as many messages are under way as help wait for the next one,
and go together. A message costs both sides more than what it carries, so this is what lets one process serve many
agents. The calls on one namespace stay in the order in which they were made.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from langgraph.checkpoint.grpc.errors import DOMAIN, is_away
from langgraph.checkpoint.grpc.requests import Key
from langgraph.checkpoint.grpc.streams import Answer, Streams

import grpc
import grpc.aio
from checkpointd.v1 import checkpoint_service_pb2 as pb

MAX_UNDER_WAY = 2
"""How many batches are under way at once: while the server works on one, the next is put together."""
SLOW_SECONDS = 0.1
"""After how long a batch no longer counts as under way: one that waits for a lock must not hold up the others."""
ROUNDS_AFTER_ANSWER = 4
"""For how many rounds of the event loop calls that wait are held back after an answer: so long it takes LangGraph to
make the next call, which then goes with them."""
MAX_OPERATIONS = 64
"""How many calls share a message at the most."""
MAX_BATCH_BYTES = 1024 * 1024
"""Where a batch is closed, in bytes. A larger call goes alone."""
MAX_BATCHED_PIECES = 128 * 1024
"""Up to how many bytes of pieces a call may carry in a batch. To unpack more would hold up the others."""

Request = pb.PutCheckpointRequest | pb.PutWritesRequest | pb.GetCheckpointRequest
Metadata = tuple[tuple[str, str], ...]

_METHODS = {
    pb.PutCheckpointRequest: ("PutCheckpoint", "put_checkpoint"),
    pb.PutWritesRequest: ("PutWrites", "put_writes"),
    pb.GetCheckpointRequest: ("GetCheckpoint", "get_checkpoint"),
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


FOR_THE_OTHERS_SAKE = ("MESSAGE_TOO_LARGE", "SLOW_OPERATION")
"""Why a call of a batch may fail that has room, and time, in a call of its own."""


def is_final(failure: pb.OperationFailure) -> bool:
    """Whether a call that failed in a batch would fail alone too, for certain."""
    error = OperationError(failure)
    return (
        failure.reason not in FOR_THE_OTHERS_SAKE
        and not is_away(error)
        and error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
    )


class OperationError(grpc.RpcError):  # type: ignore[misc]
    """A call that failed within a batch; looks like an RPC that failed on its own."""

    def __init__(self, failure: pb.OperationFailure) -> None:
        super().__init__(failure.message)
        self._failure = failure

    def code(self) -> grpc.StatusCode:
        """The status."""
        return _CODES.get(self._failure.code, grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        """What the server says of it."""
        return self._failure.message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The reason and what belongs to it, where an RPC has them."""
        status = Status(code=self._failure.code, message=self._failure.message)
        info = ErrorInfo(domain=DOMAIN, reason=self._failure.reason, metadata=self._failure.metadata)
        status.details.add().Pack(info)
        if self._failure.retry_after_ms:
            hint = RetryInfo()
            hint.retry_delay.FromMilliseconds(self._failure.retry_after_ms)
            status.details.add().Pack(hint)
        return (("grpc-status-details-bin", status.SerializeToString()),)


class Operation(NamedTuple):
    """A call that waits to be sent, or for its answer."""

    key: Key
    request: Request
    size: int
    metadata: Metadata
    answer: asyncio.Future[Any]


Ended = Callable[[list[Operation], Any], None]
"""What becomes of a batch when its RPC is over, which is given too."""


class Batcher:
    """Sends the calls of one event loop.

    Args:
        stub: The service's stub, on a channel of this event loop.
        timeout: How long an RPC may take, in seconds.
    """

    def __init__(self, stub: Any, timeout: float) -> None:
        self.streams = Streams(stub.StreamBatches)
        """The calls that are open."""
        self._stub = stub
        self._timeout = timeout
        self._waiting: deque[Operation] = deque()
        self._busy: set[Key] = set()
        self._sent: set[asyncio.Future[Any]] = set()
        self._under_way: set[asyncio.Future[Any]] = set()
        self._scheduled = False
        self._server_knows_batches = True

    async def call(self, request: Request, metadata: Metadata) -> Any:
        """Makes a call, and awaits its answer. Raises grpc.RpcError."""
        key = Key(request.thread_id, request.checkpoint_ns)
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self._waiting.append(Operation(key, request, _room_for(request), metadata, answer))
        # After the other callbacks of this round: they may have calls to make too.
        self._send_in(1)
        return await answer

    def _send_in(self, rounds: int) -> None:
        """Sends after so many rounds of the event loop, if nothing is about to be sent anyway."""
        if not self._scheduled:
            self._scheduled = True
            self._wait_for_rounds(rounds)

    def _wait_for_rounds(self, rounds: int) -> None:
        if rounds:
            asyncio.get_running_loop().call_soon(self._wait_for_rounds, rounds - 1)
        else:
            self._send()

    def _send(self) -> None:
        """Sends what may be sent now."""
        self._scheduled = False
        while self._waiting and len(self._under_way) < MAX_UNDER_WAY:
            batch = self._take()
            if not batch:
                return
            self._begin(batch)

    def _begin(self, batch: list[Operation]) -> None:
        """Sends a batch over an open call; if there is none, and if it is large, in calls of its own."""
        try:
            # What takes a batch to itself would hold up what comes behind it.
            stream = self.streams.get(batch[0].metadata) if batch[0].size < MAX_BATCH_BYTES else None
        except grpc.aio.UsageError as error:  # the channel is closed
            self._busy.difference_update(operation.key for operation in batch)
            _settle_with(error, batch)
            return
        if stream is None:
            self._carry(batch, self._call(batch))
        else:
            request = pb.StreamBatchesRequest()
            _fill(request.operations, batch)
            self._follow(batch, stream.send(request, self._timeout), self._answered)

    def _carry(self, batch: list[Operation], calls: Coroutine[Any, Any, None]) -> None:
        """Makes a batch's calls, which settle what they are about."""
        self._follow(batch, asyncio.get_running_loop().create_task(calls), self._carried)

    def _follow(self, batch: list[Operation], sent: asyncio.Future[Any], ended: Ended) -> None:
        """Counts a batch as under way until `sent` is done, and calls `ended` then."""
        self._sent.add(sent)
        self._under_way.add(sent)
        timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._give_way, sent)
        sent.add_done_callback(partial(self._ended, batch, timer, ended))
        for operation in batch:
            operation.answer.add_done_callback(partial(_cancel_if_unwanted, sent, batch))

    def _give_way(self, sent: asyncio.Future[Any]) -> None:
        self._under_way.discard(sent)
        self._send()

    def _ended(
        self, batch: list[Operation], timer: asyncio.TimerHandle, ended: Ended, sent: asyncio.Future[Any]
    ) -> None:
        timer.cancel()
        self._sent.discard(sent)
        self._under_way.discard(sent)
        self._busy.difference_update(operation.key for operation in batch)
        try:
            ended(batch, sent)
        except Exception as error:  # an answer that isn't as it should be: nobody may wait for ever
            _settle_with(error, batch)
        if self._waiting:
            # Mostly a step's task writes; and whoever has just got an answer is about to put the next step.
            self._send_in(ROUNDS_AFTER_ANSWER)

    def _carried(self, batch: list[Operation], calls: asyncio.Future[None]) -> None:
        """Hands out how a batch's calls have failed, if they have."""
        if error := _failure(calls):
            _settle_with(error, batch)

    def _answered(self, batch: list[Operation], answer: Answer) -> None:
        """Hands out what came over an open call. What can't go over it goes in calls of its own."""
        if error := _failure(answer):
            if self.streams.must_do_without(error):
                self._again(batch, self._call(batch))
            else:
                _settle_with(error, batch)
            return
        response = answer.result()
        if _tells_of_trouble(response):
            self.streams.leave(batch[0].metadata)
        if not response.HasField("failure"):
            left = _settle_all(batch, response.results)
        elif response.failure.reason in FOR_THE_OTHERS_SAKE:
            left = batch
        else:
            _settle_with(OperationError(response.failure), batch)
            return
        if left:
            self._again(left, self._alone(left))

    def _again(self, batch: list[Operation], calls: Coroutine[Any, Any, None]) -> None:
        self._busy.update(operation.key for operation in batch)
        self._carry(batch, calls)

    def _take(self) -> list[Operation]:
        """Takes the next batch: in order, but for namespaces of which something is under way.

        All of it goes under one token: a saver's may depend on who calls, and with it the tenant.
        """
        batch: list[Operation] = []
        size = 0
        left: deque[Operation] = deque()
        blocked = set(self._busy)
        while self._waiting:
            operation = self._waiting.popleft()
            if operation.answer.done():
                continue
            full = len(batch) >= MAX_OPERATIONS or (batch and size + operation.size > MAX_BATCH_BYTES)
            foreign = bool(batch) and operation.metadata != batch[0].metadata
            if full or foreign or operation.key in blocked:
                # What comes later on this namespace has to come later.
                blocked.add(operation.key)
                left.append(operation)
            else:
                batch.append(operation)
                size += operation.size
        self._waiting = left
        self._busy.update(operation.key for operation in batch)
        return batch

    async def _call(self, batch: list[Operation]) -> None:
        """Makes a batch's calls: in one RPC, if that can be."""
        if len(batch) == 1 or not self._server_knows_batches:
            await self._one_by_one(batch)
        else:
            await self._together(batch)

    async def _alone(self, batch: list[Operation]) -> None:
        """Makes calls in RPCs of their own, side by side: they may be slow."""
        await asyncio.gather(*[self._one_by_one([operation]) for operation in batch])

    async def _one_by_one(self, batch: list[Operation]) -> None:
        for operation in batch:
            if not operation.answer.done():
                method = getattr(self._stub, _METHODS[type(operation.request)][0])
                try:
                    outcome = await method(operation.request, timeout=self._timeout, metadata=operation.metadata)
                except grpc.RpcError as error:
                    outcome = error
                _settle(operation, outcome)

    async def _together(self, batch: list[Operation]) -> None:
        request = pb.BatchRequest()
        _fill(request.operations, batch)
        try:
            response = await self._stub.Batch(request, timeout=self._timeout, metadata=batch[0].metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            self._server_knows_batches = False
            await self._one_by_one(batch)
            return
        await self._alone(_settle_all(batch, response.results))


def _settle_all(batch: list[Operation], results: Iterable[pb.BatchResult]) -> list[Operation]:
    """Hands out the results of a batch. Returns what has no room or time in one, and is to be sent again alone."""
    left = []
    for operation, result in zip(batch, results, strict=True):
        kind = result.WhichOneof("result")
        outcome = getattr(result, kind)
        if kind != "failure":
            _settle(operation, outcome)
        elif outcome.reason in FOR_THE_OTHERS_SAKE:
            left.append(operation)
        else:
            _settle(operation, OperationError(outcome))
    return left


def _tells_of_trouble(response: pb.StreamBatchesResponse) -> bool:
    """Whether another server may do better: this one's database is away, or it has too much to do."""
    answers: list[Any] = [response, *response.results]
    failures = [answer.failure for answer in answers if answer.HasField("failure")]
    failures = [failure for failure in failures if failure.reason not in FOR_THE_OTHERS_SAKE]
    return any(failure.reason == "OVERLOADED" or is_away(OperationError(failure)) for failure in failures)


def _fill(operations: Any, batch: list[Operation]) -> None:
    """Puts the calls of a batch into a request."""
    for operation in batch:
        getattr(operations.add(), _METHODS[type(operation.request)][1]).CopyFrom(operation.request)


def _room_for(request: Request) -> int:
    """Returns how many bytes of a batch a call takes up: all of them, if it is to go alone."""
    size = request.ByteSize()
    if size > MAX_BATCHED_PIECES and not isinstance(request, pb.GetCheckpointRequest):
        pieces = sum([len(piece.data) for piece in request.pieces])
        return MAX_BATCH_BYTES if pieces > MAX_BATCHED_PIECES else size
    return size


def _settle_with(error: BaseException, batch: list[Operation]) -> None:
    """Tells all calls of a batch why they failed."""
    for operation in batch:
        _settle(operation, error)


def _failure(done: asyncio.Future[Any]) -> BaseException | None:
    """Returns why there is no result."""
    return asyncio.CancelledError() if done.cancelled() else done.exception()


def _settle(operation: Operation, outcome: Any) -> None:
    if operation.answer.done():
        return
    if isinstance(outcome, asyncio.CancelledError):
        operation.answer.cancel()
    elif isinstance(outcome, BaseException):
        operation.answer.set_exception(outcome)
    else:
        operation.answer.set_result(outcome)


def _cancel_if_unwanted(sent: asyncio.Future[Any], batch: list[Operation], _: asyncio.Future[Any]) -> None:
    """Cancels what nobody waits for any more, so that the server can stop working on it."""
    if not sent.done() and all(operation.answer.cancelled() for operation in batch):
        sent.cancel()
