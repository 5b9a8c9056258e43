"""Flows: operations of several calls, written once as generators of steps, for a blocking and an awaiting driver.

A flow yields a request, and is sent the response or thrown the error; `ForEach` stands for several requests that
don't depend on each other, `Finish` for one that isn't cancelled, `Pause` for a wait,
`Offload` for work that would block an event loop, `Emit` for a result of an iterator.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from langgraph.checkpoint.grpc._transport.cleanup import run_to_end

Result = TypeVar("Result")
Flow = Generator[Any, Any, Result]
"""Yields steps; returns the result."""
Call = Callable[[Any], Any]
"""Makes the call that belongs to a request's type. Returns the response, raises CheckpointdError."""
AsyncCall = Callable[[Any], Awaitable[Any]]
"""Awaits a `Call`."""

MAX_FOR_EACH = 4
"""Maximum number of a flow's concurrent requests."""


@dataclass(frozen=True, slots=True)
class ForEach:
    """Requests to make concurrently. The flow continues when all are answered, or one has failed."""

    requests: Iterator[Any]
    """The requests, built one by one when needed."""
    take: Callable[[Any, Any], None]
    """Receives a request and its response. Its exceptions end the step."""


@dataclass(frozen=True, slots=True)
class Finish:
    """A request whose response is awaited even if the flow is cancelled: clean-up."""

    request: Any


@dataclass(frozen=True, slots=True)
class Pause:
    """Time to wait before the flow continues."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Offload:
    """Work without calls, run in another thread if it would block an event loop."""

    work: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Emit:
    """A result, for the iterator over the flow. The flow is sent nothing."""

    item: Any


def run(flow: Flow[Result], call: Call) -> Result:
    """Runs a flow, blocking, and returns its result. An interrupted flow may still make calls to clean up."""
    try:
        step = next(flow)
        while True:
            try:
                answer = _done(step, call)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def arun(flow: Flow[Result], call: AsyncCall) -> Result:
    """Awaits `run`. A cancelled flow gets the cancellation, and may still make calls to clean up."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await _adone(step, call)
            except Exception as error:
                step = flow.throw(error)
            except asyncio.CancelledError as cancelled:
                with suppress(StopIteration):
                    step = flow.throw(cancelled)
                    await run_to_end(_unwind(flow, step, call))
                raise
            else:
                step = flow.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def _unwind(flow: Flow[Any], step: Any, call: AsyncCall) -> None:
    """Runs the rest of a flow that was cancelled, from its next step."""
    with suppress(StopIteration, asyncio.CancelledError):
        while True:
            try:
                answer = await _adone(step, call)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)


def iterate(flow: Flow[None], call: Call) -> Iterator[Any]:
    """Yields what a flow emits, blocking."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Emit):
                yield step.item
                step = next(flow)
                continue
            try:
                answer = _done(step, call)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration:
        return
    finally:
        flow.close()


async def aiterate(flow: Flow[None], call: AsyncCall) -> AsyncIterator[Any]:
    """Yields what a flow emits, awaiting."""
    try:
        step = next(flow)
        while True:
            if isinstance(step, Emit):
                yield step.item
                step = next(flow)
                continue
            try:
                answer = await _adone(step, call)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration:
        return
    finally:
        flow.close()


def _done(step: Any, call: Call) -> Any:
    match step:
        case ForEach():
            return _for_each(step, call)
        case Finish():
            return call(step.request)
        case Pause():
            return time.sleep(step.seconds)
        case Offload():
            return step.work()
        case _:
            return call(step)


async def _adone(step: Any, call: AsyncCall) -> Any:
    match step:
        case ForEach():
            return await _afor_each(step, call)
        case Finish():
            return await run_to_end(call(step.request))
        case Pause():
            return await asyncio.sleep(step.seconds)
        case Offload():
            return await asyncio.to_thread(step.work)
        case _:
            return await call(step)


def _for_each(step: ForEach, call: Call) -> None:
    """Makes a step's requests in a few threads, or in this one if there is only one."""
    first = next(step.requests, None)
    second = None if first is None else next(step.requests, None)
    if second is None:
        if first is not None:
            step.take(first, call(first))
        return
    left = [second, first]
    turns, failed = threading.Lock(), threading.Event()

    def work_off() -> None:
        while True:
            with turns:
                request = None if failed.is_set() else left.pop() if left else next(step.requests, None)
            if request is None:
                return
            try:
                response = call(request)
                with turns:
                    step.take(request, response)
            except BaseException:
                failed.set()
                raise

    with ThreadPoolExecutor(MAX_FOR_EACH) as threads:
        # In the caller's context: its token may depend on it.
        done = [threads.submit(copy_context().run, work_off) for _ in range(MAX_FOR_EACH)]
    for end in done:
        end.result()


async def _afor_each(step: ForEach, call: AsyncCall) -> None:
    """Awaits a step's requests, a few at once, or in this task if there is only one."""
    first = next(step.requests, None)
    second = None if first is None else next(step.requests, None)
    if second is None:
        if first is not None:
            step.take(first, await call(first))
        return
    failure: Exception | None = None
    requests = chain((first, second), step.requests)

    async def work_off() -> None:
        for request in requests:
            step.take(request, await call(request))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_FOR_EACH):
                group.create_task(work_off())
    except ExceptionGroup as failures:
        failure = failures.exceptions[0]
    if failure is not None:
        raise failure
