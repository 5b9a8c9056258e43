"""The handler of every call: it decodes, checks deadline and tenant, encodes, and reports errors.

Each method has one wrapper, built once. gRPC gets no (de)serializers: it would answer invalid messages with UNKNOWN and
the text of a Python exception, and send answers of any size. To gRPC each method takes a stream of requests, of which
only one is read, so that the wrapper decides whether to read it. A call that is rejected because of its caller, or
because there are too many, needs no more memory than a stream's window.
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
from checkpointd_server.rpc.auth.scopes import (
    CallScope,
    KeysUnavailable,
    Needed,
    Unauthenticated,
    check_scope,
    only_reads,
)
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
"""A servicer's method: takes the request, the tenant and the remaining seconds, and returns the encoded response.
Methods of RPCs whose scope depends on the operation take the identity in place of the tenant."""


SENDING_BYTES_PER_SECOND = 1024 * 1024
"""Minimum rate at which a client must read a large answer, in bytes per second."""
_WASTED = (Unauthenticated, KeysUnavailable, InvalidArgument, DeadlineExceeded, RequestTooLarge)
"""Errors that a client causes before its request has arrived."""
_CANCELLED_WITHIN = 0.05
"""Maximum time until a call that gRPC ended is cancelled, in seconds. Until then it seems to lack a request."""


STORING: Mapping[str, str] = {
    "checkpointd.v1.CheckpointService.PutCheckpoint": "thread_id",
    "checkpointd.v1.CheckpointService.PutWrites": "thread_id",
    "checkpointd.v1.ThreadService.CopyThread": "target_thread_id",
    "checkpointd.v1.ValueService.PutPart": "thread_id",
}
"""The RPCs that quotas of bytes and threads apply to, and the field that names the thread they store data in."""
_JITTER = SystemRandom()


class Calls:
    """Wraps methods into gRPC handlers."""

    def __init__(
        self,
        limits: CallLimits,
        authenticator: Authenticator,
        load: AdmissionController,
        connections: Connections,
        tenants: Tenants,
        quotas: QuotaRefresh,
        tracing: Tracing | None = None,
    ) -> None:
        self.tenants = tenants
        """The tenants that call."""
        self.quotas = quotas
        """The usage of tenants."""
        self.tracing = tracing
        """The tracer of calls."""
        self.active = ActiveCalls(load, tenants, max_calls=limits.concurrent_calls, message_bytes=limits.message_bytes)
        """The calls in flight."""
        self.log = CallLog(limits)
        """The log of calls."""
        self._limits = limits
        self._connections = connections
        self._load = load
        self._authenticator = authenticator
        self._audit = AuditTrail()

    def stop(self) -> None:
        """Writes how many log lines were suppressed."""
        self.log.stop()
        self._audit.stop()

    async def admit(self, context: grpc.aio.ServicerContext) -> None:
        """Admits calls to third-party services from any identity. Raises what `Authenticator.authenticate` raises."""
        await self._authenticator.authenticate(context)

    def handler(self, described: MethodDescriptor, method: Method[Any], needed: Needed) -> grpc.RpcMethodHandler:
        """Returns the handler of a unary method.

        Args:
            described: The method.
            method: The function that serves it.
            needed: The scope that its caller needs.
        """
        name = f"{described.containing_service.name}/{described.name}"
        request_type = GetMessageClass(described.input_type)
        audited = is_audited(described, needed)
        by_operation = needed is CallScope.PER_OPERATION
        authenticate, load, counted = self._authenticator.authenticate, self._load, self.log.metrics.of(name)
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
                del raw  # as large as the decoded request
                if stored_in is not None and call.tenant is not None and call.tenant.usage is not None:
                    await self._check_storing(call.tenant, getattr(call.request, stored_in), size)
                response = await self.work(call, method, context.time_remaining(), whole=by_operation)
                assert call.tenant is not None
                may_refuse = only_reads(needed, call.request)
                self.tenants.take_answer(call.tenant, load, len(response), context.add_done_callback, refuse=may_refuse)
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
            # `attempt` has returned before its failure is sent, so its frame holds no memory any more. No variable in
            # it may keep an error after its `except`: error, traceback and frame would keep each other and the request.
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
        """Counts the bytes that a call will store in a thread. Raises QuotaExceeded."""
        if state.has_all_threads() and thread_id:
            for refusal in (await self.quotas.refuse_new(state, (thread_id,))).values():
                raise refusal
        self.tenants.check_storing(state, size)

    def audit_batch(self, call: Call, peer: str, outcome: Message | str) -> None:
        """Records a batch of the store that was an operation of a pipeline, if it deletes items.

        Args:
            call: The batch.
            peer: The client, as gRPC names it.
            outcome: The answer, or the name of a status code.
        """
        self._audit.batch(call, peer, outcome)

    def note_wasted(self, peer: str, error: Exception | None = None) -> None:
        """Records a wasted call: its client cancelled it, or caused its rejection."""
        if error is None or isinstance(error, _WASTED):
            self._connections.waste(peer)

    async def _read(self, call: Call, context: grpc.aio.ServicerContext) -> bytes:
        """Reads a call's request. Raises what `AdmissionController.read` does, or InvalidArgument if there is none."""
        raw = await self._load.read(context)
        if raw is grpc.aio.EOF:
            call.unread = True
            await asyncio.sleep(_CANCELLED_WITHIN)
            raise InvalidArgument("request", "is missing")
        return bytes(raw)

    async def work(self, call: Call, method: Method[Any], timeout: float | None, *, whole: bool = False) -> bytes:
        """Runs a call's method, and returns the encoded answer.

        Args:
            call: The call, with its request and identity.
            method: The function that serves it.
            timeout: How long the call may take, in seconds. None: its client set no deadline.
            whole: Whether the method takes the whole identity, not only its tenant.

        Raises:
            ResultTooLarge: The answer exceeds the maximum message size.
            Exception: Errors of the method.
        """
        assert call.identity is not None
        limit = self._limits.message_bytes
        who = call.identity if whole else call.identity.tenant
        try:
            response = await method(call.request, who, self.time_for(timeout))
        except EncodeError:
            # Protobuf's own limit is 2 GiB, whatever ours is.
            raise ResultTooLarge(2**31, limit=limit) from None
        if len(response) > limit:
            raise ResultTooLarge(len(response), limit=limit)
        self.active.free(call)
        return response

    def time_for(self, timeout: float | None) -> float | None:
        """Returns the timeout of a call from the one that its client set, or None."""
        wanted, most = self._limits.default_timeout if timeout is None else timeout, self._limits.max_timeout
        return wanted if most is None else most if wanted is None else min(wanted, most)

    def _time_sending(self, size: int, context: grpc.aio.ServicerContext) -> None:
        """Closes the connection if the answer isn't read in time: gRPC would keep it until the call's deadline."""
        if size <= SMALL_ANSWER_BYTES:
            return
        self.close_unread(context.peer(), this_task(), size / SENDING_BYTES_PER_SECOND)

    def close_unread(self, peer: str, task: asyncio.Task[Any], more: float = 0.0) -> None:
        """Closes a connection if a call on it doesn't end in time.

        Args:
            peer: The connection, by gRPC's name of its peer.
            task: The task that serves the call. It ends when everything that it sent is read.
            more: The seconds allowed in addition to those of every call.
        """
        seconds = self._limits.send_timeout + more
        timer = task.get_loop().call_later(seconds, self._connections.close, peer, "an answer was not read in time")
        task.add_done_callback(lambda _: timer.cancel())

    def finished(self, call: Call) -> None:
        """Records that a call succeeded."""
        self._load.finished()
        if self.log.logs_calls:
            self.log.succeeded(call)

    def refused(self, call: Call, error: Exception) -> Failure:
        """Logs why a call failed, and returns the failure to send to its client."""
        retry_after = None
        if isinstance(error, Overloaded):
            retry_after = self._load.refused()
        elif isinstance(error, QuotaExceeded):
            # Jitter, so that clients don't all retry at the same time.
            retry_after = error.retry_after and error.retry_after * _JITTER.uniform(1.0, 1.5)
        else:
            self._load.finished()
        return self.log.failed(call, error, retry_after)


def this_task() -> asyncio.Task[Any]:
    """Returns the current task."""
    task = asyncio.current_task()
    assert task is not None
    return task
