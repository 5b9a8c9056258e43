"""Scaling of the savers: over agents, size of a state, length of a thread, and server processes."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from string import ascii_lowercase
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from tests.bench.agents import Runtime, checkpoint_of, message
from tests.bench.case import SAVERS, Case, Curve, MeasurePoint, Pace
from tests.bench.comparisons import throughput
from tests.bench.environment import Environment
from tests.bench.savers import Kind, open_async
from tests.bench.threads import thread_of, time_reads

MOST_BYTES = 100_000_000
"""Maximum number of bytes written for one figure, except that there are at least three puts."""


def cases() -> list[Case]:
    """The curves."""
    return [
        Curve(
            name="scaling-agents",
            title="Agents at once, in up to 4 processes",
            axis="agents",
            unit="calls/s",
            points=lambda pace: pace.agents,
            start=_agents,
        ),
        Curve(
            name="scaling-state",
            title="Size of the state: one put of a chat and one read of it",
            axis="bytes",
            unit="ms",
            points=lambda pace: pace.state_bytes,
            start=_state,
        ),
        Curve(
            name="scaling-history",
            title="Length of the thread: reading the latest checkpoint",
            axis="checkpoints",
            unit="ms",
            points=lambda pace: pace.history,
            start=_history,
            logarithmic=False,
        ),
        Curve(
            name="scaling-workers",
            title="Server processes (--workers): 4 processes x 8 async agents",
            axis="server workers",
            unit="calls/s",
            points=lambda pace: pace.workers,
            start=_workers,
            logarithmic=False,
        ),
    ]


@contextmanager
def _agents(environment: Environment, pace: Pace) -> Iterator[MeasurePoint]:
    def measure(kind: Kind, agents: int) -> float:
        processes = min(pace.most_processes, agents)
        return throughput(
            kind, environment.address(kind), processes=processes, agents=agents // processes, seconds=pace.seconds
        )

    yield measure


@contextmanager
def _workers(environment: Environment, pace: Pace) -> Iterator[MeasurePoint]:
    with ExitStack() as stack:
        servers = {count: stack.enter_context(environment.serving("--workers", str(count))) for count in pace.workers}

        def measure(kind: Kind, count: int) -> float:
            address = servers[count].target if kind == "checkpointd" else environment.address(kind)
            return throughput(kind, address, processes=pace.most_processes, agents=8, seconds=pace.seconds)

        yield measure


@contextmanager
def _history(environment: Environment, pace: Pace) -> Iterator[MeasurePoint]:
    async def make(kind: Kind) -> dict[int, RunnableConfig]:
        async with open_async(kind, environment.address(kind), pool_size=1) as saver:
            return {length: await thread_of(saver, length) for length in pace.history}

    threads = {kind: asyncio.run(make(kind)) for kind in SAVERS}

    async def read(kind: Kind, length: int) -> float:
        async with open_async(kind, environment.address(kind), pool_size=1) as saver:
            one = {length: threads[kind][length]}
            await time_reads(saver, one, pace.warm_up)
            return (await time_reads(saver, one, pace.runs * 4))[length]

    yield lambda kind, length: asyncio.run(read(kind, length))


@contextmanager
def _state(environment: Environment, pace: Pace) -> Iterator[MeasurePoint]:
    async def measure(kind: Kind, size: int) -> float:
        async with open_async(kind, environment.address(kind), pool_size=1) as saver:
            return await _put_and_read(saver, size, pace)

    yield lambda kind, size: asyncio.run(measure(kind, size))


async def _put_and_read(saver: BaseCheckpointSaver[Any], size: int, pace: Pace) -> float:
    """Measures a put and a read, in milliseconds, of a chat with this many bytes of text and a changed last message."""
    state = _chat_of(size)
    thread_id = str(uuid.uuid4())
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    version: str | None = None
    times = []
    for number in range(min(pace.warm_up, 3) + max(3, min(pace.runs, MOST_BYTES // size))):
        state[-1] = message(number)
        version = saver.get_next_version(version, None)
        checkpoint = checkpoint_of({"messages": list(state)})
        checkpoint["channel_versions"] = {"messages": version}
        # Each turn is a separate run, as for an agent that serves requests.
        run: RunnableConfig = {"configurable": {**config["configurable"], "__pregel_runtime": Runtime()}}
        started = time.perf_counter()
        put = await saver.aput(run, checkpoint, {"step": number}, checkpoint["channel_versions"])
        found = await saver.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
        times.append(time.perf_counter() - started)
        assert found is not None
        assert found.checkpoint["id"] == checkpoint["id"]
        config = put
    await saver.adelete_thread(thread_id)
    return statistics.median(times[min(pace.warm_up, 3) :]) * 1000


def _chat_of(size: int) -> list[AnyMessage]:
    """Returns messages with this many bytes of text in total, of random words: they compress about as well as text."""
    random = Random(7)
    words = ["".join(random.choices(ascii_lowercase, k=random.randint(2, 9))) for _ in range(2000)]
    chat: list[AnyMessage] = []
    while size > 0:
        text = " ".join(random.choices(words, k=120))[: min(size, 600)]
        chat.append((HumanMessage if len(chat) % 2 else AIMessage)(text, id=str(uuid.uuid4())))
        size -= len(text)
    return chat
