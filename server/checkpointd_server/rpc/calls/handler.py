"""The handler of every call: bytes in, bytes out, and in between the deadline, the tenant, errors and the log.

There is one wrapper a method, built once. gRPC is given no (de)serializers: it would answer bytes that aren't a message
with UNKNOWN and the text of a Python exception, and send an answer of any size. To gRPC each method takes a stream of
requests, of which one is read: so the wrapper says whether it is read at all. A call that is refused for its caller,
or because there are too many, costs no more memory than a stream's window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import SystemRandom
from time import perf_counter
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from checkpointd_server.domain.access import Scope
from checkpointd_server.domain.errors import (
    DeadlineExceeded,
    InvalidArgument,
    Overloaded,
    QuotaExceeded,
    ResultTooLarge,
)
from checkpointd_server.domain.tracing import Tracing, current_spans
from checkpointd_server.rpc.auth import Authenticator
from checkpointd_server.rpc.auth.scopes import CallScope, KeysUnavailable, Needed, Unauthenticated, check_scope
from checkpointd_server.rpc.calls.active_calls import ActiveCalls
from checkpointd_server.rpc.calls.admission import SMALL_ANSWER_BYTES, AdmissionController
from checkpointd_server.rpc.calls.audit import AuditTrail, is_audited
from checkpointd_server.rpc.calls.call import Call, CallLimits
from checkpointd_server.rpc.calls.call_log import CallLog
from checkpointd_server.rpc.conversion.wire import parse
from checkpointd_server.rpc.errors import Failure, RequestTooLarge
from checkpointd_server.rpc.listener.connections import Connections
from checkpointd_server.rpc.quota_refresh import QuotaRefresh
from checkpointd_server.rpc.tenants import Tenants, TenantState

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=Message)
Method = Callable[[RequestT, Any, "float | None"], Awaitable[bytes]]
"""A servicer's method: takes the request, the tenant and the seconds that remain, returns the encoded response.
That of an RPC which needs scopes by the operation takes the identity in place of the tenant."""


SENDING_BYTES_PER_SECOND = 1024 * 1024
"""How fast a large one must be read."""
_WASTED = (Unauthenticated, KeysUnavailable, InvalidArgument, DeadlineExceeded, RequestTooLarge)
"""Refusals of a call before its request is there for which its client is to blame."""
_CANCELLED_WITHIN = 0.05
"""A call that gRPC has ended looks at first like one without a request, and is cancelled a moment later, in seconds."""


STORING: Mapping[str, str] = {
    "checkpointd.v1.CheckpointService.PutCheckpoint": "thread_id",
    "checkpointd.v1.CheckpointService.PutWrites": "thread_id",
    "checkpointd.v1.ThreadService.CopyThread": "target_thread_id",
    "checkpointd.v1.ValueService.PutPart": "thread_id",
}
"""The RPCs that quotas of bytes and threads hold for, and the field that names the thread that they store in."""
_JITTER = SystemRandom()


class Calls:
    """Wraps methods into gRPC handlers."""

    def __init__(
        self,
        limits: CallLimits,
        gate: Authenticator,
        load: AdmissionController,
        connections: Connections,
        tenants: Tenants,
        quotas: QuotaRefresh,
        tracing: Tracing | None = None,
    ) -> None:
        self.tenants = tenants
        """Those that call."""
        self.quotas = quotas
        """The bookkeeping of what they hold."""
        self.tracing = tracing
        """The tracer of calls."""
        self.active = ActiveCalls(load, tenants, max_calls=limits.concurrent_calls, message_bytes=limits.message_bytes)
        """The calls at work."""
        self.log = CallLog(limits)
        """The record of how they end."""
        self._limits = limits
        self._connections = connections
        self._load = load
        self._gate = gate
        self._audit = AuditTrail()

    def stop(self) -> None:
        """Writes what the log is still to be told."""
        self.log.stop()
        self._audit.stop()

    async def admit(self, context: grpc.aio.ServicerContext) -> None:
        """Admits a call to a service of others from any identity. Raises what `Authenticator.authenticate` does."""
        await self._gate.authenticate(context)

    def handler(self, described: MethodDescriptor, method: Method[Any], needed: Needed) -> grpc.RpcMethodHandler:
        """Returns the handler of a unary method.

        Args:
            described: The method.
            method: What serves it.
            needed: What its caller must be allowed to do.
        """
        name = f"{described.containing_service.name}/{described.name}"
        request_type = GetMessageClass(described.input_type)
        audited = is_audited(described, needed)
        by_operation, only_reads = needed is CallScope.PER_OPERATION, needed in (Scope.READ, Scope.STORE_READ)
        authenticate, load, counted = self._gate.authenticate, self._load, self.log.metrics.of(name)
        stored_in = STORING.get(described.full_name)

        async def attempt(context: grpc.aio.ServicerContext) -> bytes | Failure:
            call = self.active.enter(name)
            try:
                self.active.check_room()
                call.identity = await authenticate(context)
                check_scope(call.identity, needed)
                self.active.admit(call, call.identity.tenant, is_metered=needed is not Scope.OPERATOR)
                raw = await self._read(call, context)
                size = len(raw)
                self.active.begin(call, size)
                call.request = await parse(request_type, raw)
                if self.tracing is not None:
                    self._trace(call, context, self.tracing)
                del raw  # as large as what was made of it
                if stored_in is not None and call.tenant is not None and call.tenant.usage is not None:
                    await self._check_storing(call.tenant, getattr(call.request, stored_in), size)
                response = await self.work(call, method, context.time_remaining(), whole=by_operation)
                assert call.tenant is not None
                self.tenants.take_answer(call.tenant, load, len(response), context.add_done_callback, refuse=only_reads)
                self._time_sending(len(response), context)
                seconds = perf_counter() - call.started
                counted.succeeded(seconds, size, len(response))
                if call.tenant is not None:
                    call.tenant.activity.note(call, seconds)
                if call.span is not None:
                    call.span.end()
                if seconds >= self.log.slow_call_log.slow_seconds and not getattr(call.request, "wait_ms", 0):
                    self.log.slow_call_log.slow(call.fields(), size, len(response))
                if audited:
                    self._audit.done(call, context.peer(), described, response)
                self.finished(call)
                return response
            except asyncio.CancelledError:
                self.note_wasted(context.peer())
                if audited and call.request is not None:
                    self._audit.failed(call, context.peer(), described, "CANCELLED")
                self.log.cancelled(call)
                raise
            except Exception as error:
                if call.request is None:
                    self.note_wasted(context.peer(), error)
                failure = self.refused(call, error)
                if audited and call.request is not None:
                    self._audit.failed(call, context.peer(), described, failure.code.name)
                return failure
            finally:
                self.active.leave(call)

        async def serve(requests: object, context: grpc.aio.ServicerContext) -> bytes:
            self.active.follow(this_task())
            # What a call held is gone with its attempt, before its failure is on the way. No name there may outlive the
            # `except` that gave it to an error: error, traceback and frame would keep each other, and the request.
            answer = await attempt(context)
            if isinstance(answer, Failure):
                await context.abort(answer.code, answer.message, answer.trailers)
                raise AssertionError("abort raises")
            return answer

        return grpc.stream_unary_rpc_method_handler(serve)

    @staticmethod
    def _trace(call: Call, context: grpc.aio.ServicerContext, tracing: Tracing) -> None:
        """Begins the span of a call."""
        headers = dict(context.invocation_metadata() or ())
        parent = headers.get("traceparent", "")
        thread_id = getattr(call.request, "thread_id", "")
        call.span = tracing.serve(call.method, parent if isinstance(parent, str) else "", thread_id)
        current_spans.set((call.span,))

    async def _check_storing(self, state: TenantState, thread_id: str, size: int) -> None:
        """Counts what a call is to store in a thread. Raises QuotaExceeded."""
        if state.has_all_threads() and thread_id:
            for refusal in (await self.quotas.refuse_new(state, (thread_id,))).values():
                raise refusal
        self.tenants.check_storing(state, size)

    def note_wasted(self, peer: str, error: Exception | None = None) -> None:
        """Records that a call came to nothing: its client cancelled it, or caused its refusal."""
        if error is None or isinstance(error, _WASTED):
            self._connections.waste(peer)

    async def _read(self, call: Call, context: grpc.aio.ServicerContext) -> bytes:
        """Reads a call's request. Raises what `AdmissionController.read` does; InvalidArgument if there is none."""
        raw = await self._load.read(context)
        if raw is grpc.aio.EOF:
            call.unread = True
            await asyncio.sleep(_CANCELLED_WITHIN)
            raise InvalidArgument("request", "is missing")
        return bytes(raw)

    async def work(self, call: Call, method: Method[Any], timeout: float | None, *, whole: bool = False) -> bytes:
        """Does what a request asks for, and returns the encoded answer.

        Args:
            call: The call, with its request and identity.
            method: What serves it.
            timeout: How long the call may take, in seconds. None: its client set no deadline.
            whole: Whether the method takes the identity, not its tenant alone.

        Raises:
            ResultTooLarge: The answer is larger than a message may be.
            Exception: What the method raises.
        """
        assert call.identity is not None
        limit = self._limits.message_bytes
        who = call.identity if whole else call.identity.tenant
        try:
            response = await method(call.request, who, self.time_for(timeout))
        except EncodeError:
            # Protobuf gives up at 2 GiB, whatever our own limit is.
            raise ResultTooLarge(2**31, limit=limit) from None
        if len(response) > limit:
            raise ResultTooLarge(len(response), limit=limit)
        self.active.free(call)
        return response

    def time_for(self, timeout: float | None) -> float | None:
        """Returns how long a call may take whose client gives it so many seconds, or says nothing."""
        wanted, most = self._limits.default_timeout if timeout is None else timeout, self._limits.max_timeout
        return wanted if most is None else most if wanted is None else min(wanted, most)

    def _time_sending(self, size: int, context: grpc.aio.ServicerContext) -> None:
        """Has the connection closed if an answer isn't read in time: gRPC holds it for as long as the call has."""
        if size <= SMALL_ANSWER_BYTES:
            return
        self.close_unread(context.peer(), this_task(), size / SENDING_BYTES_PER_SECOND)

    def close_unread(self, peer: str, task: asyncio.Task[Any], more: float = 0.0) -> None:
        """Has a connection closed if a call on it isn't over in time.

        Args:
            peer: The connection, as gRPC names its other end.
            task: What serves the call. It ends when all that it sent is read.
            more: How many seconds it has, besides those that each has.
        """
        seconds = self._limits.send_timeout + more
        timer = task.get_loop().call_later(seconds, self._connections.close, peer, "an answer was not read in time")
        task.add_done_callback(lambda _: timer.cancel())

    def finished(self, call: Call) -> None:
        """Records that a call was done."""
        self._load.finished()
        if self.log.logs_calls:
            self.log.succeeded(call)

    def refused(self, call: Call, error: Exception) -> Failure:
        """Logs why a call failed, and returns what its client is told."""
        retry_after = None
        if isinstance(error, Overloaded):
            retry_after = self._load.refused()
        elif isinstance(error, QuotaExceeded):
            # Not all at the same moment.
            retry_after = error.retry_after and error.retry_after * _JITTER.uniform(1.0, 1.5)
        else:
            self._load.finished()
        return self.log.failed(call, error, retry_after)


def this_task() -> asyncio.Task[Any]:
    """Returns the task that runs."""
    task = asyncio.current_task()
    assert task is not None
    return task
