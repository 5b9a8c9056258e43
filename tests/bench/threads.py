"""Threads to read: many checkpoints with next to nothing in them."""

from __future__ import annotations

import statistics
import time
import uuid
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from tests.bench.agents import checkpoint_of


async def thread_of(saver: BaseCheckpointSaver[Any], length: int) -> RunnableConfig:
    """Makes a thread of so many checkpoints. Returns the config that names it."""
    thread: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}
    config = thread
    for number in range(length):
        checkpoint = checkpoint_of({"a": number})
        checkpoint["channel_versions"] = {"a": f"{number + 1:032}.0"}
        config = await saver.aput(config, checkpoint, {"step": number}, checkpoint["channel_versions"])
    return thread


async def time_reads(
    saver: BaseCheckpointSaver[Any], threads: dict[int, RunnableConfig], times: int
) -> dict[int, float]:
    """Reads the latest of each thread so many times: medians in milliseconds, by the threads' keys.

    The threads are read in turn, so that a machine that drifts does it for all.
    """
    taken: dict[int, list[float]] = {key: [] for key in threads}
    for _ in range(times):
        for key, config in threads.items():
            started = time.perf_counter()
            await saver.aget_tuple(config)
            taken[key].append(time.perf_counter() - started)
    return {key: statistics.median(values) * 1000 for key, values in taken.items()}
