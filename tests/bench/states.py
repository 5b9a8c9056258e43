"""Large states: how much is stored, the cost of a change, and the memory used."""

from __future__ import annotations

import operator
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

import psutil
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph

from tests.bench.agents import checkpoint_of
from tests.bench.case import Case, Comparison, Fact, Facts, Pace
from tests.bench.environment import ROOT, Environment
from tests.bench.savers import Kind, open_sync

Measure = Callable[[Environment, Kind, Pace], float]

STATES = "Large states"
"""The heading of these figures."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ."


def cases() -> list[Case]:
    """Returns the cases of large states."""
    return [
        _comparison("growing-list", "300 steps of a list that grows by 1 KB: stored", "MB", _growing_list(), 0.0625),
        _comparison(
            "growing-list-encrypted",
            "the same, encrypted by checkpointd's saver: stored",
            "MB",
            _growing_list(encrypted=True),
            0.083,
        ),
        _comparison("constant", "50 steps with a string of 1 MB that stays the same: stored", "MB", _constant, 0.06),
        _comparison("large-put", "a put of a 10 MB list of which 1 KB has changed", "ms", _large_list("put"), 0.2),
        _comparison("large-read", "a read of that list by the saver that put it", "ms", _large_list("read"), 0.3),
        _comparison("large-read-afresh", "a read of that list by a new saver", "ms", _large_list("afresh"), 1.1),
        _comparison("files", "a step that edits 3 of 50 files in a dict of 1 MB: stored", "KB", _files, 0.02),
        Facts(name="list-growth", title="memory of a client that lists a long thread", tell=_list_growth),
        Facts(name="largest-value", title="a value of 100 MB there and back", tell=_largest_value),
    ]


def _comparison(name: str, title: str, unit: str, measure: Measure, target: float | None = None) -> Comparison:
    return Comparison(
        name=name, title=title, unit=unit, measure=measure, target=target, more_is_better=False, group=STATES
    )


class Growing(TypedDict):
    """A list that grows, and a constant."""

    items: Annotated[list[str], operator.add]
    constant: str


def _growing_list(*, encrypted: bool = False) -> Measure:
    def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        return _stored(environment, kind, steps=pace.steps[0], item_bytes=1000, constant_bytes=0, encrypted=encrypted)

    return measure


def _constant(environment: Environment, kind: Kind, pace: Pace) -> float:
    return _stored(environment, kind, steps=pace.steps[1], item_bytes=0, constant_bytes=1_000_000)


def _stored(
    environment: Environment, kind: Kind, *, steps: int, item_bytes: int, constant_bytes: int, encrypted: bool = False
) -> float:
    """Measures how much a saver's database grows in a run of this many steps, with all tables and indexes, in MB."""
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
    before = environment.stored_bytes(kind)
    with open_sync(kind, environment.address(kind), encrypted=encrypted) as saver:
        config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": steps + 10}
        builder.compile(checkpointer=saver).invoke({"items": [], "constant": constant}, config)
    return (environment.stored_bytes(kind) - before) / 1e6


def _files(environment: Environment, kind: Kind, pace: Pace) -> float:
    """Measures how much a saver's database grows per step that edits 3 of 50 files of 20 KB, with all tables, in KB."""
    dice = random.Random(4)
    files = {f"src/module_{number}.py": _text(dice, 20_000) for number in range(50)}
    with open_sync(kind, environment.address(kind)) as saver:
        thread = _thread()
        config = _put(saver, thread, files, 0)
        before = environment.stored_bytes(kind)
        # Several times the length of a chain of patches.
        steps = pace.changes * 8
        for number in range(1, steps + 1):
            for name in dice.sample(sorted(files), 3):
                place = dice.randrange(19_000)
                files[name] = files[name][:place] + _text(dice, 100) + files[name][place + 90 :]
            config = _put(saver, config, files, number)
        found = saver.get_tuple(thread)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"items": files}
    return (environment.stored_bytes(kind) - before) / steps / 1e3


def _large_list(what: str) -> Measure:
    """Measures a put or a read of a list of 1 KB strings, one of which has changed: the median, in ms."""

    def measure(environment: Environment, kind: Kind, pace: Pace) -> float:
        dice = random.Random(2)
        items = [_text(dice, 1000) for _ in range(pace.items)]
        times = []
        with open_sync(kind, environment.address(kind)) as saver:
            thread = _thread()
            # The first put contains the whole list, and isn't counted.
            config = _put(saver, thread, items, 0)
            for number in range(1, pace.changes + 1):
                items[dice.randrange(pace.items)] = _text(dice, 1000)
                started = time.perf_counter()
                config = _put(saver, config, items, number)
                if what == "read":
                    started = time.perf_counter()
                    found = saver.get_tuple(thread)
                elif what == "afresh":
                    with open_sync(kind, environment.address(kind)) as other:
                        # Connecting isn't measured.
                        other.get_tuple(_thread())
                        started = time.perf_counter()
                        found = other.get_tuple(thread)
                times.append(time.perf_counter() - started)
                if what != "put":
                    assert found is not None
                    assert found.checkpoint["channel_values"] == {"items": items}
        return statistics.median(times) * 1000

    return measure


def _largest_value(environment: Environment, pace: Pace) -> list[Fact]:
    """Measures the time of a large value there and back, and a server's peak memory meanwhile."""
    value = random.Random(3).randbytes(pace.large_bytes)
    with environment.serving() as server, open_sync("checkpointd", server.target) as saver:
        started = time.perf_counter()
        thread = _thread()
        _put(saver, thread, value, 1)
        found = saver.get_tuple(thread)
        took = time.perf_counter() - started
        status = Path(f"/proc/{server.process.pid}/status").read_text()
    assert found is not None
    assert found.checkpoint["channel_values"] == {"items": value}
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6
    size = f"{pace.large_bytes / 1e6:g} MB"
    return [
        Fact(
            title=f"most memory of the server while a value of {size} goes there and back",
            value=peak,
            unit="MB",
            target=200,
        ),
        Fact(title=f"time for a value of {size} there and back", value=took, unit="s", digits=1),
    ]


def _list_growth(environment: Environment, pace: Pace) -> list[Fact]:
    length = pace.history[-1]
    stock = _memory_of_list(environment, "postgres", length)
    return [
        Fact(
            title=f"growth of a client's memory while it lists {length:,} checkpoints",
            value=_memory_of_list(environment, "checkpointd", length),
            unit="MB",
            target=50,
            digits=1,
            beside=f"with the stock saver {stock:.1f} MB",
        )
    ]


def _memory_of_list(environment: Environment, kind: Kind, length: int) -> float:
    """Measures how much a client's memory grows when it lists this many checkpoints, in MB."""
    with open_sync(kind, environment.address(kind)) as saver:
        config = thread = _thread()
        for number in range(length):
            config = _put(saver, config, f"{number} {'x' * 500}", number)
    thread_id = str(thread["configurable"]["thread_id"])
    command = [sys.executable, "-m", "tests.bench.states", kind, environment.address(kind), thread_id, str(length)]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _list_and_watch(kind: Kind, address: str, thread_id: str, length: int) -> float:
    """Lists a thread, and returns how much this process's memory grew, in MB."""
    process = psutil.Process()
    with open_sync(kind, address) as saver:
        thread: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        # Memory that any first call takes isn't attributed to the list.
        assert len(list(saver.list(thread, limit=1))) == 1
        before = most = process.memory_info().rss
        count = 0
        for count, _ in enumerate(saver.list(thread), 1):
            if count % 100 == 1:
                most = max(most, process.memory_info().rss)
    assert count == length
    return float(most - before) / 1e6


def _put(saver: BaseCheckpointSaver[Any], config: RunnableConfig, value: object, number: int) -> RunnableConfig:
    checkpoint = checkpoint_of({"items": value})
    checkpoint["channel_versions"] = {"items": f"{number + 1:032}.0"}
    return saver.put(config, checkpoint, {"step": number}, checkpoint["channel_versions"])


def _thread() -> RunnableConfig:
    return {"configurable": {"thread_id": str(uuid.uuid4()), "checkpoint_ns": ""}}


def _text(dice: random.Random, size: int) -> str:
    """Returns text that hardly compresses, so no saver benefits from compression."""
    return "".join(dice.choices(_LETTERS, k=size))


if __name__ == "__main__":
    kind, address, thread_id, length = sys.argv[1:]
    print(_list_and_watch(cast(Kind, kind), address, thread_id, int(length)))
