"""What happens around every call: bytes in, bytes out, and in between the deadline, the tenant, errors and the log.

There is one wrapper a method, built once. gRPC is given no (de)serializers: it would answer bytes that aren't a message
with UNKNOWN and the text of a Python exception, and send an answer of any size. To gRPC each method takes a stream of
requests, of which one is read: so the wrapper says whether it is read at all. A call that is refused for who makes it,
or because there are too many, costs no more memory than a stream's window.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, EncodeError, Message

from checkpointd_server.domain.access import ANYBODY, Identity, Scope
from checkpointd_server.domain.errors import CheckpointdError, InvalidArgument, Overloaded, ResultTooLarge
from checkpointd_server.rpc.auth import Gate
from checkpointd_server.rpc.errors import Draining, Failure, RequestTooLarge, describe_error
from checkpointd_server.rpc.faults import kind_of, trace_without_words
from checkpointd_server.rpc.identity import Each, Needed, check_scope
from checkpointd_server.rpc.load import Load

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=Message)
Method = Callable[[RequestT, Any, "float | None"], Awaitable[bytes]]
"""A servicer's method: takes the request, the tenant and the seconds that remain, returns the encoded response.
That of an RPC which needs scopes by the operation takes the identity in place of the tenant."""


_CANCELLED_WITHIN = 0.05
"""A call that gRPC has ended looks at first like one without a request, and is cancelled a moment later, in seconds."""


class CallLimits(NamedTuple):
    """What each call is held to."""

    message_bytes: int
    """The largest request and response."""
    concurrent_calls: int
    """The most calls at work at once."""
    default_timeout: float | None
    """Seconds that a call gets if its client set no deadline. None: no bound."""


class Calls:
    """Wraps methods into gRPC handlers, and knows how many calls are at work."""

    def __init__(self, limits: CallLimits, gate: Gate, load: Load) -> None:
        self._limits = limits
        self._load = load
        self._gate = gate
        self._entered = 0
        self._active = 0
        self._waiting = 0
        self._draining = asyncio.Event()
        self._idle = asyncio.Event()
        self._log = structlog.get_logger("checkpointd.rpc").bind()
        # Asked once: a line a call must cost nothing where nobody reads it.
        self._logs_calls = self._log.is_enabled_for(logging.DEBUG)

    @property
    def active(self) -> int:
        """How many calls are at work: those whose request is there."""
        return self._active

    def refuse_new(self) -> None:
        """From now on every new call is refused, and those that only wait, for the server is shutting down."""
        self._draining.set()
        self._load.refuse_arriving(Draining())
        if not self._active:
            self._idle.set()

    async def until_idle(self) -> None:
        """Waits until the calls at work when new ones began to be refused have finished."""
        await self._idle.wait()

    async def waiting(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that mostly waits for another client, so that it isn't counted as a call at work.

        Raises:
            Draining: The server is shutting down, and hasn't the time to wait.
            Overloaded: As many calls wait already as may be at work.
        """
        limit = self._limits.concurrent_calls
        if self._waiting >= limit:
            work.close()
            raise Overloaded(limit=limit)
        self._waiting += 1
        task = asyncio.ensure_future(work)
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({task, draining}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Draining()
            return task.result()
        finally:
            self._waiting -= 1
            draining.cancel()
            task.cancel()
            await asyncio.gather(task, draining, return_exceptions=True)

    async def admit(self, context: grpc.aio.ServicerContext) -> None:
        """Lets a call to a service of others go on if it comes from any identity, and else ends it."""
        started = perf_counter()
        try:
            await self._gate.identify(context)
        except CheckpointdError as error:
            failure = self.failure("health or reflection", started, None, error, None)
            await context.abort(failure.code, failure.message, failure.trailers)

    def handler(
        self,
        name: str,
        request_type: type[RequestT],
        method: Method[RequestT],
        needed: Needed,
    ) -> grpc.RpcMethodHandler:
        """Returns the handler of a unary method.

        Args:
            name: The method as the log has it, e.g. "CheckpointService/PutCheckpoint".
            request_type: The message that the method takes.
            method: What serves it.
            needed: What its caller must be allowed to do.
        """
        message_bytes, _, default_timeout = self._limits
        parse = request_type.FromString
        identify = self._gate.identify
        logs_calls = self._logs_calls
        load = self._load

        async def attempt(context: grpc.aio.ServicerContext) -> bytes | Failure:
            started = perf_counter()
            request = identity = None
            held = at_work = 0
            unread = False
            self._entered += 1
            try:
                if self._draining.is_set():
                    raise Draining()
                load.check(self._entered - self._waiting)
                identity = await identify(context)
                check_scope(identity, needed)
                raw = await load.read(context)
                if raw is grpc.aio.EOF:
                    unread = True
                    await asyncio.sleep(_CANCELLED_WITHIN)
                    raise InvalidArgument("request", "is missing")
                if self._draining.is_set():
                    raise Draining()
                at_work = 1
                self._active += at_work
                if len(raw) > message_bytes:
                    raise RequestTooLarge(len(raw), limit=message_bytes)
                load.take(len(raw))
                held = len(raw)
                request = parse(raw)
                del raw  # as large as what was made of it
                timeout = context.time_remaining()
                who = identity if needed is Each.OPERATION else identity.tenant
                response = await method(request, who, default_timeout if timeout is None else timeout)
                if len(response) > message_bytes:
                    raise ResultTooLarge(len(response), limit=message_bytes)
                load.free(held)
                held = 0
                load.take_answer(len(response), context, refuse=needed is Scope.READ)
                load.finished()
                if logs_calls:
                    self._log_call(name, "OK", started, request, identity)
                return response
            except asyncio.CancelledError:
                if unread:
                    self._log_unread(name, started, identity)
                elif logs_calls:
                    self._log_call(name, "CANCELLED", started, request, identity)
                raise
            except DecodeError:
                malformed = InvalidArgument("request", f"is not a {request_type.DESCRIPTOR.full_name}")
                return self.failure(name, started, request, malformed, identity)
            except EncodeError:
                # Protobuf gives up at 2 GiB, whatever our own limit is.
                too_large = ResultTooLarge(2**31, limit=message_bytes)
                return self.failure(name, started, request, too_large, identity)
            except Exception as error:
                return self.failure(name, started, request, error, identity)
            finally:
                load.free(held)
                self._entered -= 1
                self._active -= at_work
                if self._draining.is_set() and not self._active:
                    self._idle.set()

        async def serve(requests: object, context: grpc.aio.ServicerContext) -> bytes:
            # What a call held is gone with its attempt, before its failure is on the way. No name there may outlive the
            # `except` that gave it to an error: error, traceback and frame would keep each other, and the request.
            answer = await attempt(context)
            if isinstance(answer, Failure):
                await context.abort(answer.code, answer.message, answer.trailers)
                raise AssertionError("abort raises")
            return answer

        return grpc.stream_unary_rpc_method_handler(serve)

    def _log_call(self, method: str, code: str, started: float, request: Any, identity: Identity | None) -> None:
        self._log.debug("call", code=code, **_call_fields(method, started, request, identity))

    def _log_unread(self, method: str, started: float, identity: Identity | None) -> None:
        # gRPC answers what is far over the limit by itself, and tells no more here than of a client that went away.
        self._log.info(
            "call ended before its request was read: its client went away, or sent more than a message may have",
            limit=self._limits.message_bytes,
            **_call_fields(method, started, None, identity),
        )

    def failure(
        self, method: str, started: float, request: Any, error: Exception, identity: Identity | None
    ) -> Failure:
        """Logs a call's failure, and returns what its client is told.

        Args:
            method: The method as the log has it.
            started: When the call began, by `time.perf_counter`.
            request: The request, or None if it wasn't one.
            error: What the call raised.
            identity: Who called, or None if that isn't known.
        """
        retry_after = None
        if isinstance(error, Overloaded):
            retry_after = self._load.refused()
        else:
            self._load.finished()
        failure = describe_error(error, retry_after=retry_after)
        self._log_failure(_call_fields(method, started, request, identity), failure, error)
        return failure

    def _log_failure(self, fields: dict[str, Any], failure: Failure, error: Exception) -> None:
        fields = {
            "code": failure.code.name,
            "reason": failure.reason,
            **fields,
        }
        if failure.error_id is not None:
            self._log.error("call failed", **fields, error_id=failure.error_id, trace=trace_without_words(error))
            return
        if error.__cause__ is not None:
            fields["cause"] = kind_of(error.__cause__)
        self._log.log(failure.level, "call refused", **fields, message=failure.message)


def _call_fields(method: str, started: float, request: Any, identity: Identity | None) -> dict[str, Any]:
    """Returns what every line about a call says. Ids may be in a log, values never."""
    fields = {"method": method, "duration_ms": round((perf_counter() - started) * 1000, 3)}
    thread_id = getattr(request, "thread_id", None)
    if thread_id:
        fields["thread_id"] = thread_id
    if identity is not None and identity is not ANYBODY:
        fields["tenant"], fields["subject"] = identity.tenant, identity.subject
    return fields
