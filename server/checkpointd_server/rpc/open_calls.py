"""Calls that stay open: each of their messages is served like a call of its own, side by side with the others.

A message is refused in an answer of its own, and the call goes on. Only one that can't be read, so that nobody knows
what to answer, ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.errors import CheckpointdError, DeadlineExceeded, Overloaded
from checkpointd_server.rpc.auth import Gate
from checkpointd_server.rpc.batches import write_failure
from checkpointd_server.rpc.calls import Call, Calls, Method, parse, this_task
from checkpointd_server.rpc.errors import Draining, Failure, RequestTooLarge
from checkpointd_server.rpc.identity import Unauthenticated
from checkpointd_server.rpc.load import Load

_logger = logging.getLogger(__name__)

MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message on an open call."""
MESSAGES_AT_WORK = 16
"""How many messages of one call are at work at once. More are not read until one of them is answered."""
OPEN_CALLS = 1024
"""How many calls are open at once. Most of them are idle at any moment."""
LEAST_SECONDS_TO_READ = 5.0
"""For how long an answer may wait for its client to read, however little time the message had."""
TRY_AGAIN_SECONDS = 30.0
"""When to try again to open a call, where as many are open as may be."""


class OpenCalls:
    """Serves calls that stay open, and knows those that are.

    Args:
        calls: What every message is counted and told by.
        gate: Tells who calls.
        load: What is held of answers.
    """

    def __init__(self, calls: Calls, gate: Gate, load: Load) -> None:
        self.calls = calls
        self.gate = gate
        self.load = load
        self._open: set[_OpenCall] = set()
        self._draining = False

    def handler(self, name: str, method: Method[pb.StreamBatchesRequest]) -> grpc.RpcMethodHandler:
        """Returns the handler of a method whose messages, there and back, are those of StreamBatches.

        Args:
            name: The method as the log has it.
            method: What serves a message.
        """

        async def serve(requests: object, context: grpc.aio.ServicerContext) -> None:
            task = this_task()
            self.calls.follow(task)
            failure = await self._refuse(name, context)
            if failure is None:
                opened = _OpenCall(self, name, method, context, task)
                self._open.add(opened)
                # Not when it has been served: of a client that doesn't read, gRPC goes on to hold an answer.
                task.add_done_callback(lambda _: self._open.discard(opened))
                failure = await opened.serve()
            if failure is not None:
                await context.abort(failure.code, failure.message, failure.trailers)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _refuse(self, name: str, context: grpc.aio.ServicerContext) -> Failure | None:
        """Returns why a call can't be opened, if so."""
        call = Call(name)
        try:
            call.identity = await self.gate.identify(context)
            if self._draining:
                raise Draining()
        except Exception as error:
            return self.calls.refused(call, error)
        if len(self._open) >= OPEN_CALLS:
            # That is no load: most of them are idle, and whoever gets none calls without.
            return self.calls.turned_away(call, Overloaded("streams", limit=OPEN_CALLS), TRY_AGAIN_SECONDS)
        return None

    def end(self) -> None:
        """Ends all calls when they have answered what they took, and refuses new ones."""
        self._draining = True
        for opened in self._open:
            opened.end(Draining())


class _OpenCall:
    """A call that is open."""

    def __init__(
        self,
        open_calls: OpenCalls,
        name: str,
        method: Method[pb.StreamBatchesRequest],
        context: grpc.aio.ServicerContext,
        task: asyncio.Task[Any],
    ) -> None:
        self._calls = open_calls.calls
        self._gate = open_calls.gate
        self._load = open_calls.load
        self._name = name
        self._method = method
        self._context = context
        self._task = task
        self._reading = False
        self._is_served = False
        self._failure: Failure | None = None
        self._at_work: set[asyncio.Task[None]] = set()
        self._unanswered: dict[int, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()

    async def serve(self) -> Failure | None:
        """Serves messages until the client has no more, or the call has to end: returns why, then."""
        loop = asyncio.get_running_loop()
        with suppress(Exception):  # the client has gone: then there is nothing to read either
            # At once, so that the client knows that nothing on the way holds the call back.
            await self._context.send_initial_metadata(())
        try:
            while self._failure is None:
                if len(self._at_work) >= MESSAGES_AT_WORK:
                    await asyncio.wait(self._at_work, return_when=asyncio.FIRST_COMPLETED)
                    continue
                raw = await self._read()
                if raw is grpc.aio.EOF:
                    break
                size = len(raw)
                self._load.was_read(size)
                request = self._parse(raw)
                del raw  # as large as what was made of it
                if request is None:
                    break
                if request.cancel:
                    self._give_up(request.id)
                    continue
                task = loop.create_task(self._answer(request, size))
                self._at_work.add(task)
                self._unanswered[request.id] = task
                task.add_done_callback(self._at_work.discard)
                del request, task
            while self._at_work:
                await asyncio.wait(self._at_work)
        finally:
            self._is_served = True
            self._give_all_up()
        return self._failure

    def end(self, error: Exception) -> None:
        """Has the call end, as soon as all that it took is answered."""
        if self._failure is None and not self._is_served:
            self._failure = self._calls.refused(Call(self._name), error)
            if self._reading:
                self._task.cancel()

    def _give_up(self, number: int) -> None:
        """Gives a message up that nobody waits for any more."""
        if task := self._unanswered.pop(number, None):
            task.cancel()

    def _give_all_up(self) -> None:
        for task in self._at_work:
            task.cancel()

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

    def _parse(self, raw: bytes) -> pb.StreamBatchesRequest | None:
        """Returns a message. None: it can't be read, and the call has to end."""
        try:
            if len(raw) > MESSAGE_BYTES:
                raise RequestTooLarge(len(raw), limit=MESSAGE_BYTES)
            return parse(pb.StreamBatchesRequest, raw)
        except CheckpointdError as error:
            self.end(error)
            return None

    async def _answer(self, request: pb.StreamBatchesRequest, size: int) -> None:
        """Serves a message."""
        call = self._calls.enter(self._name)
        call.request, number, timeout = request, request.id, request.timeout_ms / 1000 or None
        del request
        sent: list[Callable[[object], None]] = []
        try:
            answer = await self._attempt(call, size, timeout)
            self._load.take_answer(len(answer), sent.append, refuse=False)
        finally:
            self._unanswered.pop(number, None)
            self._calls.leave(call)
            del call
        patience = self._calls.time_for(timeout)
        if patience is not None:
            patience = max(patience, LEAST_SECONDS_TO_READ)
        try:
            async with asyncio.timeout(patience), self._writing:
                await self._context.write(answer)
        except TimeoutError:
            # What is held for a client that doesn't read is needed for others.
            self.end(DeadlineExceeded(f"no answer of this call was read for {patience:g} s"))
            self._give_all_up()
        except Exception as error:  # the client has gone, and the call with it
            _logger.debug("an answer could not be sent: %s", type(error).__name__)
        finally:
            for note in sent:
                note(None)

    async def _attempt(self, call: Call, size: int, timeout: float | None) -> bytes:
        """Does what a message asks for, and returns the encoded answer, be it that it was refused."""
        calls, request = self._calls, call.request
        try:
            calls.check_room()
            # Anew for each: a key may have been withdrawn, and a token have run out.
            call.identity = await self._gate.identify(self._context)
            calls.begin(call, size)
            answer = await calls.work(call, self._method, timeout, told_identity=True)
            calls.finished(call)
            return answer
        except asyncio.CancelledError:
            calls.cancelled(call)
            raise
        except Exception as error:
            if isinstance(error, Unauthenticated):
                self.end(error)  # a call's token stays the same
            failure = write_failure(calls.refused(call, error))
            return pb.StreamBatchesResponse(id=request.id, failure=failure).SerializeToString()
