"""A program whose agent keeps running while its server is stalled. Usage: stalled_agent.py TARGET FLAVOUR

It prints "ready" in the third step of its run, and continues when it is told to. When it has made all of its STEPS
steps, or makes no more progress, it prints the most that it has held; when the run is over, what a new saver finds.
"""

from __future__ import annotations

import asyncio
import json
import operator
import random
import sys
import threading
import time
from typing import Annotated, Any, TypedDict

import psutil
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.grpc._runs.handover import HandoverBounds, InFlightWrite
from langgraph.graph import END, START, StateGraph

from tests.support.until import until

STEPS = 150
ITEMS = 1000
STANDSTILL = 2.0
"""After this many seconds without progress, none is expected."""


class State(TypedDict):
    """A list of 1 MB that grows, a value of 1 MB that is returned at each step and stays the same, and a count."""

    items: Annotated[list[str], operator.add]
    constant: str
    steps: Annotated[int, operator.add]


class WatchedBounds(HandoverBounds):
    """Counts what is handed over, and records the maximum."""

    saves = most_saves = most_bytes = 0

    def _hand_over(self, *args: Any) -> None:
        super()._hand_over(*args)
        self.saves += 1
        self.most_saves = max(self.most_saves, self.saves)
        self.most_bytes = max(self.most_bytes, self._bytes)

    def end(self, put: InFlightWrite) -> None:
        super().end(put)
        self.saves -= 1


class Agent:
    """The agent and its monitoring."""

    def __init__(self, target: str, flavour: str) -> None:
        self.target = target
        self.flavour = flavour
        # Longer than the server is stalled, on a busy machine too.
        self.saver = GrpcSaver(target, timeout=120)
        self.bounds = self.saver._runs._bounds = WatchedBounds()
        self.dice = random.Random(1)
        self.made = 0
        self.moved_at = time.monotonic()
        self.is_on_its_way = threading.Event()
        self.constant = self.text(1_000_000)
        self.config: Any = {"configurable": {"thread_id": "agent"}, "recursion_limit": 10 * STEPS}

    def text(self, size: int) -> str:
        return self.dice.randbytes(size // 2).hex()

    def run(self) -> None:
        """Runs the graph."""

        def step(state: State) -> dict[str, Any]:
            if state["steps"] == 2:
                self.until_stored(1)
                say("ready")
                assert sys.stdin.readline()
                self.is_on_its_way.set()
            self.made, self.moved_at = self.made + 1, time.monotonic()
            return {"items": [self.text(1000)], "constant": state["constant"], "steps": 1}

        builder = StateGraph(State)
        builder.add_node("step", step)
        builder.add_edge(START, "step")
        builder.add_conditional_edges("step", lambda state: "step" if state["steps"] < STEPS else END)
        graph = builder.compile(checkpointer=self.saver)
        given: Any = {"items": [self.text(1000) for _ in range(ITEMS)], "constant": self.constant, "steps": 0}
        if self.flavour == "invoke":
            graph.invoke(given, self.config, durability="async")
        else:
            asyncio.run(graph.ainvoke(given, self.config, durability="async"))

    def until_stored(self, step: int) -> None:
        """Waits until what the run has put at a step is on disk."""
        with GrpcSaver(self.target) as other:
            until(
                lambda: other.get_tuple(self.config), lambda saved: saved is not None and saved.metadata["step"] >= step
            )

    def watch(self) -> dict[str, Any]:
        """Watches the run from the third step on, and returns the most that it has held."""
        self.is_on_its_way.wait()
        process = psutil.Process()
        before = most = process.memory_info().rss
        while time.monotonic() - self.moved_at < STANDSTILL:
            if (now := process.memory_info().rss) > most:
                # Saves that it has begun continue after its last step.
                most, self.moved_at = now, time.monotonic()
            time.sleep(0.01)
        held = {"saves": self.bounds.most_saves, "bytes": self.bounds.most_bytes}
        return {"made": self.made, "megabytes": (most - before) / 1e6, **held}


def say(word: str, **more: Any) -> None:
    print(json.dumps({"said": word, **more}), flush=True)


def main(target: str, flavour: str) -> None:
    """Runs the program."""
    agent = Agent(target, flavour)
    running = threading.Thread(target=agent.run)
    running.start()
    say("stalled", **agent.watch())
    running.join()
    with GrpcSaver(target) as other:
        history = list(other.list(agent.config))
    found = history[0].checkpoint["channel_values"]
    whole = [saved.checkpoint["channel_values"].get("steps") for saved in history if saved.metadata["source"] == "loop"]
    say("over", steps=found["steps"], items=len(found["items"]), same=found["constant"] == agent.constant, counts=whole)


if __name__ == "__main__":
    main(*sys.argv[1:])
