"""Flows: a blocking and an awaiting driver do the same, and close what they began."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._transport.flows import MAX_FOR_EACH, Emit, Finish, Flow, ForEach, Offload, Pause

TOKEN: ContextVar[str] = ContextVar("TOKEN")


class Caller:
    """Doubles numbers, raises the errors that it is given, and records how many calls are concurrent."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.tokens: set[str] = set()
        self._lock = threading.Lock()

    def call(self, request: Any) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.tokens.add(TOKEN.get(""))
        time.sleep(0.005)
        with self._lock:
            self.now -= 1
        if isinstance(request, Exception):
            raise request
        return request * 2

    async def acall(self, request: Any) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.005)
        finally:
            self.now -= 1
        if isinstance(request, Exception):
            raise request
        return request * 2


Run = Callable[[Flow[Any], Caller], Any]


def blocking(flow: Flow[Any], caller: Caller) -> Any:
    return flows.run(flow, caller.call)


def awaiting(flow: Flow[Any], caller: Caller) -> Any:
    return asyncio.run(flows.arun(flow, caller.acall))


drivers = pytest.mark.parametrize("run", [blocking, awaiting])


@drivers
def test_a_flow_is_sent_answers_and_thrown_errors(run: Run) -> None:
    def flow() -> Flow[Any]:
        found = [(yield 1), (yield 2)]
        try:
            yield ValueError("no")
        except ValueError as error:
            found.append(str(error))
        found.append((yield Offload(lambda: "worked")))
        return found

    assert run(flow(), Caller()) == [2, 4, "no", "worked"]


@drivers
def test_what_a_flow_does_not_catch_is_raised_and_ends_it(run: Run) -> None:
    ended = []

    def flow() -> Flow[None]:
        try:
            yield KeyError("who knows")
        finally:
            ended.append(True)

    with pytest.raises(KeyError):
        run(flow(), Caller())

    def working() -> Flow[None]:
        yield Offload(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        run(working(), Caller())
    assert ended == [True]


@drivers
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_requests_side_by_side_are_all_made_and_a_few_at_once(run: Run, count: int) -> None:
    taken: dict[int, int] = {}
    making = threading.Lock()

    def requests() -> Iterator[int]:
        for number in range(count):
            assert making.acquire(blocking=False), "two are made at once"
            making.release()
            yield number

    def flow() -> Flow[str]:
        yield ForEach(requests(), taken.__setitem__)
        return "done"

    caller = Caller()
    assert run(flow(), caller) == "done"
    assert taken == {number: 2 * number for number in range(count)}
    assert caller.most <= MAX_FOR_EACH
    assert count < 50 or caller.most == MAX_FOR_EACH


@drivers
@pytest.mark.parametrize("fails", ["the call", "the taker", "the maker"])
def test_one_failure_ends_all_of_them(run: Run, fails: str) -> None:
    made = []

    def requests() -> Iterator[Any]:
        for number in range(10_000):
            made.append(number)
            if number == 7 and fails == "the maker":
                raise ConnectionError("7")
            yield ConnectionError("7") if number == 7 and fails == "the call" else number

    def take(request: int, response: int) -> None:
        if request == 7:
            raise ConnectionError("7")

    def flow() -> Flow[None]:
        yield ForEach(requests(), take)

    caller = Caller()
    with pytest.raises(ConnectionError, match="7"):
        run(flow(), caller)
    assert caller.now == 0
    assert len(made) < 100


def test_threads_have_the_caller_s_context() -> None:
    """A caller's token may depend on the context."""

    def flow() -> Flow[None]:
        yield ForEach(iter(range(20)), lambda request, response: None)

    caller = Caller()
    TOKEN.set("mine")
    flows.run(flow(), caller.call)
    assert caller.tokens == {"mine"}


def pages(ended: list[bool]) -> Flow[None]:
    try:
        for number in range(3):
            answer = yield number
            yield Emit(answer)
        yield LookupError("no more")
    finally:
        ended.append(True)


def test_an_interrupted_flow_cleans_up() -> None:
    cleaned = []

    def flow() -> Flow[None]:
        try:
            yield 1
        except KeyboardInterrupt:
            cleaned.append((yield 2))
            raise

    def call(request: int) -> int:
        if request == 1:
            raise KeyboardInterrupt
        return request

    with pytest.raises(KeyboardInterrupt):
        flows.run(flow(), call)
    assert cleaned == [2]


async def test_a_cancelled_flow_cleans_up_however_often_it_is_cancelled() -> None:
    cleaned = []

    def flow() -> Flow[None]:
        try:
            yield 1
        except asyncio.CancelledError:
            yield Pause(0.05)
            cleaned.append((yield Finish(2)))
            raise

    async def call(request: int) -> int:
        await asyncio.sleep(60 if request == 1 else 0.05)
        return request

    task = asyncio.ensure_future(flows.arun(flow(), call))
    for _ in range(10):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [2]


async def test_a_request_to_finish_is_not_cut_off() -> None:
    done = []

    def flow() -> Flow[None]:
        yield Finish(1)

    async def call(request: int) -> None:
        await asyncio.sleep(0.05)
        done.append(request)

    task = asyncio.ensure_future(flows.arun(flow(), call))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


def test_an_iterator_yields_what_is_emitted() -> None:
    ended: list[bool] = []
    found = flows.iterate(pages(ended), Caller().call)
    assert [next(found), next(found), next(found)] == [0, 2, 4]
    with pytest.raises(LookupError):
        next(found)
    left = flows.iterate(pages(ended), Caller().call)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert ended == [True, True]


async def test_an_async_iterator_yields_what_is_emitted() -> None:
    ended: list[bool] = []
    found = flows.aiterate(pages(ended), Caller().acall)
    assert [await anext(found), await anext(found), await anext(found)] == [0, 2, 4]
    with pytest.raises(LookupError):
        await anext(found)
    left = flows.aiterate(pages(ended), Caller().acall)
    await anext(left)
    await left.aclose()  # type: ignore[attr-defined]
    assert ended == [True, True]


async def test_a_cancelled_flow_ends() -> None:
    ended: list[bool] = []

    def flow() -> Flow[None]:
        try:
            yield ForEach(iter(range(10_000)), lambda request, response: None)
        finally:
            ended.append(True)

    caller = Caller()
    task = asyncio.create_task(flows.arun(flow(), caller.acall))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
    assert caller.now == 0
