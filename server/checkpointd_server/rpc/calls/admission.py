"""Admission: limits on calls in flight, and on the bytes of requests and answers.

Beyond a limit, calls are rejected with `Overloaded` at once, if possible before the request is read: until then gRPC
buffers only a stream's window, 256 KiB. The size of a request is known only once it has arrived. So only a few are read
at a time. Small ones arrive quickly, so nobody waits long. One that takes longer no longer counts among the few, and
its size is estimated from its time. If all of these together reach the limit on bytes, the newest are rejected, but
never the oldest: clients on slow connections must be served too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import SystemRandom
from typing import Any

import grpc.aio
import structlog

from checkpointd_server.domain.errors import CheckpointdError, DeadlineExceeded, Overloaded
from checkpointd_server.rpc.calls.malloc_trim import MallocTrim

SWEEP_SECONDS = 0.25
"""Interval of checks on arriving requests, and the time after which one counts as long, in seconds."""
LATE_SECONDS = 0.05
"""How late a check may run, in seconds. If it is later, the event loop was blocked, so arrived requests go first."""
MOST_LATE_LOOKS = 5
"""Maximum number of consecutive checks that are postponed for that."""
READS_AT_ONCE = 8
"""Number of requests that are read at a time, besides long ones."""
TURN_SECONDS = 1.0
"""Maximum time that a call waits until its request is read, in seconds."""
ARRIVING_BYTES_PER_SECOND = 4 * 1024 * 1024
"""Assumed rate of a long request, in bytes per second. gRPC doesn't tell how much has arrived."""
SMALL_ANSWER_BYTES = 16 * 1024
"""Answers up to this size aren't counted, in bytes."""
CALM_SECONDS = 2.0
"""Time without rejections after which the server no longer counts as overloaded, in seconds."""
SHORTEST_HINT = 0.1
"""Minimum time after which a client is asked to retry, in seconds."""
LONGEST_HINT = 5.0
"""Maximum of that time before jitter, in seconds."""


class _IncomingRequest:
    """A request that is being read."""

    __slots__ = ("is_long", "refusal", "since", "task")

    def __init__(self, since: float) -> None:
        self.since = since
        self.task = asyncio.current_task()
        self.refusal: CheckpointdError | None = None
        self.is_long = False

    def refuse(self, error: CheckpointdError) -> None:
        if self.refusal is None and self.task is not None:
            self.refusal = error
            self.task.cancel()


class AdmissionController:
    """Counts calls and bytes, and rejects what exceeds the limits.

    Args:
        calls: The maximum number of calls in flight.
        total_bytes: The maximum size of all requests and answers. A larger message is accepted if there is no other.
        message_bytes: The maximum size of a message.
        timeout: How long a request may take to arrive, in seconds. None: no limit.
        report: Called when the server becomes overloaded, and when it no longer is.
    """

    def __init__(
        self,
        *,
        calls: int,
        total_bytes: int,
        message_bytes: int,
        timeout: float | None,
        report: Callable[[bool], None],
    ) -> None:
        self.max_calls = calls
        """Maximum number of calls in flight."""
        self._total_bytes = total_bytes
        self._message_bytes = message_bytes
        self._timeout = timeout
        self._report = report
        self._held = 0
        self._arrivals: dict[_IncomingRequest, None] = {}
        self._sweeping = False
        self._refusal: CheckpointdError | None = None
        self._reading = 0
        self._turns: deque[asyncio.Future[None]] = deque()
        self._rates = _Rates()
        self._memory = MallocTrim()
        self._overloaded = False
        self._refused_at = 0.0
        self._refused = 0
        self._log = structlog.get_logger("checkpointd.rpc").bind()

    @property
    def held_bytes(self) -> int:
        """The bytes of requests in flight, and of answers being sent."""
        return self._held

    @property
    def max_bytes(self) -> int:
        """The maximum number of bytes of requests and answers."""
        return self._total_bytes

    @property
    def is_overloaded(self) -> bool:
        """True if calls are being rejected, or were until just now."""
        return self._overloaded

    def check(self, calls: int) -> None:
        """Raises Overloaded if there are too many calls, or no room for another byte."""
        if calls > self.max_calls:
            raise Overloaded("calls", limit=self.max_calls)
        self._check_bytes()

    def room(self, calls: int, more: int) -> int:
        """Returns how many of the wanted calls may begin besides those in flight.

        Raises Overloaded if none may, or if there is no room for another byte.
        """
        if more and calls >= self.max_calls:
            raise Overloaded("calls", limit=self.max_calls)
        self._check_bytes()
        return min(more, self.max_calls - calls)

    def _check_bytes(self) -> None:
        if self._held >= self._total_bytes:
            raise Overloaded("bytes", limit=self._total_bytes)

    async def read(self, context: grpc.aio.ServicerContext) -> Any:
        """Reads a call's request. Raises Overloaded or DeadlineExceeded if it takes too long to arrive."""
        loop = asyncio.get_running_loop()
        if self._reading >= READS_AT_ONCE:
            await self._turn(loop)
            if self._refusal is not None:
                raise self._refusal
            self._check_bytes()
        self._reading += 1
        arrival = _IncomingRequest(loop.time())
        self._arrivals[arrival] = None
        if not self._sweeping:
            self._sweeping = True
            self._sweep_in(SWEEP_SECONDS, loop)
        try:
            message = await context.read()
            if message is not grpc.aio.EOF:
                self.was_read(len(message))
            return message
        except asyncio.CancelledError:
            if arrival.refusal is None:
                raise
            assert arrival.task is not None
            arrival.task.uncancel()
            raise arrival.refusal from None
        finally:
            del self._arrivals[arrival]
            if not arrival.is_long:
                self._end_reading()

    def was_read(self, size: int) -> None:
        """Records that a request was read, wherever it came from."""
        self._memory.passed(size)

    async def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Waits until others have been read, for a limited time."""
        turn = loop.create_future()
        self._turns.append(turn)
        timer = loop.call_later(TURN_SECONDS, _wake, turn)
        try:
            await turn
        finally:
            timer.cancel()
            turn.cancel()

    def _end_reading(self) -> None:
        self._reading -= 1
        while self._turns and self._reading < READS_AT_ONCE:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    def refuse_arriving(self, error: CheckpointdError) -> None:
        """Rejects all incomplete requests from now on."""
        self._refusal = error
        for arrival in list(self._arrivals):
            arrival.refuse(error)

    def _sweep_in(self, seconds: float, loop: asyncio.AbstractEventLoop, late_looks: int = 0) -> None:
        loop.call_later(seconds, self._sweep_if_in_time, loop, loop.time() + seconds, late_looks)

    def _sweep_if_in_time(self, loop: asyncio.AbstractEventLoop, due: float, late_looks: int) -> None:
        if loop.time() - due > LATE_SECONDS and late_looks < MOST_LATE_LOOKS:
            self._sweep_in(LATE_SECONDS, loop, late_looks + 1)
        else:
            self._sweep(loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now, room = loop.time(), self._total_bytes
        for arrival in list(self._arrivals):  # the oldest come first
            age = now - arrival.since
            if age < SWEEP_SECONDS:
                break
            if not arrival.is_long:
                arrival.is_long = True
                self._end_reading()
            if self._timeout is not None and age > self._timeout:
                arrival.refuse(DeadlineExceeded(f"the request didn't arrive within {self._timeout:g} s"))
                continue
            estimate = min(int(age * ARRIVING_BYTES_PER_SECOND), self._message_bytes)
            if estimate <= room or room == self._total_bytes:
                room -= estimate
            else:
                arrival.refuse(Overloaded("bytes", limit=self._total_bytes))
        self._sweeping = bool(self._arrivals)
        if self._sweeping:
            self._sweep_in(SWEEP_SECONDS, loop)

    def reserve(self, size: int) -> None:
        """Reserves bytes until `release`. Raises Overloaded if there is no room for them."""
        if self._held and self._held + size > self._total_bytes:
            raise Overloaded("bytes", limit=self._total_bytes)
        self._held += size

    def release(self, size: int) -> None:
        """Frees reserved bytes."""
        self._held -= size

    def take_answer(self, size: int, when_sent: Callable[[Callable[[object], None]], object], *, refuse: bool) -> None:
        """Reserves the bytes of an answer until it has been sent.

        Args:
            size: How large it is, in bytes.
            when_sent: Registers a callback for when it has been sent.
            refuse: Whether it may be rejected, because the call only read.

        Raises:
            Overloaded: There is no room for it, and it may be rejected.
        """
        self._memory.passed(size)
        if refuse:
            self.reserve(size)
        else:
            self._held += size
        when_sent(lambda _: self.release(size))

    def finished(self, calls: int = 1) -> None:
        """Records that calls finished."""
        self._rates.finished(asyncio.get_running_loop().time(), calls)

    def refused(self) -> float:
        """Records that a call was rejected, and returns when to retry, in seconds."""
        loop = asyncio.get_running_loop()
        self._refused_at = loop.time()
        self._refused += 1
        if not self._overloaded:
            self._overloaded = True
            self._log.warning("overloaded: refusing calls", held_bytes=self._held)
            self._report(True)
            loop.call_later(CALM_SECONDS, self._calm_down, loop)
        hint = min(max(self._rates.refused(self._refused_at), SHORTEST_HINT), LONGEST_HINT)
        # Jitter, so that clients don't all retry at the same time.
        return hint * SystemRandom().uniform(0.5, 1.5)

    def _calm_down(self, loop: asyncio.AbstractEventLoop) -> None:
        left = self._refused_at + CALM_SECONDS - loop.time()
        if left > 0:
            loop.call_later(left, self._calm_down, loop)
            return
        self._log.warning("no longer overloaded", refused_calls=self._refused)
        self._overloaded, self._refused = False, 0
        self._report(False)


def _wake(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


class _Rates:
    """The numbers of finished and rejected calls in the last second or two."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._now = [0, 0]
        self._before = [0, 0]

    def finished(self, now: float, calls: int) -> None:
        self._turn(now)
        self._now[0] += calls

    def refused(self, now: float) -> float:
        """Returns how long it takes to serve all rejected calls at the current rate, in seconds."""
        self._turn(now)
        self._now[1] += 1
        finished, refused = (new + old for new, old in zip(self._now, self._before, strict=True))
        return refused / max(finished, 1)

    def _turn(self, now: float) -> None:
        if now - self._begun >= 1.0:
            self._before = self._now if now - self._begun < 2.0 else [0, 0]
            self._now, self._begun = [0, 0], now
