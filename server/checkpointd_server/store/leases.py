"""Leases: granted one at a time on a thread, in the order of those who ask, on the database's clock.

How they bind writes is told in sql/leases.sql. Everything lies in the database, so that any number of servers share it;
nothing is kept in a session, so that a transaction pooler may stand between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress

from checkpointd_server.domain.errors import DatabaseUnavailable, DeadlineExceeded, LeaseHeld, LeaseLost
from checkpointd_server.domain.model import AcquireLease, Lease, LeaseState
from checkpointd_server.store.database import Database, Row, Session

_FRONT_PAUSE = 0.1
"""How often the first in line looks whether the lease is free, in seconds. A release on the same server wakes him."""
_BACK_PAUSE = 0.5
"""How often the others look whether they are first, in seconds. They count as gone 5 seconds after their last look."""
_WRITERS_PAUSE = 0.005
"""How often to look whether the puts that were under way at a grant have ended, in seconds."""
_SWEEP_INTERVAL = 60.0
"""How often a server deletes what nobody of a tenant came to delete, in seconds."""
_TRIES = 20
"""How often to try again what leases that come and go got in the way of."""


class Leases:
    """The leases on a tenant's threads, as one server sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._sweep_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits here for a lease."""
        return not self._waiting

    async def acquire(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes a lease, or waits in line for it. Raises LeaseHeld when the wait is over."""
        try:
            async with asyncio.timeout(timeout):
                return await self._acquire(acquire)
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def _acquire(self, acquire: AcquireLease) -> Lease:
        time = asyncio.get_running_loop().time
        end = time() + acquire.wait
        await self._sweep(acquire.tenant)
        with self._listening(acquire) as released:
            asked_at = time()
            token = await self._attempt(acquire)
            pause = _FRONT_PAUSE
            while token is None:
                if time() >= end:
                    state = await self.state(acquire.tenant, acquire.thread_id, timeout=None)
                    raise LeaseHeld(acquire.thread_id, remaining=state.lease and state.lease.remaining)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(pause, end - time())):
                        await released.wait()
                released.clear()
                turn = await self._database.run(lambda session: _await_turn(session, acquire), timeout=None)
                if turn is None or (turn["first"] and turn["free"]):
                    asked_at = time()
                    token = await self._attempt(acquire)
                pause = _FRONT_PAUSE if turn is None or turn["first"] else _BACK_PAUSE
        await self._until_writers_ended()
        remaining = acquire.ttl - (time() - asked_at)
        if remaining > acquire.ttl / 2:
            return Lease(token, remaining)
        try:
            return await self.renew(acquire.tenant, acquire.thread_id, token, ttl=acquire.ttl, timeout=None)
        except LeaseLost:
            raise DatabaseUnavailable("the lease expired while earlier writes were still at work; try again") from None

    async def renew(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease that is in force. Raises LeaseLost."""

        async def work(session: Session) -> float | None:
            remaining: float | None = await session.fetch_value("renew_lease", tenant, thread_id, token, ttl)
            return remaining

        remaining = await self._database.run(work, timeout=timeout)
        if remaining is None:
            raise LeaseLost(thread_id)
        return Lease(token, remaining)

    async def release(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Ends a holder's lease, or his waiting for it, and tells whether he had it."""

        async def work(session: Session) -> bool:
            return bool(await session.fetch_value("release_lease", tenant, thread_id, holder))

        released = await self._database.run(work, timeout=timeout)
        for waiting in self._waiting.get((tenant, thread_id), ()):
            waiting.set()
        return released

    async def state(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Tells who may write to a thread."""
        row = await self._database.run(
            lambda session: session.fetch_row("read_lease", tenant, thread_id), timeout=timeout, reads=True
        )
        assert row is not None
        in_force = row["remaining"] is not None and row["remaining"] > 0
        return LeaseState(Lease(row["token"], row["remaining"]) if in_force else None, row["waiting"])

    @contextmanager
    def _listening(self, acquire: AcquireLease) -> Iterator[asyncio.Event]:
        """Yields what is set when a lease on the thread is released through this server."""
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

    async def _attempt(self, acquire: AcquireLease) -> int | None:
        """Takes the lease if it is free for this holder, and returns its token; else lets him wait, if he wants to."""
        thread = (acquire.tenant, acquire.thread_id)

        async def work(session: Session) -> int | None:
            await session.fetch("lock_line", *thread)
            for _ in range(_TRIES):
                row = await session.fetch_row("grant_lease", *thread, acquire.holder, acquire.ttl)
                assert row is not None
                if row["granted"] is not None:
                    return int(row["granted"])
                expired = row["token"] is not None and row["remaining"] <= 0
                if expired:
                    await session.fetch("forget_expired_lease", *thread)
                elif row["own"]:
                    if await session.fetch_value("renew_lease", *thread, row["token"], acquire.ttl) is not None:
                        return int(row["token"])
                elif row["token"] is not None or not row["turn"]:
                    break
            if acquire.wait > 0:
                await session.fetch("join_line", *thread, acquire.holder)
            return None

        return await self._database.transact(work, timeout=None)

    async def _until_writers_ended(self) -> None:
        """Waits until the puts that are under way now have ended: they may not have seen the lease."""
        writers = await self._writers()
        while writers:
            await asyncio.sleep(_WRITERS_PAUSE)
            writers &= await self._writers()

    async def _writers(self) -> set[str]:
        rows = await self._database.run(lambda session: session.fetch("writers_under_way"), timeout=None)
        return {row["virtualtransaction"] for row in rows}

    async def _sweep(self, tenant: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_INTERVAL
            await self._database.run(lambda session: session.fetch("sweep_leases", tenant), timeout=None)


async def _await_turn(session: Session, acquire: AcquireLease) -> Row | None:
    return await session.fetch_row("await_turn", acquire.tenant, acquire.thread_id, acquire.holder)


async def make_way(session: Session, tenant: str, thread_id: str, token: int) -> None:
    """After a put that didn't have the token in force: returns if it has now. Raises LeaseHeld, LeaseLost."""
    if token:
        # A lease that wasn't in force once never is again.
        raise LeaseLost(thread_id)
    found = await session.fetch_row("read_lease", tenant, thread_id)
    assert found is not None
    if found["token"] is None:
        return
    if found["remaining"] > 0:
        raise LeaseHeld(thread_id, remaining=found["remaining"])
    await session.fetch("forget_expired_lease", tenant, thread_id)


@asynccontextmanager
async def holding_off_leases(
    session: Session, tenant: str, thread_ids: Iterable[str], leases: Mapping[str, int]
) -> AsyncIterator[None]:
    """Lets a transaction work on whole threads: until it ends, no lease begins or ends there.

    Args:
        session: Its session.
        tenant: Its tenant.
        thread_ids: The threads.
        leases: The leases that its caller holds, token by thread.

    Raises:
        LeaseHeld: Somebody else holds a lease on one of the threads.
        LeaseLost: One of the caller's leases is not in force.
    """
    threads = sorted({*thread_ids, *leases})
    marked: list[str] = []
    found: dict[str, Row] = {}
    open_threads = threads
    for _ in range(_TRIES):
        marked += [row["thread_id"] for row in await session.fetch("hold_off_leases", tenant, open_threads)]
        if len(marked) < len(threads):
            found |= {row["thread_id"]: row for row in await session.fetch("lease_states", tenant, threads)}
        known = {*marked, *found}
        # A lease that kept its thread from being marked may be gone a moment later.
        open_threads = [thread_id for thread_id in threads if thread_id not in known]
        if not open_threads:
            break
    else:
        raise DatabaseUnavailable("leases on these threads come and go; try again")
    in_force = {thread_id: row for thread_id, row in found.items() if row["remaining"] > 0}
    for thread_id, token in leases.items():
        if thread_id not in in_force or in_force[thread_id]["token"] != token:
            raise LeaseLost(thread_id)
    for thread_id, row in in_force.items():
        if thread_id not in leases:
            raise LeaseHeld(thread_id, remaining=row["remaining"])
    yield
    if marked:
        await session.fetch("let_leases_on", tenant, marked)
