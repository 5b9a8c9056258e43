"""A run that is stopped, and the next one sent at once: nothing of either is lost, and no false conflict is raised.

A chat whose user presses stop and sends another message: the stream is cancelled or left while its saves are in
flight, and the next run reads the thread behind them.
"""

from __future__ import annotations

import asyncio
import operator
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import anyio
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from tests.support.runs import a_run, at, holding
from tests.support.server_process import ServerProcess

TRIES = 25
"""How often a run is stopped, each time a little later."""


class Chat(TypedDict):
    """The conversation."""

    said: Annotated[list[str], operator.add]


def chat(saver: BaseCheckpointSaver[Any]) -> Any:
    """Two nodes that answer, each in a step of its own."""

    async def first(state: Chat) -> Chat:
        await asyncio.sleep(0)
        return {"said": ["one"]}

    async def second(state: Chat) -> Chat:
        await asyncio.sleep(0)
        return {"said": ["two"]}

    builder = StateGraph(Chat)
    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver)


def new_thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


@pytest.fixture(params=["one saver", "two savers"])
async def savers(request: pytest.FixtureRequest, shared_server: ServerProcess) -> AsyncIterator[tuple[GrpcSaver, ...]]:
    """The saver that is stopped, and the one that gets the next message: the same one, or one as in another process."""
    async with GrpcSaver(shared_server.target) as one, GrpcSaver(shared_server.target) as other:
        yield (one, one) if request.param == "one saver" else (one, other)


async def broken_off_by_cancelling(graph: Any, message: str, thread: RunnableConfig, pause: float) -> None:
    """Cancels a run after a while, as asyncio does."""
    run = asyncio.ensure_future(graph.ainvoke({"said": [message]}, thread))
    await asyncio.sleep(pause)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run


async def broken_off_by_a_scope(graph: Any, message: str, thread: RunnableConfig, pause: float) -> None:
    """Cancels a run as Starlette does when a client disconnects: at every await, until it has ended."""
    with anyio.move_on_after(pause):
        await graph.ainvoke({"said": [message]}, thread)


async def broken_off_by_leaving(graph: Any, message: str, thread: RunnableConfig, pause: float) -> None:
    """Leaves a stream after its first event."""
    stream = graph.astream({"said": [message]}, thread, stream_mode="updates")
    async for _ in stream:
        break
    await stream.aclose()


@pytest.mark.parametrize("break_off", [broken_off_by_cancelling, broken_off_by_a_scope, broken_off_by_leaving])
async def test_the_message_sent_after_a_stop_is_there(savers: tuple[GrpcSaver, ...], break_off: Any) -> None:
    stopped, next_one = (chat(saver) for saver in savers)
    same = savers[0] is savers[1]
    for number in range(TRIES):
        thread = new_thread()
        await stopped.ainvoke({"said": ["hello"]}, thread)
        await break_off(stopped, "stop", thread, number * 0.001)
        if not same:
            # Another process knows nothing of what is in flight here. Do as a user would: try again.
            for _ in range(5):
                with suppress(Exception):
                    await next_one.ainvoke({"said": ["next"]}, thread)
                    break
        else:
            await next_one.ainvoke({"said": ["next"]}, thread)
        async with GrpcSaver(savers[0].options.target) as other:
            said = (await chat(other).aget_state(thread)).values["said"]
        assert said[:3] == ["hello", "one", "two"], number
        assert said[-3:] == ["next", "one", "two"], number


async def test_a_cancelled_put_is_not_stored_behind_a_later_read(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver, GrpcSaver(shared_server.target) as other:
        for number in range(TRIES):
            thread: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}
            run = a_run(thread)
            await saver.aget_tuple(run)
            first = holding(1, "1")
            await saver.aput(run, first, {}, {"a": "1"})
            second = holding(2, "2")
            put = asyncio.ensure_future(saver.aput(at(run, first), second, {}, {"a": "2"}))
            await asyncio.sleep(number * 0.0002)
            put.cancel()
            with suppress(asyncio.CancelledError):
                await put
            read = await saver.aget_tuple(a_run(thread))
            assert read is not None
            await asyncio.sleep(0.05)
            after = await other.aget_tuple(thread)
            assert after is not None
            assert after.checkpoint["id"] == read.checkpoint["id"], number


async def test_a_run_that_breaks_off_at_an_interrupt_is_resumed_at_once(shared_server: ServerProcess) -> None:
    async def ask(state: Chat) -> Chat:
        return {"said": [interrupt("yes?")]}

    builder = StateGraph(Chat)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    async with GrpcSaver(shared_server.target) as saver:
        graph = builder.compile(checkpointer=saver)
        for number in range(TRIES):
            thread = new_thread()
            async for event in graph.astream({"said": ["hello"]}, thread, stream_mode="updates"):
                if "__interrupt__" in event:
                    break
            result = await graph.ainvoke(Command(resume=f"yes {number}"), thread)
            assert result["said"] == ["hello", f"yes {number}"]
