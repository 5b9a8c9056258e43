"""Large states: what is stored of them, what a change costs, and what memory they take."""

from __future__ import annotations

import operator
import random
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

import psutil
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint
from langgraph.graph import END, START, StateGraph

from tests.bench.savers import Kind, open_sync
from tests.bench.stage import Stage

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ."


class Growing(TypedDict):
    """A list that grows, and what never changes."""

    items: Annotated[list[str], operator.add]
    constant: str


def stored_by_growing_list(stage: Stage, kind: Kind) -> float:
    """How much a list of 1 KB items takes on disk that grows by one in each of 300 steps, in MB."""
    return _stored(stage, kind, steps=300, item_bytes=1000, constant_bytes=0)


def stored_by_constant(stage: Stage, kind: Kind) -> float:
    """How much a string of 1 MB takes on disk that is in the state over 50 steps and written by each, in MB."""
    return _stored(stage, kind, steps=50, item_bytes=0, constant_bytes=1_000_000)


def _stored(stage: Stage, kind: Kind, *, steps: int, item_bytes: int, constant_bytes: int) -> float:
    dice = random.Random(1)
    constant = _text(dice, constant_bytes)

    def step(state: Growing) -> dict[str, Any]:
        items = [_text(dice, item_bytes)]
        return {"items": items, "constant": constant} if constant else {"items": items}

    def route(state: Growing) -> str:
        return END if len(state["items"]) == steps else "step"

    builder = StateGraph(Growing)
    builder.add_node("step", step)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", route)
    before = stage.stored_bytes(kind)
    with open_sync(kind, stage.address(kind)) as saver:
        config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": steps + 10}
        builder.compile(checkpointer=saver).invoke({"items": [], "constant": constant}, config)
    return (stage.stored_bytes(kind) - before) / 1e6


ITEMS, ITEM_BYTES, CHANGES = 10_000, 1000, 15
"""The list that is put and read: 10 MB, and how often."""


def put_of_large_list(stage: Stage, kind: Kind) -> float:
    """How long a put takes of a list of 10 MB that differs from the one before in 1 KB: the median, in ms."""
    return _large_list(stage, kind)[0]


def read_of_large_list(stage: Stage, kind: Kind) -> float:
    """How long it takes to read that list: the median, in ms."""
    return _large_list(stage, kind)[1]


def _large_list(stage: Stage, kind: Kind) -> tuple[float, float]:
    dice = random.Random(2)
    items = [_text(dice, ITEM_BYTES) for _ in range(ITEMS)]
    puts, reads = [], []
    with open_sync(kind, stage.address(kind)) as saver:
        config = thread = _thread()
        for number in range(CHANGES):
            items[dice.randrange(ITEMS)] = _text(dice, ITEM_BYTES)
            started = time.perf_counter()
            config = _put(saver, config, items, number)
            puts.append(time.perf_counter() - started)
            started = time.perf_counter()
            found = saver.get_tuple(thread)
            reads.append(time.perf_counter() - started)
            assert found is not None
            assert found.checkpoint["channel_values"] == {"items": items}
    # The first put brings the whole list.
    return statistics.median(puts[1:]) * 1000, statistics.median(reads) * 1000


def memory_of_hundred_megabytes(stage: Stage) -> tuple[float, float]:
    """How long 100 MB take there and back, in seconds, and how much memory the server has taken at the most, in MB."""
    value = random.Random(3).randbytes(100_000_000)
    started = time.perf_counter()
    with open_sync("checkpointd", stage.address("checkpointd")) as saver:
        thread = _thread()
        _put(saver, thread, value, 1)
        found = saver.get_tuple(thread)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"items": value}
    took = time.perf_counter() - started
    status = Path(f"/proc/{stage.server.process.pid}/status").read_text()
    return took, next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6


def memory_of_list(stage: Stage, kind: Kind, *, length: int) -> float:
    """How much the memory of a client grows that lists so many checkpoints, in MB."""
    with open_sync(kind, stage.address(kind)) as saver:
        config = thread = _thread()
        for number in range(length):
            config = _put(saver, config, f"{number} {'x' * 500}", number)
    command = [sys.executable, "-m", "tests.bench.states", kind, stage.address(kind), _name(thread), str(length)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _list_and_watch(kind: Kind, address: str, thread_id: str, length: int) -> float:
    """Lists a thread, and returns how much this process's memory grew, in MB."""
    process = psutil.Process()
    with open_sync(kind, address) as saver:
        thread: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        # What a first call brings along isn't the list's.
        assert len(list(saver.list(thread, limit=1))) == 1
        before = most = process.memory_info().rss
        count = 0
        for count, _ in enumerate(saver.list(thread), 1):
            if count % 100 == 1:
                most = max(most, process.memory_info().rss)
    assert count == length
    return float(most - before) / 1e6


def _put(saver: BaseCheckpointSaver[Any], config: RunnableConfig, value: object, number: int) -> RunnableConfig:
    checkpoint = cast(Checkpoint, {**empty_checkpoint(), "channel_values": {"items": value}})
    checkpoint["channel_versions"] = {"items": f"{number + 1:032}.0"}
    return saver.put(config, checkpoint, {"step": number}, checkpoint["channel_versions"])


def _thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}


def _name(thread: RunnableConfig) -> str:
    return str(thread["configurable"]["thread_id"])


def _text(dice: random.Random, size: int) -> str:
    """Text that can't be compressed by much, so that nobody wins by that."""
    return "".join(dice.choices(_LETTERS, k=size))


if __name__ == "__main__":
    kind, address, thread_id, length = sys.argv[1:]
    print(_list_and_watch(cast(Kind, kind), address, thread_id, int(length)))
