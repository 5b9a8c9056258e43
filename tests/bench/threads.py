"""Threads to read: many almost empty checkpoints."""

from __future__ import annotations

import statistics
import time
import uuid
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from tests.bench.agents import checkpoint_of


async def thread_of(saver: BaseCheckpointSaver[Any], length: int) -> RunnableConfig:
    """Creates a thread with this many checkpoints. Returns its config."""
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
    """Reads the latest checkpoint of each thread this many times: medians in milliseconds, by the threads' keys.

    The threads are read in turn, so drift of the machine's speed affects all of them.
    """
    taken: dict[int, list[float]] = {key: [] for key in threads}
    for _ in range(times):
        for key, config in threads.items():
            started = time.perf_counter()
            await saver.aget_tuple(config)
            taken[key].append(time.perf_counter() - started)
    return {key: statistics.median(values) * 1000 for key, values in taken.items()}
