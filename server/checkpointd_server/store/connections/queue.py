"""The queue for database connections: limited in length and time, with tenants taking turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from checkpointd_server.domain.errors import Overloaded
from checkpointd_server.domain.fair_shares import LOOK_SECONDS, RECENT_SECONDS, kept_free, room_for, share

MOST_TENANTS = 10_000
"""Number of tenants above which inactive ones are forgotten."""


class ConnectionQueue:
    """Permits, one per connection, and a bounded queue for them.

    A tenant's calls wait in order of arrival, and waiting tenants take turns: one with a thousand reads delays
    another's by only one read. The limits are shared by the rules of `fair_shares`.

    Args:
        permits: The number of connections.
        limit: The maximum number of waiting calls.
        timeout: The maximum time that each waits, in seconds.
        clock: Returns the time, in seconds.
    """

    def __init__(self, *, permits: int, limit: int, timeout: float, clock: Callable[[], float] = monotonic) -> None:
        self._free = permits
        self.permits = permits
        """The number of connections."""
        self.limit = limit
        """The maximum number of waiting calls."""
        self.timeout = timeout
        """How long each waits, in seconds."""
        self.waiting = 0
        """The number of calls that wait for a permit."""
        self.queued_writes = 0
        """The number of writes that wait for a commit. They have a separate limit of the same size."""
        self.share_refusals = 0
        """The number of calls rejected because the queue was nearly full and their tenant had used its share."""
        self._ahead: deque[asyncio.Future[None]] = deque()
        self._lines: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()
        """The waiting calls by tenant, in the order of the tenants' turns."""
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._sharers = 0
        self._looked_at = -LOOK_SECONDS

    def overloaded(self) -> Overloaded:
        """Returns the error of calls that waited too long."""
        return Overloaded("queue", limit=self.limit)

    async def acquire(self, tenant: str | None = None, *, ahead: float | None = None, again: bool = False) -> None:
        """Waits for a permit, which `release` gives back.

        Args:
            tenant: The tenant. None: the server itself.
            ahead: Waits ahead of all others, for at most this many seconds.
            again: Had a permit before, and may wait even if the queue is full.

        Raises:
            Overloaded: Too many are waiting, or it took too long.
        """
        self._note(tenant)
        if self._free:
            self._free -= 1
            return
        if ahead is None and not again:
            refusal = self._refuse(tenant, held=len(self._lines.get(tenant, ())), total=self.waiting)
            if refusal is not None:
                raise refusal
        permit = asyncio.get_running_loop().create_future()
        line = self._ahead if ahead is not None else self._lines.setdefault(tenant, deque())
        if ahead is None:
            line.append(permit)
        else:
            line.appendleft(permit)
        self.waiting += 1
        try:
            async with asyncio.timeout(self.timeout if ahead is None else ahead) as bound:
                await permit
        except BaseException as error:
            if permit.done() and not permit.cancelled():
                self.release()  # it came at the same moment
            else:
                self._leave(tenant, line, permit)
            if isinstance(error, TimeoutError) and bound.expired():
                raise self.overloaded() from None
            raise

    def release(self) -> None:
        """Gives the permit to the next in the queue."""
        while self.waiting:
            permit = self._next()
            if not permit.done():
                permit.set_result(None)
                return
        self._free += 1

    def room_for_writes(self, tenant: str | None) -> int:
        """Returns how many more writes of a tenant can wait for a commit, whatever its share. Further ones may, too."""
        self._note(tenant)
        return self.limit - kept_free(self.limit) - self.queued_writes

    def refuse_write(self, tenant: str | None, queued: int) -> Overloaded | None:
        """Returns why a tenant's write can't wait for a commit, given how many of its writes wait. None: it can."""
        self._note(tenant)
        return self._refuse(tenant, held=queued, total=self.queued_writes)

    def _note(self, tenant: str | None) -> None:
        """Counts a tenant among those that share the queue."""
        if tenant is not None:
            self._seen[tenant] = self._clock()
            if len(self._seen) > MOST_TENANTS:
                self._forget(self._clock())

    def _next(self) -> asyncio.Future[None]:
        """Removes the next call from the queue."""
        self.waiting -= 1
        if self._ahead:
            return self._ahead.popleft()
        tenant, line = self._lines.popitem(last=False)
        permit = line.popleft()
        if line:
            self._lines[tenant] = line  # behind the other tenants
        return permit

    def _leave(self, tenant: str | None, line: deque[asyncio.Future[None]], permit: asyncio.Future[None]) -> None:
        """Removes a call that no longer waits from the queue."""
        with suppress(ValueError):  # `release` came by
            line.remove(permit)
            self.waiting -= 1
        if not line and self._lines.get(tenant) is line:
            del self._lines[tenant]

    def _refuse(self, tenant: str | None, *, held: int, total: int) -> Overloaded | None:
        """Returns why a tenant with this share of all waiting calls can't wait with one more. None: it can."""
        if total >= self.limit:
            return self.overloaded()
        if tenant is None or total < self.limit - kept_free(self.limit):
            return None
        sharers = self._count_sharers()
        if sharers < 2 or room_for(self.limit, held=held, total=total, sharers=sharers) > 0:
            return None
        self.share_refusals += 1
        return Overloaded("queue", limit=share(self.limit, sharers), is_share=True)

    def _count_sharers(self) -> int:
        """Counts the tenants that called recently, or wait."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._forget(now)
        return self._sharers

    def _forget(self, now: float) -> None:
        """Forgets the tenants that neither called recently nor wait."""
        self._looked_at = now
        self._seen = {
            tenant: at for tenant, at in self._seen.items() if now - at < RECENT_SECONDS or tenant in self._lines
        }
        self._sharers = len(self._seen)
