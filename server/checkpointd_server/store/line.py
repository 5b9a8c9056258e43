"""Who waits for the database: so many at the most, each for so long, in the order of coming."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from checkpointd_server.domain.errors import Overloaded


class Line:
    """Turns, as many at once as there are connections, and a bounded line before them.

    Args:
        turns: How many have a turn at once.
        limit: How many may wait for one at the most.
        patience: How long each waits, in seconds.
    """

    def __init__(self, *, turns: int, limit: int, patience: float) -> None:
        self._free = turns
        self._limit = limit
        self._patience = patience
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._queued = 0

    @property
    def patience(self) -> float:
        """How long each waits, in seconds."""
        return self._patience

    def overloaded(self) -> Overloaded:
        """The refusal of those for whom it takes too long."""
        return Overloaded("queue", limit=self._limit)

    async def enter(self, *, ahead: float | None = None) -> None:
        """Waits for a turn, which `leave` ends.

        Args:
            ahead: Waits before all others, and only for so many seconds.

        Raises:
            Overloaded: Too many wait already, or it took too long.
        """
        if self._free:
            self._free -= 1
            return
        if ahead is None and len(self._waiting) >= self._limit:
            raise self.overloaded()
        turn = asyncio.get_running_loop().create_future()
        if ahead is None:
            self._waiting.append(turn)
        else:
            self._waiting.appendleft(turn)
        try:
            async with asyncio.timeout(self._patience if ahead is None else ahead) as bound:
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # it came at the same moment
            else:
                with suppress(ValueError):  # `leave` came by
                    self._waiting.remove(turn)
            if isinstance(error, TimeoutError) and bound.expired():
                raise self.overloaded() from None
            raise

    def leave(self) -> None:
        """Gives the turn to the next in line."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    @contextmanager
    def queued(self) -> Iterator[None]:
        """Counts a write that waits to share a commit. Raises Overloaded if too many do already."""
        if self._queued >= self._limit:
            raise self.overloaded()
        self._queued += 1
        try:
            yield
        finally:
            self._queued -= 1
