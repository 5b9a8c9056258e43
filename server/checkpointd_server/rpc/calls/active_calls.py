"""Calls at work: how many there are and what they hold, within bounds, and waiting for them at the end."""

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
    """Counts calls, and operations of streams, from when they come in until they are answered.

    Args:
        load: The bounds of the server.
        tenants: The bounds of each tenant.
        max_calls: The most calls that wait for another client.
        message_bytes: The largest request.
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
        """The number of calls at work: those whose request is there."""
        return self._active

    def refuse_new(self) -> None:
        """Refuses every new call from now on, and those that only wait: the server is shutting down."""
        self._draining.set()
        self._load.refuse_arriving(Draining())
        if not self._unsent:
            self._idle.set()

    async def until_idle(self) -> None:
        """Waits until the calls that came in before new ones were refused have ended, and their answers are sent."""
        await self._idle.wait()

    def follow(self, task: asyncio.Task[Any]) -> None:
        """Has `until_idle` wait for a call that has come in, unless new ones are being refused.

        Args:
            task: What serves the call. It is gRPC's own, which also sends the answer. A callback of the context's would
                keep both in a circle, for the garbage collector.
        """
        if not self._draining.is_set():
            self._unsent += 1
            task.add_done_callback(self._sent)

    async def waiting(self, tenant: str, work: Coroutine[Any, Any, T]) -> T:
        """Awaits work of a tenant that mostly waits for another client, so that it isn't counted as a call at work.

        Args:
            tenant: The tenant.
            work: The work. It is closed, or cancelled, where this raises.

        Returns:
            What the work returns.

        Raises:
            Draining: The server is shutting down, and hasn't the time to wait.
            Overloaded: As many calls wait already as may be at work.
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
        """Counts a call that has come in, until `leave`."""
        self._entered += 1
        return Call(method)

    def check_room(self) -> None:
        """Raises Draining or Overloaded if no call can be taken on."""
        if self._draining.is_set():
            raise Draining()
        self._load.check(self._entered - self._waiting)

    def admit(self, call: Call, tenant: str, *, is_metered: bool) -> None:
        """Counts a call as its tenant's.

        Args:
            call: The call, whose `tenant` this sets.
            tenant: The tenant's name.
            is_metered: Whether the call counts in the tenant's quota of calls a second.

        Raises:
            Overloaded: The tenant has its share of a full server.
            QuotaExceeded: The tenant may make no call just now.
        """
        state = self._tenants.of(tenant)
        self._tenants.admit(state, self._entered - self._waiting - 1, is_metered=is_metered)
        call.tenant = state
        state.activity.begun(call)

    def reserve(self, state: TenantState, operations: int, size: int) -> tuple[int, CheckpointdError | None]:
        """Counts operations of a tenant's pipeline as at work, with so many bytes, until `release`.

        Args:
            state: The tenant.
            operations: How many operations there are.
            size: The size of their message, in bytes, which is reserved whole even if some are rejected.

        Returns:
            How many of them there is room for: the first ones; and why not for the others, if that isn't for room.

        Raises:
            Draining: The server is shutting down.
            Overloaded: There is room for none.
            QuotaExceeded: The tenant may make none just now.
        """
        if self._draining.is_set():
            raise Draining()
        at_work = self._entered - self._waiting
        room = self._load.room(at_work, operations)
        self._tenants.check_bytes(state, size, self._load.held_bytes)
        self._load.take(size)
        try:
            admitted, refusal = self._tenants.admit(state, at_work, room) if room else (0, None)
        except BaseException:
            self._load.free(size)
            raise
        state.bytes += size
        self._entered += admitted
        self._active += admitted
        return admitted, refusal

    def release(self, state: TenantState, operations: int, size: int) -> None:
        """Counts operations of a tenant, and bytes, as no longer at work."""
        self._load.free(size)
        state.bytes -= size
        state.calls -= operations
        self._entered -= operations
        self._active -= operations

    def begin(self, call: Call, size: int) -> None:
        """Counts a call as at work whose request is there.

        Args:
            call: The call.
            size: The size of its request, in bytes.

        Raises:
            Draining: The server is shutting down.
            RequestTooLarge: The request is larger than a message may be.
            Overloaded: The tenant holds its share of the bytes of a full server.
        """
        if self._draining.is_set():
            raise Draining()
        call.at_work = True
        self._active += 1
        if size > self._message_bytes:
            raise RequestTooLarge(size, limit=self._message_bytes)
        if call.tenant is not None:
            self._tenants.check_bytes(call.tenant, size, self._load.held_bytes)
            self._load.take(size)
            call.tenant.bytes += size
        else:
            self._load.take(size)
        call.held = size

    def free(self, call: Call) -> None:
        """Holds the bytes of a call's request no longer: its answer is made."""
        self._load.free(call.held)
        if call.tenant is not None:
            call.tenant.bytes -= call.held
        call.held = 0

    def leave(self, call: Call) -> None:
        """Counts a call no longer."""
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
