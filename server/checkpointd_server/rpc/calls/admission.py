"""Admission: bounds on the calls at work, and on the bytes of requests and answers.

Past a bound the answer is `Overloaded`, at once. Where a call can be refused before its request is read, it is: what
gRPC buffers until then is a stream's window, 256 KiB. How large a request is turns out only when it is there. So few
are read at once, which holds up nobody, for one that is small is read in no time; one that takes longer lets others go
on and is estimated by its time from then on. Where such ones come to as much as all other bytes may, the last to come
are refused, but never the first: whoever has a slow line must be served as well.
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
"""How often requests that are still arriving are looked after, and from when on one counts as long."""
LATE_SECONDS = 0.05
"""How late a look may come. Later than that the loop stood still, and what has arrived meanwhile is taken in first."""
MOST_LATE_LOOKS = 5
"""How many looks in a row may be put off for that."""
READS_AT_ONCE = 8
"""How many requests are read at once, besides those that take long."""
TURN_SECONDS = 1.0
"""How long a call waits at the most until its request is read."""
ARRIVING_BYTES_PER_SECOND = 4 * 1024 * 1024
"""How fast a long request is assumed to arrive. What one had until then isn't to be learned from gRPC."""
SMALL_ANSWER_BYTES = 16 * 1024
"""Answers up to this size aren't counted: that they are sent is not worth watching."""
CALM_SECONDS = 2.0
"""For how long nothing must have been refused until the server counts as no longer overloaded."""
SHORTEST_HINT = 0.1
"""The least time after which a refused call is asked to come again, in seconds."""
LONGEST_HINT = 5.0
"""The most, before jitter."""


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
    """Counts what the server holds, and tells what is too much.

    Args:
        calls: The most calls at work at once.
        total_bytes: The most bytes of requests and answers at once. A message that is larger is let in alone.
        message_bytes: The largest message.
        patience: How long a request may take to arrive, in seconds. None: no bound.
        report: Told when the server begins and ceases to be overloaded.
    """

    def __init__(
        self,
        *,
        calls: int,
        total_bytes: int,
        message_bytes: int,
        patience: float | None,
        report: Callable[[bool], None],
    ) -> None:
        self.max_calls = calls
        """Maximum number of calls in flight."""
        self._total_bytes = total_bytes
        self._message_bytes = message_bytes
        self._patience = patience
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
        """The bytes of requests that are at work, and of answers that are on their way."""
        return self._held

    @property
    def max_bytes(self) -> int:
        """The most bytes of requests and answers at once."""
        return self._total_bytes

    @property
    def is_overloaded(self) -> bool:
        """True if calls are refused, or were a moment ago."""
        return self._overloaded

    def check(self, calls: int) -> None:
        """Raises Overloaded if so many calls are too many, or there is no room for another byte."""
        if calls > self.max_calls:
            raise Overloaded("calls", limit=self.max_calls)
        self._check_bytes()

    def room(self, calls: int, more: int) -> int:
        """Returns how many more calls may be at work besides those, of as many as are wanted.

        Raises Overloaded if it is none of them, or there is no room for another byte.
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
        """Waits until others have been read, but not for ever."""
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
        """Refuses all requests that aren't wholly there, from now on."""
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
        for arrival in list(self._arrivals):  # those that came first are first
            age = now - arrival.since
            if age < SWEEP_SECONDS:
                break
            if not arrival.is_long:
                arrival.is_long = True
                self._end_reading()
            if self._patience is not None and age > self._patience:
                arrival.refuse(DeadlineExceeded(f"the request didn't arrive within {self._patience:g} s"))
                continue
            estimate = min(int(age * ARRIVING_BYTES_PER_SECOND), self._message_bytes)
            if estimate <= room or room == self._total_bytes:
                room -= estimate
            else:
                arrival.refuse(Overloaded("bytes", limit=self._total_bytes))
        self._sweeping = bool(self._arrivals)
        if self._sweeping:
            self._sweep_in(SWEEP_SECONDS, loop)

    def take(self, size: int) -> None:
        """Counts bytes as held, until `free`. Raises Overloaded if there is no room for them."""
        if self._held and self._held + size > self._total_bytes:
            raise Overloaded("bytes", limit=self._total_bytes)
        self._held += size

    def free(self, size: int) -> None:
        """Counts bytes as no longer held."""
        self._held -= size

    def take_answer(self, size: int, when_sent: Callable[[Callable[[object], None]], object], *, refuse: bool) -> None:
        """Counts an answer as held until it has been sent.

        Args:
            size: How large it is, in bytes.
            when_sent: Takes what is to be called when it has been sent.
            refuse: Whether it may be refused, for nothing was done but to read.

        Raises:
            Overloaded: There is no room for it, and it may be refused.
        """
        self._memory.passed(size)
        if refuse:
            self.take(size)
        else:
            self._held += size
        when_sent(lambda _: self.free(size))

    def finished(self) -> None:
        """Records that a call was done."""
        self._rates.finished(asyncio.get_running_loop().time())

    def refused(self) -> float:
        """Records that a call was refused, and returns after how many seconds it should be sent again."""
        loop = asyncio.get_running_loop()
        self._refused_at = loop.time()
        self._refused += 1
        if not self._overloaded:
            self._overloaded = True
            self._log.warning("overloaded: refusing calls", held_bytes=self._held)
            self._report(True)
            loop.call_later(CALM_SECONDS, self._calm_down, loop)
        hint = min(max(self._rates.refused(self._refused_at), SHORTEST_HINT), LONGEST_HINT)
        # Not all at the same moment.
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
    """The numbers of calls done and refused within the last second or two."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._now = [0, 0]
        self._before = [0, 0]

    def finished(self, now: float) -> None:
        self._turn(now)
        self._now[0] += 1

    def refused(self, now: float) -> float:
        """Returns how long it takes to do all that was refused, at the rate of what is done: as many seconds."""
        self._turn(now)
        self._now[1] += 1
        finished, refused = (new + old for new, old in zip(self._now, self._before, strict=True))
        return refused / max(finished, 1)

    def _turn(self, now: float) -> None:
        if now - self._begun >= 1.0:
            self._before = self._now if now - self._begun < 2.0 else [0, 0]
            self._now, self._begun = [0, 0], now
