"""Calls that stay open, over which batches go to the server: a message costs both sides less than a call.

A call is kept for each token that is in use, and changed for a new one after a while, so that load spreads again when
servers come and go. What a call can't do goes in calls of its own, and so does all else until calls are allowed to stay
open: only where somebody closes them before the event loop ends.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from functools import partial
from random import SystemRandom
from typing import Any

from langgraph.checkpoint.grpc.forks import has_ended, was_ended

import grpc
import grpc.aio
from checkpointd.v1 import checkpoint_service_pb2 as pb

Answer = asyncio.Future[pb.StreamBatchesResponse]
Metadata = tuple[tuple[str, str], ...]

LIFETIME = 30.0
"""For how long a call is used at the most, in seconds, and kept where nobody uses it."""
PATIENCE = 10.0
"""After how long a call of which the server has told nothing counts as one that is held up on the way, in seconds: or
after half a message's time."""
REST_OF_SILENT = 300.0
"""For how long no other is tried after such a one, in seconds."""
MOST_UNANSWERED = 8
"""How many messages of a call may wait for their answers. The server reads on only up to a number of them: what waits
for locks must hold up neither others nor what gives it up."""
END_SECONDS = 1.0
"""How long to wait at the most until grpc is done with a call that was ended, in seconds."""
MOST = 16
"""How many calls are open at once. Who uses more tokens than that is served without."""


class Forked(Exception):
    """The call was ended since the process forks. The server hasn't failed."""


class Broken(Exception):
    """The call has ended, and nothing tells how: a call of one's own will."""


class Silent(Exception):
    """The server has told nothing of the call: a proxy may hold back what isn't finished."""


class Streams:
    """The open calls of one event loop.

    Args:
        method: Opens a call of StreamBatches.
    """

    def __init__(self, method: Any) -> None:
        self._method = method
        self._open: dict[Metadata, Stream] = {}
        self._old: list[Stream] = []
        self._shut_until = math.inf

    def allow(self) -> None:
        """Lets calls stay open, until `close`."""
        self._shut_until = 0.0

    async def close(self, *, give_up: bool) -> None:
        """Ends all calls, and opens no more.

        Args:
            give_up: Whether to cancel what is under way on them. Otherwise it is awaited.
        """
        self._shut_until = math.inf
        streams = [*self._open.values(), *self._old]
        self._open.clear()
        await asyncio.gather(*(stream.end(give_up=give_up) for stream in streams))

    def get(self, metadata: Metadata) -> Stream | None:
        """Returns a call that goes under this metadata. None: there is none to be had."""
        now = asyncio.get_running_loop().time()
        if now < self._shut_until:
            return None
        stream = self._open.get(metadata)
        if stream is not None and stream.is_open and now < stream.until:
            return None if stream.is_full else stream
        for old in [known for known, stream in self._open.items() if now >= stream.until or not stream.is_open]:
            self.leave(old)
        if len(self._open) >= MOST:
            return None
        # Not all clients of a server that has restarted at the same moment.
        lifetime = LIFETIME * SystemRandom().uniform(0.75, 1.0)
        stream = self._open[metadata] = Stream(self._method(metadata=metadata), now + lifetime)
        stream.timer = asyncio.get_running_loop().call_later(lifetime, self._is_over, metadata, stream)
        return stream

    def leave(self, metadata: Metadata) -> None:
        """Uses another call from now on: where there are several servers, it may be another one's."""
        stream = self._open.pop(metadata, None)
        if stream is not None:
            self._old = [old for old in self._old if old.is_open]
            self._old.append(stream)
            stream.retire()

    def _is_over(self, metadata: Metadata, stream: Stream) -> None:
        if self._open.get(metadata) is stream:
            self.leave(metadata)

    def must_do_without(self, error: BaseException | None) -> bool:
        """Whether what should have gone over a call has to go without one: there is none any more, for a while."""
        if isinstance(error, Forked | Broken):
            return True
        code = error.code() if isinstance(error, grpc.RpcError) else None
        if isinstance(error, Silent):
            rest = REST_OF_SILENT
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            rest = math.inf
        elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            rest = LIFETIME
        else:
            return False
        # Not sooner than before: they may have been closed.
        self._shut_until = max(self._shut_until, asyncio.get_running_loop().time() + rest)
        return True


class Stream:
    """An open call. What writes and reads lives only as long as there is something to write, or an answer to come.

    Args:
        call: The call.
        until: Until when to use it, on the event loop's clock.
    """

    def __init__(self, call: Any, until: float) -> None:
        self.until = until
        self.timer: asyncio.TimerHandle | None = None
        """What retires the call then, if it is idle."""
        self._call = call
        self._last_id = 0
        self._outbox: deque[pb.StreamBatchesRequest] = deque()
        self._answers: dict[int, Answer] = {}
        self._writer: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._retired = False
        self._goes_through = False

    @property
    def is_open(self) -> bool:
        """Whether the call hasn't ended yet, as far as is known."""
        return not self._call.done()

    @property
    def is_full(self) -> bool:
        """Whether so much waits for an answer that nothing more should go over the call."""
        return len(self._answers) >= MOST_UNANSWERED

    def send(self, request: pb.StreamBatchesRequest, timeout: float) -> Answer:
        """Sends a message, and returns its answer to come. If that is cancelled, the server is told.

        Args:
            request: The message, without an id.
            timeout: How long it may take, in seconds.
        """
        loop = asyncio.get_running_loop()
        self._last_id += 1
        number = request.id = self._last_id
        request.timeout_ms = max(int(timeout * 1000), 1)
        answer: Answer = loop.create_future()
        self._answers[number] = answer
        patience = timeout if self._goes_through else min(timeout / 2, PATIENCE)
        timer = loop.call_later(patience, self._time_out, answer, timeout - patience)
        answer.add_done_callback(partial(self._settled, number, timer))
        self._write_soon(request)
        self._read_on()
        return answer

    def retire(self) -> None:
        """Lets the call end when all is answered."""
        self._retired = True
        if self.timer is not None:
            self.timer.cancel()
        if self.is_open:
            self._write_soon()
            self._read_on()

    async def end(self, *, give_up: bool) -> None:
        """Ends the call, and waits until grpc is done with it.

        Not by cancelling the call: grpc takes that for its end, and what it still has to say comes when nobody listens.

        Args:
            give_up: Whether to cancel what is under way on it. Otherwise it is awaited.
        """
        self.retire()
        if not self.is_open:
            return
        if give_up:
            for answer in list(self._answers.values()):
                answer.cancel()
        elif self._answers:
            await asyncio.wait(list(self._answers.values()))
        if self._reader is not None:
            _, reading = await asyncio.wait({self._reader}, timeout=END_SECONDS)
            if reading:
                self._call.cancel()

    def _settled(self, number: int, timer: asyncio.TimerHandle, _: Answer) -> None:
        timer.cancel()
        unanswered = self._answers.pop(number, None) is not None
        if not self.is_open:
            return
        if unanswered:  # and nobody waits for it any more
            self._write_soon(pb.StreamBatchesRequest(id=number, cancel=True))
        elif self._retired and not self._answers:
            self._write_soon()

    def _time_out(self, answer: Answer, left: float) -> None:
        if answer.done():
            return
        if not left:
            answer.set_exception(_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        elif self._goes_through:
            asyncio.get_running_loop().call_later(left, self._time_out, answer, 0.0)
        else:
            answer.set_exception(Silent())

    def _write_soon(self, *requests: pb.StreamBatchesRequest) -> None:
        self._outbox.extend(requests)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._outbox:
                await self._call.write(self._outbox.popleft())
            if self._retired and not self._answers:  # until then there may be something to give up
                await self._call.done_writing()
        except asyncio.InvalidStateError:  # it has ended
            self._fail(_as_ended(await self._end()))
        except Exception as error:
            self._fail(_as_ended(error))
        finally:
            self._writer = None

    def _read_on(self) -> None:
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            if not self._goes_through:
                await self._call.initial_metadata()
                self._goes_through = True
            while self._answers or self._retired:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    raise await self._end()
                answer = self._answers.pop(response.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(response)
        except asyncio.CancelledError:
            if was_ended(self._call):
                self._fail(Forked())
                return
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # what is on the way has cancelled the call
                self._fail(Broken())
                return
            for answer in list(self._answers.values()):
                answer.cancel()
            raise
        except Exception as error:
            self._fail(_as_ended(error))
        finally:
            self._reader = None

    def _fail(self, error: Exception) -> None:
        """Tells all who wait for an answer why there is none."""
        if has_ended(self._call):  # however that shows
            error = Forked()
        answers, self._answers = self._answers, {}
        self._outbox.clear()
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(error)

    async def _end(self) -> grpc.aio.AioRpcError:
        """Returns how the call has ended, as an error."""
        code, details = await self._call.code(), await self._call.details()
        if code is grpc.StatusCode.OK:
            return _error(grpc.StatusCode.UNAVAILABLE, "the server has ended the call")
        return _error(code, details, await self._call.trailing_metadata())


def _as_ended(error: Exception) -> Exception:
    """Returns why a call has ended. INTERNAL is what grpc.aio makes of the end of a call that it is just writing to."""
    internal = isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.INTERNAL
    return Broken() if internal else error


def _error(code: grpc.StatusCode, details: str, trailers: Any = None) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, trailers or nothing, details)
