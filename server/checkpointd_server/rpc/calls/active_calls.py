"""Calls in flight: their number and bytes, the limits on both, and waiting for them at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from checkpointd_server.domain.errors import CheckpointdError, Overloaded
from checkpointd_server.rpc.calls.admission import AdmissionController
from checkpointd_server.rpc.calls.call import Call
from checkpointd_server.rpc.errors import Draining, RequestTooLarge
from checkpointd_server.rpc.tenants import Tenants, TenantState

T = TypeVar("T")


class ActiveCalls:
    """Counts calls, and operations of streams, from their arrival until they are answered.

    Args:
        load: The limits of the server.
        tenants: The limits of each tenant.
        max_calls: The maximum number of calls that wait for another client.
        message_bytes: The maximum size of a request.
    """

    def __init__(self, load: AdmissionController, tenants: Tenants, *, max_calls: int, message_bytes: int) -> None:
        self._load = load
        self._tenants = tenants
        self._max_calls = max_calls
        self._message_bytes = message_bytes
        self._entered = 0
        self._active = 0
        self._waiting = 0
        self._unsent = 0
        self._draining = asyncio.Event()
        self._idle = asyncio.Event()

    @property
    def waiting_calls(self) -> int:
        """The number of calls that wait for another client, most of them for a lease."""
        return self._waiting

    @property
    def at_work(self) -> int:
        """The number of calls in flight: those whose request has arrived."""
        return self._active

    def refuse_new(self) -> None:
        """Rejects every new call from now on, and calls that only wait: the server is shutting down."""
        self._draining.set()
        self._load.refuse_arriving(Draining())
        if not self._unsent:
            self._idle.set()

    async def until_idle(self) -> None:
        """Waits until the calls accepted before `refuse_new` have ended and their answers are sent."""
        await self._idle.wait()

    def follow(self, task: asyncio.Task[Any]) -> None:
        """Makes `until_idle` wait for a call, unless new calls are being rejected.

        Args:
            task: The task that serves the call. It is gRPC's own, which also sends the answer. A callback on the
                context would create a reference cycle, which only the garbage collector frees.
        """
        if not self._draining.is_set():
            self._unsent += 1
            task.add_done_callback(self._sent)

    async def waiting(self, tenant: str, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work that mostly waits for another client, without counting it as a call in flight.

        Args:
            tenant: The tenant.
            work: The work. It is closed or cancelled if this raises.

        Returns:
            The result of the work.

        Raises:
            Draining: The server is shutting down, and can't wait any longer.
            Overloaded: Too many calls are waiting already.
        """
        if self._waiting >= self._max_calls:
            work.close()
            raise Overloaded(limit=self._max_calls)
        state = self._tenants.of(tenant)
        try:
            self._tenants.check_wait(state, self._waiting)
        except Overloaded:
            work.close()
            raise
        self._waiting += 1
        state.waiting += 1
        task = asyncio.ensure_future(work)
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({task, draining}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Draining()
            return task.result()
        finally:
            self._waiting -= 1
            state.waiting -= 1
            draining.cancel()
            task.cancel()
            await asyncio.gather(task, draining, return_exceptions=True)

    def enter(self, method: str) -> Call:
        """Counts a new call until `leave`."""
        self._entered += 1
        return Call(method)

    def check_room(self) -> None:
        """Raises Draining or Overloaded if no call can be accepted."""
        if self._draining.is_set():
            raise Draining()
        self._load.check(self._entered - self._waiting)

    def admit(self, call: Call, tenant: str, *, is_metered: bool) -> None:
        """Counts a call for its tenant.

        Args:
            call: The call, whose `tenant` this sets.
            tenant: The tenant's name.
            is_metered: Whether the call counts towards the tenant's quota of calls per second.

        Raises:
            Overloaded: The server is full, and the tenant has used its share.
            QuotaExceeded: The tenant has used its calls per second.
        """
        state = self._tenants.of(tenant)
        self._tenants.admit(state, self._entered - self._waiting - 1, is_metered=is_metered)
        call.tenant = state
        state.activity.begun(call)

    def reserve(self, state: TenantState, operations: int, size: int) -> tuple[int, CheckpointdError | None]:
        """Counts operations of a tenant's pipeline, and their bytes, as in flight until `release`.

        Args:
            state: The tenant.
            operations: The number of operations.
            size: The size of their message, in bytes, which is reserved whole even if some are rejected.

        Returns:
            How many of them, from the first on, are accepted; and why the others aren't, unless for lack of room.

        Raises:
            Draining: The server is shutting down.
            Overloaded: There is no room for any.
            QuotaExceeded: The tenant has used its calls per second.
        """
        if self._draining.is_set():
            raise Draining()
        at_work = self._entered - self._waiting
        room = self._load.room(at_work, operations)
        self._tenants.check_bytes(state, size, self._load.held_bytes)
        self._load.reserve(size)
        try:
            admitted, refusal = self._tenants.admit(state, at_work, room) if room else (0, None)
        except BaseException:
            self._load.release(size)
            raise
        state.bytes += size
        self._entered += admitted
        self._active += admitted
        return admitted, refusal

    def release(self, state: TenantState, operations: int, size: int) -> None:
        """Counts operations of a tenant, and their bytes, as no longer in flight."""
        self._load.release(size)
        state.bytes -= size
        state.calls -= operations
        self._entered -= operations
        self._active -= operations

    def begin(self, call: Call, size: int) -> None:
        """Counts a call whose request has arrived as in flight.

        Args:
            call: The call.
            size: The size of its request, in bytes.

        Raises:
            Draining: The server is shutting down.
            RequestTooLarge: The request exceeds the maximum message size.
            Overloaded: The server is full, and the tenant has used its share of bytes.
        """
        if self._draining.is_set():
            raise Draining()
        call.at_work = True
        self._active += 1
        if size > self._message_bytes:
            raise RequestTooLarge(size, limit=self._message_bytes)
        if call.tenant is not None:
            self._tenants.check_bytes(call.tenant, size, self._load.held_bytes)
            self._load.reserve(size)
            call.tenant.bytes += size
        else:
            self._load.reserve(size)
        call.held = size

    def free(self, call: Call) -> None:
        """Frees the bytes of a call's request, once its answer is made."""
        self._load.release(call.held)
        if call.tenant is not None:
            call.tenant.bytes -= call.held
        call.held = 0

    def leave(self, call: Call) -> None:
        """Stops counting a call."""
        self.free(call)
        if call.tenant is not None:
            call.tenant.calls -= 1
            call.tenant.activity.ended(call)
        self._entered -= 1
        self._active -= call.at_work

    def _sent(self, task: object) -> None:
        self._unsent -= 1
        if not self._unsent and self._draining.is_set():
            self._idle.set()
