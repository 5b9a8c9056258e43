"""Leases: granted one at a time per thread, in the order of requests, by the database's clock.

All state is in the database, so any number of servers can share it. No state is in a session, so a transaction pooler
may be used. migrations/0001_core/08_leases.sql says how writes respect leases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from checkpointd_server.domain.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    LeaseLost,
    ThreadArchived,
    lease_refusal,
)
from checkpointd_server.domain.leases import AcquireLease, Lease, LeaseState
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.store.connections.database import Database

_FRONT_PAUSE = 0.1
"""How often the first waiter checks the lease, in seconds. A release through the same server wakes it."""
_BACK_PAUSE = 0.5
"""How often the others check whether they are first, in seconds. Without a check for 5 seconds, they count as gone."""


class Leases:
    """The leases on a tenant's threads, as one server sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}

    @property
    def is_idle(self) -> bool:
        """True if nobody waits here for a lease."""
        return not self._waiting

    async def acquire(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes a lease, or waits in the queue for it. Raises LeaseHeld when the time to wait is over."""
        try:
            async with asyncio.timeout(timeout):
                return await self._acquire(acquire)
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def _acquire(self, acquire: AcquireLease) -> Lease:
        time = asyncio.get_running_loop().time
        end = time() + acquire.wait
        key = thread_key(acquire.tenant, acquire.thread_id)
        with self._listening(acquire) as released:
            asked_at = time()
            token, remaining = await self._attempt(acquire)
            pause = _FRONT_PAUSE
            while token is None:
                refusal = lease_refusal("held", acquire.thread_id, remaining)
                if time() >= end or isinstance(refusal, ThreadArchived):
                    raise refusal
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(pause, end - time())):
                        await released.wait()
                released.clear()
                turns = await self._database.fetch("await_lease", key, acquire.holder, timeout=None)
                is_first = not turns or turns[0]["is_first"]
                if not turns or (is_first and turns[0]["is_free"]) or time() >= end:
                    asked_at = time()
                    token, remaining = await self._attempt(acquire)
                pause = _FRONT_PAUSE if is_first else _BACK_PAUSE
        # The commit may have waited for a standby.
        remaining = acquire.ttl - (time() - asked_at)
        if remaining > acquire.ttl / 2:
            return Lease(token, remaining)
        try:
            return await self.renew(acquire.tenant, acquire.thread_id, token, ttl=acquire.ttl, timeout=None)
        except LeaseLost:
            raise DatabaseUnavailable("the lease expired before the database confirmed it; try again") from None

    async def renew(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease that is in force.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            token: The lease's token.
            ttl: How long it lives from now, in seconds.
            timeout: The time that the caller has left, in seconds; None: no end.

        Raises:
            LeaseLost: It has ended.
        """
        time = asyncio.get_running_loop().time
        asked_at = time()
        key = thread_key(tenant, thread_id)
        if not await self._database.fetch_value("renew_lease", key, token, ttl, timeout=timeout):
            raise LeaseLost(thread_id)
        return Lease(token, ttl - (time() - asked_at))

    async def release(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Ends a holder's lease or its wait, and returns whether it had the lease."""
        key = thread_key(tenant, thread_id)
        released = bool(await self._database.fetch_value("release_lease", key, holder, timeout=timeout))
        for waiting in self._waiting.get((tenant, thread_id), ()):
            waiting.set()
        return released

    async def state(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Returns who may write to a thread."""
        row = await self._database.fetch_row("get_lease", thread_key(tenant, thread_id), timeout=timeout, reads=True)
        token, remaining, waiting = row.values()
        return LeaseState(None if token is None else Lease(token, remaining), waiting)

    @contextmanager
    def _listening(self, acquire: AcquireLease) -> Iterator[asyncio.Event]:
        """Yields an event that is set when a lease on the thread is released through this server."""
        thread = (acquire.tenant, acquire.thread_id)
        released = asyncio.Event()
        listeners = self._waiting.setdefault(thread, set())
        listeners.add(released)
        try:
            yield released
        finally:
            listeners.discard(released)
            if not listeners:
                self._waiting.pop(thread, None)

    async def _attempt(self, acquire: AcquireLease) -> tuple[int | None, float | None]:
        """Takes the lease if it is free for this holder, else queues the holder if requested.

        Returns the token, and the lease's remaining time in seconds.
        """
        row = await self._database.fetch_row(
            "acquire_lease",
            thread_key(acquire.tenant, acquire.thread_id),
            acquire.thread_id,
            acquire.holder,
            acquire.ttl,
            acquire.wait > 0,
            timeout=None,
        )
        return row["o_token"], row["o_remaining"]
