"""The pipeline: ordered operations over streams, in a lane for each namespace.

Nothing waits for answers: an operation is sent right after the previous one, on the same stream, and the server
executes those of a namespace in order. Each is settled when its result arrives.

After a failure, the lane keeps the order. A temporary refusal or a broken stream holds the lane: later refusals may be
consequences, so all unanswered operations are sent again, in order. Every write has a request id, so sending it twice
changes nothing. After a final refusal, all operations that build on it fail too.

Everything happens in one event loop. Operations from other threads arrive through an inbox.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextvars import Context
from typing import Any

from langgraph.checkpoint.grpc._transport import stream as streams
from langgraph.checkpoint.grpc._transport.lane import Lane
from langgraph.checkpoint.grpc._transport.operation import (
    PUT,
    Kind,
    Namespace,
    Operation,
    OperationError,
    local_error,
)
from langgraph.checkpoint.grpc._transport.replicas import Picker
from langgraph.checkpoint.grpc._transport.retry import Attempts
from langgraph.checkpoint.grpc._transport.rpc_errors import error_info, from_rpc_error, is_away
from langgraph.checkpoint.grpc._transport.stream import Stream
from langgraph.checkpoint.grpc._transport.stream_pool import (
    HELD_UP_SECONDS,
    STATUS_LOST_SECONDS,
    TROUBLE_SECONDS,
    OpenStream,
    StreamPool,
)
from langgraph.checkpoint.grpc.errors import CheckpointdError, ServerError, again
from langgraph.checkpoint.grpc.options import ClientOptions

import grpc
import grpc.aio
from checkpointd.v1 import checkpoint_service_pb2 as pb

Drive = Callable[[Generator[Any, Any, bytes | None]], Awaitable[bytes | None]]

_WHOLE = frozenset({"BASE_MISSING", "CHAIN_TOO_LONG"})
"""Refusals of a put that whole values avoid."""
_CONSEQUENCES = frozenset({"PREDECESSOR_MISSING", "VERSION_CONFLICT"}) | _WHOLE
"""Refusals that may be consequences of an earlier refusal."""
_OWN_CODES = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
"""Status codes that concern the caller of a stream, and apply to unary calls, too."""


class Pipeline:
    """The operations of one saver in one event loop.

    Args:
        options: The saver's options.
        picker: Picks the servers.
        openers: Opens a stream to each of them.
        calls: Makes the unary call, for each kind of operation.
        drive: Runs a flow, with calls of the same saver.
    """

    hands_over = True
    """True if a call is made also if nobody waits for it."""

    def __init__(
        self,
        options: ClientOptions,
        picker: Picker,
        openers: list[OpenStream],
        calls: dict[Kind, Callable[..., Awaitable[Any]]],
        drive: Drive,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._options = options
        self._picker = picker
        self._calls = calls
        self._drive = drive
        self._inbox: deque[Operation] = deque()
        self._scheduled = False
        self._lanes: dict[Namespace, Lane] = {}
        self._streams = StreamPool(self, options, picker, openers)
        self._tasks: set[asyncio.Task[None]] = set()
        self._announced_at = -TROUBLE_SECONDS
        self._idle: asyncio.Event | None = None
        self._closed = False

    @property
    def is_dead(self) -> bool:
        """True if its event loop has ended, with everything in flight."""
        return self.loop.is_closed()

    # Coming in.

    def accept(self, operation: Operation) -> None:
        """Queues an operation, from any thread. Call `flush` afterwards."""
        self._inbox.append(operation)

    def flush(self) -> None:
        """Sends the queued operations, in the pipeline's own thread.

        Not in the caller's context: streams would keep it alive, and with it a run's config.
        """
        if threading.get_ident() == self._thread:
            Context().run(self._drain)
        elif not self._scheduled:
            self._scheduled = True
            try:
                self.loop.call_soon_threadsafe(self._drain, context=Context())
            except RuntimeError:  # the loop has ended
                self._closed = True
                self._drain()

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        """Calls a function in the pipeline's thread later."""
        if threading.get_ident() == self._thread:
            self.loop.call_later(seconds, work, context=Context())
        else:
            self.loop.call_soon_threadsafe(self.loop.call_later, seconds, work, context=Context())

    def _drain(self) -> None:
        self._scheduled = False
        while self._inbox:
            operation = self._inbox.popleft()
            if self._closed:
                operation.settle(None, closed())
                continue
            lane = self._lanes.get(operation.namespace)
            if lane is None:
                lane = self._lanes[operation.namespace] = Lane(operation.namespace)
            operation.lane = lane
            lane.waiting.append(operation)
            self._advance(lane)

    async def close(self, *, give_up: bool) -> None:
        """Ends all streams, and opens no more.

        Args:
            give_up: Whether to abandon unfinished operations, instead of awaiting them.
        """
        self._drain()
        if not give_up and self._lanes:
            self._idle = asyncio.Event()
            await self._idle.wait()
        self._closed = True
        for lane in list(self._lanes.values()):
            unsettled = [*lane.sent, *lane.waiting]
            # A held lane's timer is still to come, and must find nothing to send.
            lane.sent.clear()
            lane.waiting.clear()
            for operation in unsettled:
                operation.settle(None, closed())
        self._lanes.clear()
        for task in self._tasks:
            task.cancel()
        closing = [stream.close() for stream in self._streams.running()]
        await asyncio.gather(*closing, *self._tasks, return_exceptions=True)

    # Sending.

    def _advance(self, lane: Lane) -> None:
        """Sends what may be sent now."""
        waiting = lane.waiting
        while waiting and not lane.held and not lane.alone:
            operation = waiting[0]
            if operation.abandoned:
                waiting.popleft().settle(None, closed())
                continue
            if operation.chain is not None and operation.chain.failure is not None:
                waiting.popleft().settle(None, again(operation.chain.failure))
                continue
            goes_alone = operation.alone or operation.size > streams.MAX_MESSAGE_BYTES
            if lane.sent:
                stream = lane.stream
                assert stream is not None
                if goes_alone or not stream.is_open or stream.metadata != operation.metadata:
                    return  # not before the stream has answered its operations
                if operation.after_puts and any(sent.kind is PUT for sent in lane.sent):
                    return
            else:
                stream = lane.stream = None if goes_alone else self._streams.find(operation.metadata, lane.tried)
            waiting.popleft()
            lane.sent[operation] = None
            if stream is None:
                self._send_alone(lane, operation)
            else:
                stream.send(operation)
        if not waiting and not lane.sent and self._lanes.get(lane.namespace) is lane:
            del self._lanes[lane.namespace]
            if self._idle is not None and not self._lanes:
                self._idle.set()

    def _send_alone(self, lane: Lane, operation: Operation) -> None:
        lane.alone = True
        operation.sent_at = time.monotonic()
        task = self.loop.create_task(self._call(operation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, operation: Operation) -> None:
        call = self._calls[operation.kind]
        try:
            response = await call(operation.request(), timeout=self._options.timeout, metadata=operation.headers)
        except grpc.RpcError as error:
            self.refused(operation, error)
        except grpc.aio.UsageError:
            self._fail(operation, closed())
        else:
            self._answered(operation, response)

    # Results.

    def take(self, operation: Operation, result: pb.OperationResult) -> None:
        """Receives an operation's result."""
        field = result.WhichOneof("result")
        if field == operation.kind.result:
            self._answered(operation, getattr(result, field))
        elif field == "failure":
            self.refused(operation, OperationError(result.failure))
        else:
            target, method = self._options.target, operation.kind.method
            said = f"checkpointd at {target} answered {method} with something else"
            self._fail(operation, ServerError(said, code="UNKNOWN"))

    def drop(self, operation: Operation) -> None:
        """Takes back an abandoned operation that wasn't sent."""
        self._fail(operation, closed())

    def refused(self, operation: Operation, error: grpc.RpcError) -> None:
        """Receives the failure of an operation, which fails or is sent again."""
        lane = operation.lane
        if lane is None:
            return
        lane.alone = False
        info = error_info(error)
        reason = info.reason
        away = is_away(error)
        if lane.held and (reason in _CONSEQUENCES or away or error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED):
            return  # it is sent again after the operation that caused this
        chain = operation.chain
        if reason in _CONSEQUENCES and chain is not None and chain.failure is not None:
            self._fail(operation, again(chain.failure))
        elif reason == "PREDECESSOR_MISSING" and _expects_less(operation, info.metadata):
            self._hold(lane, 0.0)
        elif reason in _WHOLE and operation.rebuild is not None:
            self._rebuild(lane, operation, error)
        elif reason == "MESSAGE_TOO_LARGE" and not operation.alone and lane.stream is not None:
            operation.alone = True
            self._hold(lane, 0.0)
        elif away and self._try_another(lane, lane.stream):
            self._hold(lane, 0.0)
        else:
            if lane.stream is not None and (away or reason == "OVERLOADED"):
                self._streams.change(lane.stream)
            try:
                pause = self._pause(operation, error)
            except CheckpointdError as final:
                self._fail(operation, final)
            else:
                self._hold(lane, pause)

    def stream_ended(self, stream: Stream, error: grpc.RpcError | None) -> None:
        """Takes back what a stream that has ended hasn't answered."""
        spared = error is None
        if error is not None and not stream.works and not is_away(error) and error.code() not in _OWN_CODES:
            # This server, or a proxy before it, doesn't support streams. A unary call will say more.
            never = error.code() is grpc.StatusCode.UNIMPLEMENTED
            self._streams.do_without(float("inf") if never else self._options.tuning.stream_lifetime)
            spared = True
        elif stream.status_lost and not stream.works:
            # Perhaps it supports none either.
            self._streams.do_without(STATUS_LOST_SECONDS)
            spared = True
        self._take_back(stream, None if spared else error)

    def stream_stalled(self, stream: Stream) -> None:
        """Takes back the unanswered operations of a stream that was silent for longer than an operation may take."""
        self._picker.note(stream.server, healthy=False)
        self._take_back(stream, local_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def stream_held_up(self, stream: Stream) -> None:
        """Takes back the operations of a stream that something between here and the server blocks."""
        self._streams.do_without(HELD_UP_SECONDS)
        self._take_back(stream, None)

    def _answered(self, operation: Operation, response: Any) -> None:
        lane = operation.lane
        if lane is None:
            return
        lane.sent.pop(operation, None)
        if lane.alone:
            lane.alone = False
        if lane.tried or self._picker.servers > 1:
            lane.tried.clear()
            if lane.stream is not None:
                self._picker.note(lane.stream.server, healthy=True)
        operation.settle(response, None)
        if lane.waiting or not lane.sent:
            self._advance(lane)

    def _fail(self, operation: Operation, error: CheckpointdError) -> None:
        """Settles an operation that failed for good, and those that build on it."""
        lane = operation.lane
        if lane is None:
            return
        lane.remove(operation)
        chain = operation.chain
        fails_others = operation.kind is PUT and chain is not None and chain.failure is None
        if chain is not None and fails_others:
            chain.failure = error
        operation.settle(None, error)
        if chain is not None and fails_others:
            chain.failure = operation.error
            for behind in [other for other in (*lane.sent, *lane.waiting) if other.chain is chain]:
                lane.remove(behind)
                behind.settle(None, again(operation.error or error))
        self._advance(lane)

    # Sending again.

    def _hold(self, lane: Lane, pause: float) -> None:
        """Sends all unanswered operations again, after a pause."""
        if not lane.held:
            lane.held = True
            self.loop.call_later(pause, self._resume, lane)

    def _resume(self, lane: Lane) -> None:
        unsettled = list(lane.sent)
        lane.sent.clear()
        lane.held = lane.alone = False
        for operation in unsettled:
            if lane.stream is not None:
                lane.stream.forget(operation)
            if operation.refresh is not None:
                operation.refresh(operation, "")
            if operation.context is not None:
                operation.metadata = operation.context.run(self._options.metadata)
        lane.waiting.extendleft(reversed(unsettled))
        self._advance(lane)

    def _rebuild(self, lane: Lane, operation: Operation, refusal: grpc.RpcError) -> None:
        """Holds a lane until a put was built again with whole values."""
        lane.held = True
        flow = operation.rebuild
        assert flow is not None

        async def rebuild() -> None:
            try:
                body = await self._drive(flow())
                if body is None:
                    raise from_rpc_error(refusal, target=self._options.target, method=operation.kind.method)
                operation.body = body
            except CheckpointdError as error:
                self._fail(operation, error)
            self._resume(lane)

        task = self.loop.create_task(rebuild(), context=operation.context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_back(self, stream: Stream, error: grpc.RpcError | None) -> None:
        """Sends a stream's unanswered operations again. None: at once, whatever the retry budget is."""
        self._streams.forget(stream)
        lanes = dict.fromkeys(operation.lane for operation in stream.unanswered.values())
        stream.unanswered.clear()
        for lane in lanes:
            if lane is None or lane.held or lane.stream is not stream:
                continue
            lane.held = True
            pause = 0.0
            if error is not None and not (is_away(error) and self._try_another(lane, stream)):
                pause = self._pause_all(lane, stream, error)
            self.loop.call_later(pause, self._resume, lane)

    def _pause_all(self, lane: Lane, stream: Stream, error: grpc.RpcError) -> float:
        """Returns how long to wait before a lane's operations are sent again. Those without time left fail."""
        pauses = []
        stalled = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for operation in [*lane.sent, *(() if stalled else lane.waiting)]:
            if operation.is_settled:
                continue
            if stalled:
                if time.monotonic() - operation.sent_at < 0.9 * self._options.timeout:
                    continue
            elif stream.works and not operation.spared and operation in lane.sent:
                # A server, or a proxy, may end any stream at any time: that alone is no failure.
                operation.spared = True
                continue
            try:
                pauses.append(self._pause(operation, error))
            except CheckpointdError as final:
                self._fail(operation, final)
        return min(pauses, default=0.0)

    def _pause(self, operation: Operation, error: grpc.RpcError) -> float:
        """Returns how long to wait before an operation is sent again. Raises CheckpointdError if it isn't."""
        if operation.attempts is None:
            operation.attempts = Attempts(self._options, operation.kind.method, begun=operation.begun)
        operation.attempts.attempt(operation.sent_at)
        now = time.monotonic()
        quiet = now - self._announced_at < TROUBLE_SECONDS
        pause = operation.attempts.pause_after(error, quiet=quiet)
        if not quiet:
            self._announced_at = now
        return pause

    def _try_another(self, lane: Lane, stream: Stream | None) -> bool:
        """Returns whether there is another server to try at once after an unavailable one."""
        if self._picker.servers == 1 or stream is None:
            return False
        self._picker.note(stream.server, healthy=False)
        lane.tried.add(stream.server)
        if len(lane.tried) < self._picker.servers:
            return True
        lane.tried.clear()
        return False


def _expects_less(operation: Operation, metadata: Mapping[str, str]) -> bool:
    """Returns whether an operation that misses its predecessor can expect what has come behind it, and is there."""
    current = metadata.get("current_checkpoint_id", "")
    return operation.refresh is not None and operation.refresh(operation, current)


def closed() -> CheckpointdError:
    """Returns the error for calls that are aborted because the saver was closed."""
    return CheckpointdError("this saver was closed while a call was in flight, or about to start")
