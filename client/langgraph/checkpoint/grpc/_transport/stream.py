"""Long-lived streams that carry operations to a server, and their results back.

A writer drains the outbox, one message at a time. While others are in flight, operations linger until a result comes,
as small packets do in TCP (Nagle's algorithm), but at most two milliseconds: agents that share a stream then share
messages, and on the server commits and answers. A reader delivers results as they arrive. An operation is just an entry
in a table.
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
"""Size at which a message is full, in bytes. A larger operation is sent as a unary call."""
LINGER_OPERATIONS = 64
"""Maximum number of operations that linger while others are in flight."""
LINGER_BYTES = 64 * 1024
"""Maximum size of a lingering operation, in bytes. A larger one is sent at once, with all that linger."""
GRACE = 0.25
"""How much longer than the server we wait for an answer, in seconds: the server's error says more."""
END_SECONDS = 1.0
"""Maximum time to wait until gRPC has finished an ended stream, in seconds."""


class StreamOwner(Protocol):
    """The owner of a stream, notified of its events."""

    def take(self, operation: Operation, result: pb.OperationResult) -> None:
        """Receives an operation's result."""

    def refused(self, operation: Operation, error: grpc.RpcError) -> None:
        """Takes the failure of an operation, the only one of its stream."""

    def drop(self, operation: Operation) -> None:
        """Takes back an abandoned operation that wasn't sent."""

    def stream_ended(self, stream: Stream, error: grpc.RpcError | None) -> None:
        """Takes back the unanswered operations of an ended stream. None: it ended without a failure of the server."""

    def stream_stalled(self, stream: Stream) -> None:
        """Takes back the unanswered operations of a stream that was silent for longer than an operation may take."""

    def stream_held_up(self, stream: Stream) -> None:
        """Takes back the operations of a stream that something between here and the server blocks."""


class Stream:
    """One stream.

    Args:
        owner: Receives results.
        call: The call.
        server: The number of its server.
        metadata: Its metadata.
        timeout: How long an operation may take, in seconds.
        until: When to stop using it, on the monotonic clock.
        tuning: The saver's timeouts and limits.
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
        """True if it only finishes its operations."""
        self.ended = False
        self.works = False
        """True if the server has answered on it."""
        self.status_lost = False
        """True if it is unknown how the server has ended it."""
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
        """True if the outbox must be sent now."""
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
        if not operation.kind.lingers:
            self._write_soon()
        elif self._writer is None:
            self._write_in_time(operation.size)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout + GRACE, self._look)
            if not self._received_at:
                self._silence_timer = self._loop.call_later(
                    min(self._timeout / 2, self._tuning.silence_timeout), self._is_silent
                )

    def forget(self, operation: Operation) -> None:
        """Drops an operation: its outcome is ignored. If it wasn't sent yet, it won't be."""
        if self.unanswered.get(operation.id) is operation:
            del self.unanswered[operation.id]
            if self.retired and not self.unanswered:
                self._write_soon()

    def retire(self) -> None:
        """Ends the stream once everything is answered."""
        if not self.retired:
            self.retired = True
            self._idle_timer.cancel()
            if not self.unanswered:
                self._write_soon()

    async def close(self) -> None:
        """Ends the stream, and waits until gRPC has finished it.

        It doesn't cancel the call: gRPC would report the rest when nobody listens any more.
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
        """Sends the outbox, now or after lingering, depending on the size of the last operation."""
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
        """Removes what fits into a message from the outbox."""
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
                # grpc.aio raises this if a call ends during a write, whatever the server said.
                self.status_lost = True
                error = local_error(grpc.StatusCode.UNAVAILABLE, "the stream broke")
        except Exception as failure:  # an invalid answer: nobody may wait forever
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

    # Timeouts.

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
