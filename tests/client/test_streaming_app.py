"""An app that streams, as in docs/streaming.md: what a disconnect leaves, with Starlette's own cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from langgraph.checkpoint.grpc import GrpcSaver, LeaseHeldError
from langgraph.graph import START, MessagesState, StateGraph
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.calls import config_of
from tests.support.server_process import ServerProcess

TTL = 600.0


class Stream(StreamingResponse):
    """Closes its iterator however the response ends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().__call__(scope, receive, send)


def app_on(saver: GrpcSaver, hold: asyncio.Event) -> Starlette:
    async def first(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", "first")]}

    async def second(state: MessagesState) -> dict[str, Any]:
        await hold.wait()
        return {"messages": [("ai", "second")]}

    builder = StateGraph(MessagesState).add_node(first).add_node(second)
    graph: Any = builder.add_edge(START, "first").add_edge("first", "second").compile(checkpointer=saver)

    async def events(thread_id: str) -> AsyncIterator[str]:
        async with saver.alease(thread_id, ttl=TTL, wait=5):
            yield ": ready\n\n"
            state = await graph.aget_state(config_of(thread_id))
            question = None if state.next else {"messages": [("human", "hi")]}
            async for chunk in graph.astream(question, config_of(thread_id), stream_mode="updates", durability="sync"):
                yield f"data: {json.dumps(list(chunk))}\n\n"

    async def chat(request: Request) -> Response:
        stream = events(request.path_params["thread_id"])
        try:
            await anext(stream)
        except LeaseHeldError:
            return JSONResponse({}, status_code=409)
        return Stream(stream, media_type="text/event-stream")

    return Starlette(routes=[Route("/{thread_id}", chat)])


async def request(app: Starlette, thread_id: str, *, leave_after: int | None = None) -> tuple[int, list[str]]:
    """Sends a request to an app, and disconnects after so many events. Returns the status and the events."""
    heard: list[str] = []
    statuses: list[int] = []
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])
        if message.get("body"):
            heard.append(message["body"].decode())
            if len(heard) == leave_after:
                gone.set()

    scope = {"type": "http", "method": "GET", "path": f"/{thread_id}", "headers": [], "query_string": b""}
    # In a task of its own, as servers do it.
    await asyncio.create_task(
        app({**scope, "asgi": {"spec_version": "2.3"}}, receive, send), context=contextvars.Context()
    )
    return statuses[0], heard


async def test_who_comes_back_goes_on_where_the_stream_broke_off(shared_server: ServerProcess, thread_id: str) -> None:
    hold = asyncio.Event()
    async with GrpcSaver(shared_server.target) as saver:
        app = app_on(saver, hold)
        assert await request(app, thread_id, leave_after=1) == (200, ['data: ["first"]\n\n'])
        hold.set()
        # The lease is free, and the first step is stored: it isn't run again.
        assert await request(app, thread_id) == (200, ['data: ["second"]\n\n'])
        found = await saver.aget_tuple(config_of(thread_id))
        assert found is not None
        assert [m.content for m in found.checkpoint["channel_values"]["messages"]] == ["hi", "first", "second"]


async def test_who_comes_meanwhile_is_told_before_the_first_event(shared_server: ServerProcess, thread_id: str) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        app = app_on(saver, asyncio.Event())
        async with saver.alease(thread_id):
            status, _ = await request(app, thread_id)
        assert status == 409
