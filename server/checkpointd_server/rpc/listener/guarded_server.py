"""Third-party services, health and reflection, with limits of their own, and with authentication if configured.

Anybody may call them, so the cost of calls is limited: their number, the size of a request, and the time that it takes
to arrive. gRPC reports a request's size only once it is complete, and allocates memory while it is being read. So few
are read at a time, none for long, and a connection that sends a large one is closed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from checkpointd_server.domain.errors import CheckpointdError, DeadlineExceeded, InvalidArgument, Overloaded
from checkpointd_server.rpc.calls.call import Call
from checkpointd_server.rpc.calls.call_log import CallLog
from checkpointd_server.rpc.listener.connections import Connections

_LATE_SECONDS = 0.05
_MOST_LATE_LOOKS = 20
_HOSTILE = 1000.0
"""Number of wasted calls that a request counts for if no honest client sends it."""
_SLOW = 50.0
"""Number of wasted calls that a request counts for if it doesn't arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Limits of calls of health and reflection. Times are in seconds."""

    max_request_bytes: int = 4096
    """Maximum size of a request, in bytes. Honest clients send at most some 100 bytes."""
    max_calls: int = 1024
    """Maximum number of these calls. Most of them are idle watches."""
    max_calls_of_connection: int = 64
    """Maximum number of them on one connection."""
    concurrent_reads: int = 4
    """Number of requests that are read at a time."""
    read_timeout: float = 0.5
    """How long each is read, in seconds."""
    queue_timeout: float = 5.0
    """Maximum time that a call waits until its request is read, in seconds."""
    conversation_timeout: float = 60.0
    """How long a call with several requests may take."""
    retry_delay: float = 5.0
    """When to retry if there are too many calls, in seconds."""


Admit = Callable[[grpc.aio.ServicerContext], Awaitable[None]]
"""Admits a call, or raises an error."""


async def admit_all(context: grpc.aio.ServicerContext) -> None:
    """Admits every call."""


class SmallCalls:
    """Keeps track of calls, and reads their requests.

    Args:
        log: Where refusals are logged.
        connections: Counts wasted calls.
        limits: Their limits.
    """

    def __init__(self, log: CallLog, connections: Connections, limits: GuardLimits) -> None:
        self.log = log
        self.connections = connections
        self.limits = limits
        self._peers: Counter[str] = Counter()
        self._number = 0
        self._turns = asyncio.Semaphore(limits.concurrent_reads)

    def enter(self, peer: str) -> None:
        """Counts a call, until `leave`. Raises Overloaded if there are too many."""
        if self._number >= self.limits.max_calls:
            raise Overloaded("streams", limit=self.limits.max_calls)
        if self._peers[peer] >= self.limits.max_calls_of_connection:
            raise Overloaded("streams", limit=self.limits.max_calls_of_connection)
        self._number += 1
        self._peers[peer] += 1

    def leave(self, peer: str) -> None:
        """Counts a call no longer."""
        self._number -= 1
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    async def read(self, context: grpc.aio.ServicerContext, seconds: float | None = None) -> Any:
        """Reads a request.

        Args:
            context: The call's.
            seconds: How long it may take to arrive. None: it is the first, and should have arrived.

        Returns:
            The request, as bytes, or EOF.

        Raises:
            DeadlineExceeded: It didn't arrive in time.
            InvalidArgument: It is too large.
            Overloaded: It isn't read, because too many others are.
        """
        if seconds is None:
            try:
                async with asyncio.timeout(self.limits.queue_timeout):
                    await self._turns.acquire()
            except TimeoutError:
                raise Overloaded("streams", limit=self.limits.concurrent_reads) from None
            try:
                raw = await self._read(context, self.limits.read_timeout)
            finally:
                self._turns.release()
        else:
            raw = await self._read(context, seconds)
        if raw is not grpc.aio.EOF and len(raw) > self.limits.max_request_bytes:
            self.connections.waste(context.peer(), _HOSTILE)
            problem = f"has {len(raw)} bytes, at most {self.limits.max_request_bytes} are allowed"
            raise InvalidArgument("request", problem, limit=self.limits.max_request_bytes)
        return raw

    async def _read(self, context: grpc.aio.ServicerContext, seconds: float) -> Any:
        loop = asyncio.get_running_loop()
        reading = asyncio.ensure_future(context.read())
        try:
            timeout = seconds
            for _ in range(_MOST_LATE_LOOKS):
                begun = loop.time()
                await asyncio.wait((reading,), timeout=timeout)
                if reading.done():
                    return reading.result()
                if loop.time() - begun - timeout < _LATE_SECONDS:
                    break
                timeout = _LATE_SECONDS  # the event loop was blocked: handle what has arrived first
        finally:
            reading.cancel()
        self.connections.waste(context.peer(), _SLOW)
        raise DeadlineExceeded(f"the request didn't arrive within {seconds:g} s")


class GuardedServer:
    """Stands in for the server when a service registers itself: its calls are limited and authenticated.

    Args:
        server: The server.
        small_calls: Keeps track of the calls.
        admit: Admits a call, or raises an error.
    """

    def __init__(self, server: grpc.aio.Server, small_calls: SmallCalls, admit: Admit) -> None:
        self._server = server
        self._small_calls = small_calls
        self._admit = admit

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Adds handlers, wrapped with limits and authentication."""
        self._server.add_generic_rpc_handlers(
            tuple(_Guarded(handler, self._small_calls, self._admit) for handler in handlers)
        )

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Does nothing, as in every asyncio server: the generic handlers serve."""


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, inner: grpc.GenericRpcHandler, small_calls: SmallCalls, admit: Admit) -> None:
        self._inner = inner
        self._small_calls = small_calls
        self._admit = admit

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._inner.service(handler_call_details)
        if handler is None:
            return None
        name = handler_call_details.method.rpartition(".")[2]

        async def serve(requests: object, context: grpc.aio.ServicerContext) -> None:
            peer, call, small_calls = context.peer(), Call(name), self._small_calls
            try:
                small_calls.enter(peer)
            except Overloaded as error:
                small_calls.connections.waste(peer)
                failure = small_calls.log.failed(call, error, small_calls.limits.retry_delay)
                await context.abort(failure.code, failure.message, failure.trailers)
            try:
                await self._admit(context)
                await self._answer(handler, context)
            except asyncio.CancelledError:
                small_calls.connections.waste(peer)
                raise
            except CheckpointdError as error:
                small_calls.connections.waste(peer)
                failure = small_calls.log.failed(call, error, None)
                await context.abort(failure.code, failure.message, failure.trailers)
            finally:
                small_calls.leave(peer)

        # For gRPC each method takes a stream of requests: so we decide whether a request is read.
        return grpc.stream_stream_rpc_method_handler(serve, response_serializer=handler.response_serializer)

    async def _answer(self, handler: grpc.RpcMethodHandler, context: grpc.aio.ServicerContext) -> None:
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        serve = getattr(handler, kind)
        if handler.request_streaming:
            answer = serve(self._requests(handler, context), context)
        else:
            raw = await self._small_calls.read(context)
            if raw is grpc.aio.EOF:
                raise InvalidArgument("request", "is missing")
            answer = serve(_parse(handler, raw), context)
        if hasattr(answer, "__aiter__"):
            async for response in answer:
                await context.write(response)
            return
        response = await answer
        if not handler.response_streaming:
            await context.write(response)

    async def _requests(self, handler: grpc.RpcMethodHandler, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._small_calls.limits.conversation_timeout
        raw = await self._small_calls.read(context)
        while raw is not grpc.aio.EOF:
            yield _parse(handler, raw)
            raw = await self._small_calls.read(context, max(end - loop.time(), 0.0))


def _parse(handler: grpc.RpcMethodHandler, raw: bytes) -> Any:
    try:
        return handler.request_deserializer(raw)
    except DecodeError:
        raise InvalidArgument("request", "is not what this method takes") from None
