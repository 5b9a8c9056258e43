"""Activity of tenants: the calls in flight, the slowest of the last minute, and the busiest threads.

Every call and every operation of a pipeline is recorded. So recording takes only a few hundred nanoseconds, and all
collections are bounded.
"""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple, Protocol

WINDOW_SECONDS = 30.0
"""Length of a period in which calls are counted by thread, in seconds. The previous period is kept."""
MOST_THREADS = 2000
"""Maximum number of threads counted in a period."""
KEPT_SECONDS = 60.0
"""How long a slow call is listed, in seconds."""
MOST_SLOW = 20
"""Maximum number of slow calls that are kept."""


class Live(Protocol):
    """A call or an operation in flight."""

    @property
    def method(self) -> str:
        """Its RPC."""

    @property
    def thread_id(self) -> str:
        """Its thread. Empty: it has none."""

    @property
    def started(self) -> float:
        """The time at which it began, on the monotonic clock."""


class Slow(NamedTuple):
    """A call that has ended."""

    seconds: float
    method: str
    thread_id: str
    ended_at: float


class Activity:
    """The activity of one tenant."""

    __slots__ = ("_before", "_begun", "_ended", "_ended_before", "_floor", "_slow", "_threads", "_was_begun", "live")

    def __init__(self) -> None:
        self.live: set[Live] = set()
        """The calls in flight."""
        self._threads: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._ended = self._ended_before = 0
        self._begun = self._was_begun = perf_counter()
        self._slow: list[Slow] = []
        self._floor = 0.0

    def begun(self, call: Live) -> None:
        """Records that a call has begun."""
        self.live.add(call)

    def ended(self, call: Live) -> None:
        """Records that a call is no longer in flight."""
        self.live.discard(call)

    def note(self, call: Live, seconds: float) -> None:
        """Counts a finished call and its duration in seconds."""
        now = call.started + seconds
        if now - self._begun > WINDOW_SECONDS:
            self._turn(now)
        self._ended += 1
        threads, thread_id = self._threads, call.thread_id
        if thread_id and (thread_id in threads or len(threads) < MOST_THREADS):
            threads[thread_id] = threads.get(thread_id, 0) + 1
        if seconds > self._floor:
            self._keep(Slow(seconds, call.method, thread_id, now))

    def _turn(self, now: float) -> None:
        is_next = now - self._begun < 2 * WINDOW_SECONDS
        self._before, self._ended_before = (self._threads, self._ended) if is_next else ({}, 0)
        self._was_begun = self._begun if is_next else now
        self._threads, self._ended, self._begun = {}, 0, now
        self._forget(now)

    def _keep(self, slow: Slow) -> None:
        self._slow.append(slow)
        if len(self._slow) > MOST_SLOW:
            self._forget(slow.ended_at)
            self._slow = sorted(self._slow, reverse=True)[:MOST_SLOW]
            self._floor = self._slow[-1].seconds if len(self._slow) == MOST_SLOW else 0.0

    def _forget(self, now: float) -> None:
        self._slow = [slow for slow in self._slow if now - slow.ended_at < KEPT_SECONDS]
        if len(self._slow) < MOST_SLOW:
            self._floor = 0.0

    def slowest(self, now: float) -> list[Slow]:
        """Returns the slowest calls of the last minute, slowest first."""
        self._forget(now)
        return sorted(self._slow, reverse=True)

    def counts(self, now: float) -> tuple[int, float, dict[str, int]]:
        """Returns how many calls ended, within how many seconds, and how many for each thread."""
        if now - self._begun > WINDOW_SECONDS:
            self._turn(now)
        threads = dict(self._before)
        for thread_id, calls in self._threads.items():
            threads[thread_id] = threads.get(thread_id, 0) + calls
        return self._ended + self._ended_before, max(now - self._was_begun, 0.001), threads
