"""The queue for the database: so many wait at the most, each for so long, and tenants take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from checkpointd_server.domain.errors import Overloaded
from checkpointd_server.domain.fair_shares import LOOK_SECONDS, RECENT_SECONDS, kept_free, room_for, share

MOST_TENANTS = 10_000
"""How many tenants are remembered until those are forgotten that ask no more."""


class ConnectionQueue:
    """Permits, as many as there are connections, and a bounded queue for them.

    Those of a tenant wait in the order of coming, and the tenants that wait take turns: one with a thousand reads holds
    up another's by one read. The bounds are shared as `fair_shares` has it.

    Args:
        permits: How many are at work at once.
        limit: How many may wait at the most.
        timeout: How long each waits, in seconds.
        clock: Returns the time, in seconds.
    """

    def __init__(self, *, permits: int, limit: int, timeout: float, clock: Callable[[], float] = monotonic) -> None:
        self._free = permits
        self.permits = permits
        """How many are at work at once."""
        self.limit = limit
        """How many may wait at the most."""
        self.timeout = timeout
        """How long each waits, in seconds."""
        self.waiting = 0
        """How many wait for a permit."""
        self.queued_writes = 0
        """How many writes wait for a commit. They have a bound of the same size for themselves."""
        self.share_refusals = 0
        """How many were refused since the queue was nearly full, and their tenant had its share."""
        self._ahead: deque[asyncio.Future[None]] = deque()
        self._lines: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()
        """Those who wait, by tenant; the tenant whose turn is next comes first."""
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._sharers = 0
        self._looked_at = -LOOK_SECONDS

    def overloaded(self) -> Overloaded:
        """Returns the refusal of those for whom it takes too long."""
        return Overloaded("queue", limit=self.limit)

    async def acquire(self, tenant: str | None = None, *, ahead: float | None = None, again: bool = False) -> None:
        """Waits for a permit, which `release` gives back.

        Args:
            tenant: Who asks. None: no tenant, but the server itself.
            ahead: Waits before all others, and only for so many seconds.
            again: Had a permit before, and is let in however many wait.

        Raises:
            Overloaded: Too many wait already, or it took too long.
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

    def refuse_write(self, tenant: str | None, queued: int) -> Overloaded | None:
        """Returns why a tenant's write can't wait for a commit, of which so many wait already. None: it can."""
        self._note(tenant)
        return self._refuse(tenant, held=queued, total=self.queued_writes)

    def _note(self, tenant: str | None) -> None:
        """Counts a tenant among those that share the queue."""
        if tenant is not None:
            self._seen[tenant] = self._clock()
            if len(self._seen) > MOST_TENANTS:
                self._forget(self._clock())

    def _next(self) -> asyncio.Future[None]:
        """Takes the next out of the queue."""
        self.waiting -= 1
        if self._ahead:
            return self._ahead.popleft()
        tenant, line = self._lines.popitem(last=False)
        permit = line.popleft()
        if line:
            self._lines[tenant] = line  # behind the other tenants
        return permit

    def _leave(self, tenant: str | None, line: deque[asyncio.Future[None]], permit: asyncio.Future[None]) -> None:
        """Takes somebody out of the queue who waits no more."""
        with suppress(ValueError):  # `release` came by
            line.remove(permit)
            self.waiting -= 1
        if not line and self._lines.get(tenant) is line:
            del self._lines[tenant]

    def _refuse(self, tenant: str | None, *, held: int, total: int) -> Overloaded | None:
        """Returns why one more can't wait of those who hold so many of all that wait. None: it can."""
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
        """Counts the tenants that asked just now, or wait."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._forget(now)
        return self._sharers

    def _forget(self, now: float) -> None:
        """Forgets the tenants that neither asked just now nor wait."""
        self._looked_at = now
        self._seen = {
            tenant: at for tenant, at in self._seen.items() if now - at < RECENT_SECONDS or tenant in self._lines
        }
        self._sharers = len(self._seen)
