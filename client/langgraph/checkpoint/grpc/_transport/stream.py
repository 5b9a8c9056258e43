"""Long-lived streams that carry operations to a server, and their results back.

A writer drains the outbox, one message at a time. What comes while operations are on their way lingers until a result
comes, as small packets do in TCP (Nagle's algorithm), but no longer than two milliseconds: agents that share a stream
then share messages, and on the server commits and answers. A reader hands out results as they come. An operation is an
entry in a table, and nothing more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

from langgraph.checkpoint.grpc._transport.fork import has_ended, was_ended
from langgraph.checkpoint.grpc._transport.operation import Metadata, Operation, local_error, timeout_field
from langgraph.checkpoint.grpc._transport.tuning import Tuning

import grpc
import grpc.aio
from checkpointd.v1 import checkpoint_service_pb2 as pb

MAX_MESSAGE_BYTES = 1000 * 1024
"""Where a message is closed, in bytes. A larger operation goes alone, in a call of its own."""
LINGER_OPERATIONS = 64
"""Up to how many operations wait for others, while the server has some to answer."""
LINGER_BYTES = 64 * 1024
"""Up to how large they are. A larger one goes at once, with all that waits."""
GRACE = 0.25
"""How much longer than the server an answer is waited for here, in seconds: it knows better why there is none."""
END_SECONDS = 1.0
"""How long to wait at the most until grpc is done with a stream that was ended, in seconds."""


class StreamOwner(Protocol):
    """The owner of a stream, which is told of its events."""

    def take(self, operation: Operation, result: pb.OperationResult) -> None:
        """Takes an operation's result."""

    def refused(self, operation: Operation, error: grpc.RpcError) -> None:
        """Takes the failure of an operation, the only one of its stream."""

    def drop(self, operation: Operation) -> None:
        """Takes back an operation that nobody waits for and that wasn't sent."""

    def stream_ended(self, stream: Stream, error: grpc.RpcError | None) -> None:
        """Takes back what a stream that has ended hasn't answered. None: it has ended for no fault of the server's."""

    def stream_stalled(self, stream: Stream) -> None:
        """Takes back what a stream hasn't answered of which nothing came for longer than an operation may take."""

    def stream_held_up(self, stream: Stream) -> None:
        """Takes back what was sent over a stream that something on the way doesn't let through."""


class Stream:
    """One stream.

    Args:
        owner: Who is told of results.
        call: The call.
        server: The number of the server that it goes to.
        metadata: The metadata that it was opened with.
        timeout: How long an operation may take, in seconds.
        until: Until when to use it, on the monotonic clock.
        tuning: The saver's times and bounds.
    """

    def __init__(
        self,
        owner: StreamOwner,
        call: grpc.aio.StreamStreamCall,
        server: int,
        metadata: Metadata,
        timeout: float,
        until: float,
        tuning: Tuning,
    ) -> None:
        self.server = server
        self.metadata = metadata
        self.until = until
        self.retired = False
        """True if it only answers what it was given."""
        self.ended = False
        self.works = False
        """True if the server has answered on it."""
        self.status_lost = False
        """True if it is not known how the server has ended it."""
        self.unanswered: dict[int, Operation] = {}
        """The operations given to it, by id, in order."""
        self._owner = owner
        self._call = call
        self._tuning = tuning
        self._timeout = timeout
        self._timeout_field = timeout_field(timeout)
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[int] = deque()
        self._last_id = 0
        self._received_at = 0.0
        self._writer: asyncio.Task[None] | None = None
        self._is_due = False
        """True if what is in the outbox is to be sent now."""
        self._linger_timer: asyncio.TimerHandle | None = None
        self._write_failed = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._idle_timer = self._loop.call_later(max(until - time.monotonic(), 0.0), self.retire)
        self._silence_timer: asyncio.TimerHandle | None = None
        self._reader = self._loop.create_task(self._read())

    @property
    def is_open(self) -> bool:
        """True if it takes operations."""
        return not self.retired and not self.ended

    def send(self, operation: Operation) -> None:
        """Sends an operation, behind those before it."""
        self._last_id += 1
        number = operation.id = self._last_id
        operation.sent_at = time.monotonic()
        self.unanswered[number] = operation
        self._outbox.append(number)
        if self._writer is None:
            self._write_in_time(operation.size)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout + GRACE, self._look)
            if not self._received_at:
                self._silence_timer = self._loop.call_later(
                    min(self._timeout / 2, self._tuning.patience), self._is_silent
                )

    def forget(self, operation: Operation) -> None:
        """Drops an operation: its outcome is ignored. If it wasn't sent yet, it won't be."""
        if self.unanswered.get(operation.id) is operation:
            del self.unanswered[operation.id]
            if self.retired and not self.unanswered:
                self._write_soon()

    def retire(self) -> None:
        """Lets the stream end when all is answered."""
        if not self.retired:
            self.retired = True
            self._idle_timer.cancel()
            if not self.unanswered:
                self._write_soon()

    async def close(self) -> None:
        """Ends the stream, and waits until grpc is done with it.

        Not by cancelling the call: grpc takes that for its end, and what it still has to say comes when nobody listens.
        """
        self.unanswered.clear()
        self.retired = True
        self._idle_timer.cancel()
        self._write_soon()
        _, reading = await asyncio.wait({self._reader}, timeout=END_SECONDS)
        if reading:
            self._call.cancel()
        if unfinished := {task for task in (self._reader, self._writer) if task is not None and not task.done()}:
            await asyncio.wait(unfinished, timeout=END_SECONDS)

    # Writing.

    def _write_in_time(self, size: int) -> None:
        """Sends what is in the outbox, now or when it has waited for others, given how large the last operation is."""
        waiting = len(self._outbox)
        in_flight = len(self.unanswered) - waiting
        if in_flight >= self._tuning.max_in_flight:
            return  # a result has it sent
        if in_flight <= 0 or waiting > LINGER_OPERATIONS or size > LINGER_BYTES:
            self._write_soon()
        elif self._linger_timer is None:
            self._linger_timer = self._loop.call_later(self._tuning.linger, self._write_soon)

    def _write_soon(self) -> None:
        self._is_due = True
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        if self._writer is None and not self.ended:
            self._writer = self._loop.create_task(self._write())

    async def _write(self) -> None:
        outbox, unanswered, most = self._outbox, self.unanswered, self._tuning.max_in_flight
        try:
            while self._is_due:
                self._is_due, last = False, self._last_id
                while outbox and outbox[0] <= last and len(unanswered) - len(outbox) < most:
                    if message := self._message():
                        await self._call.write(message)
            if self.retired and not self.unanswered:
                await self._call.done_writing()
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
        except Exception:  # the stream has ended; the reader is told how
            self._write_failed = True
        finally:
            self._writer = None
        if outbox and not self.ended and not self._write_failed:
            self._write_in_time(0)

    def _message(self) -> bytes:
        """Takes what fits into a message out of the outbox."""
        outbox, unanswered = self._outbox, self.unanswered
        parts: list[bytes] = []
        size = operations = 0
        while outbox and operations < self._tuning.max_message_operations:
            operation = unanswered.get(outbox[0])
            if operation is None or operation.abandoned:
                outbox.popleft()
                if operation is not None:
                    del unanswered[operation.id]
                    self._owner.drop(operation)
                continue
            if size and size + operation.size > MAX_MESSAGE_BYTES:
                break
            outbox.popleft()
            operation.write_to(parts, self._timeout_field)
            size += operation.size
            operations += 1
        return b"".join(parts)

    # Reading.

    async def _read(self) -> None:
        error: grpc.RpcError | None
        try:
            await self._call.initial_metadata()
            self._received_at = time.monotonic()
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self._received(response)
            error = local_error(grpc.StatusCode.UNAVAILABLE, "the server has ended the stream")
        except asyncio.CancelledError:
            if _is_cancelled():
                self._end(local_error(grpc.StatusCode.CANCELLED, "the stream was closed"))
                raise
            cancelled = local_error(grpc.StatusCode.UNAVAILABLE, "the stream was cancelled")
            error = None if was_ended(self._call) else cancelled
        except grpc.RpcError as failure:
            error = failure
            if has_ended(self._call) and failure.code() is grpc.StatusCode.CANCELLED:
                error = None
            elif self._write_failed and failure.code() is grpc.StatusCode.INTERNAL:
                # What grpc.aio makes of the end of a call that it is just writing to, whatever the server said.
                self.status_lost = True
                error = local_error(grpc.StatusCode.UNAVAILABLE, "the stream broke")
        except Exception as failure:  # an answer that isn't as it should be: nobody may wait for ever
            error = local_error(grpc.StatusCode.INTERNAL, f"an answer could not be read ({type(failure).__name__})")
            self._call.cancel()
        self._end(error)

    def _received(self, response: pb.PipelineResponse) -> None:
        self.works = True
        self._received_at = time.monotonic()
        for result in response.results:
            operation = self.unanswered.pop(result.id, None)
            if operation is not None:
                self._owner.take(operation, result)
        if self._outbox or (self.retired and not self.unanswered):
            self._write_soon()

    def _end(self, error: grpc.RpcError | None) -> None:
        if self._stop():
            self._owner.stream_ended(self, error)

    def _stop(self) -> bool:
        """Marks the stream ended. Returns whether it wasn't."""
        if self.ended:
            return False
        self.ended = True
        self._outbox.clear()
        for timer in (self._idle_timer, self._watchdog, self._silence_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        return True

    # Looking after what takes too long.

    def _look(self) -> None:
        self._watchdog = None
        while self.unanswered:
            operation = next(iter(self.unanswered.values()))
            left = operation.sent_at + self._timeout + GRACE - time.monotonic()
            if left > 0:
                self._watchdog = self._loop.call_later(left, self._look)
                return
            if self._received_at < operation.sent_at:
                if self._stop():
                    self._call.cancel()
                    self._owner.stream_stalled(self)
                return
            del self.unanswered[operation.id]
            self._owner.refused(operation, local_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _is_silent(self) -> None:
        if not self._received_at and self._stop():
            self._call.cancel()
            self._owner.stream_held_up(self)


def _is_cancelled() -> bool:
    """Returns whether the running task was cancelled, and not only the call that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
