"""Delays of a put while the sweeper trims its thread: one thread, one agent, one server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from checkpointd.v1 import retention_service_pb2 as pb
from checkpointd.v1 import retention_service_pb2_grpc as pb_grpc
from tests.bench.agents import checkpoint_of
from tests.bench.case import Case, Fact, Facts, Pace
from tests.bench.environment import Environment
from tests.bench.savers import open_async
from tests.bench.threads import thread_of

LIMITS: dict[str, dict[str, Any]] = {
    "keeps the newest": {"keep_newest": 1},
    "keeps the newest half": {},
    "keeps bytes": {"max_bytes": 2_000},
}


def cases() -> list[Case]:
    """Returns the cases below the main table."""
    return [Facts(name="retention", title="puts beside the sweeper", tell=_retention)]


def _retention(environment: Environment, pace: Pace) -> list[Fact]:
    # The sweeper must not run by itself before it is called.
    with environment.serving("--retention-interval", "0") as server:
        return asyncio.run(_measure(server.target, pace))


async def _measure(address: str, pace: Pace) -> list[Fact]:
    length = pace.history[-1]
    longest: dict[str, list[float]] = {name: [] for name in ("nothing", *LIMITS)}
    async with open_async("checkpointd", address, pool_size=1) as saver, grpc.aio.insecure_channel(address) as channel:
        retention: Any = pb_grpc.RetentionServiceStub(channel)
        for _ in range(pace.rounds):
            for name, limits in LIMITS.items():
                thread = await thread_of(saver, length)
                waits, sweep = await _put_beside(saver, thread, length, lambda: asyncio.sleep(pace.seconds / 5))
                longest["nothing"].append(max(waits))
                policy = pb.RetentionPolicy(
                    name="bench",
                    thread_id_prefix=thread["configurable"]["thread_id"],
                    **(limits or {"keep_newest": length // 2}),
                )
                await retention.SetPolicy(pb.SetPolicyRequest(policy=policy))
                waits, sweep = await _put_beside(saver, thread, 2 * length, lambda: _sweep(retention))
                assert any(effect.checkpoints for effect in sweep)
                longest[name].append(max(waits))
                await retention.DeletePolicy(pb.DeletePolicyRequest(name="bench"))
    return [
        Fact(
            title=f"longest wait of a put while a policy that {name} trims its thread of {length:,} checkpoints",
            value=max(longest[name]),
            target=50,
            unit="ms",
            digits=1,
            beside=f"{max(longest['nothing']):.1f} ms with nothing else to do",
        )
        for name in LIMITS
    ]


async def _put_beside(
    saver: BaseCheckpointSaver[Any], thread: RunnableConfig, first: int, work: Callable[[], Awaitable[Any]]
) -> tuple[list[float], Any]:
    """Puts checkpoints sequentially for as long as some other work runs. Returns how long each took, in ms."""
    at_work = asyncio.ensure_future(work())
    config, waits = thread, []
    for number in itertools.count(first):
        checkpoint = checkpoint_of({"a": number})
        checkpoint["channel_versions"] = {"a": f"{number + 1:032}.0"}
        begun = time.perf_counter()
        config = await saver.aput(config, checkpoint, {"step": number}, checkpoint["channel_versions"])
        waits.append((time.perf_counter() - begun) * 1000)
        if at_work.done():
            return waits, await at_work
        await asyncio.sleep(0.002)
    raise AssertionError


async def _sweep(retention: Any) -> list[Any]:
    effects: list[Any] = []
    token = ""
    while True:
        page = await retention.RunRetention(pb.RunRetentionRequest(page_token=token), timeout=120)
        effects += page.effects
        if not (token := page.next_page_token):
            return effects
