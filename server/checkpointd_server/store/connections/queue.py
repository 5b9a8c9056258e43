"""The queue for the database: bounded, first come first served, each waiter with a time of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from checkpointd_server.domain.errors import Overloaded


class ConnectionQueue:
    """Permits, as many as there are connections, and a bounded queue for them.

    Args:
        permits: How many are at work at once.
        limit: How many may wait at the most.
        timeout: How long each waits, in seconds.
    """

    def __init__(self, *, permits: int, limit: int, timeout: float) -> None:
        self._free = permits
        self.permits = permits
        """How many are at work at once."""
        self.limit = limit
        """How many may wait at the most."""
        self.timeout = timeout
        """How long each waits, in seconds."""
        self.queued_writes = 0
        """How many writes wait for a commit. They have a bound of the same size for themselves."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """The number of those who wait for a permit."""
        return len(self._waiting)

    def overloaded(self) -> Overloaded:
        """Returns the refusal of those for whom it takes too long."""
        return Overloaded("queue", limit=self.limit)

    async def acquire(self, *, ahead: float | None = None, again: bool = False) -> None:
        """Waits for a permit, which `release` gives back.

        Args:
            ahead: Waits before all others, and only for so many seconds.
            again: Had a permit before, and is let in however many wait.

        Raises:
            Overloaded: Too many wait already, or it took too long.
        """
        if self._free:
            self._free -= 1
            return
        if ahead is None and not again and len(self._waiting) >= self.limit:
            raise self.overloaded()
        permit = asyncio.get_running_loop().create_future()
        if ahead is None:
            self._waiting.append(permit)
        else:
            self._waiting.appendleft(permit)
        try:
            async with asyncio.timeout(self.timeout if ahead is None else ahead) as bound:
                await permit
        except BaseException as error:
            if permit.done() and not permit.cancelled():
                self.release()  # it came at the same moment
            else:
                with suppress(ValueError):  # `release` came by
                    self._waiting.remove(permit)
            if isinstance(error, TimeoutError) and bound.expired():
                raise self.overloaded() from None
            raise

    def release(self) -> None:
        """Gives the permit to the next in the queue."""
        while self._waiting:
            permit = self._waiting.popleft()
            if not permit.done():
                permit.set_result(None)
                return
        self._free += 1
