"""An agent as a separate program, which calls a graph once on a thread of a checkpointd, and exits.

    agent_process.py TARGET THREAD FOLDER FLAVOUR DURABILITY INPUT [--hang]

Each node leaves a file `NODE.PID` in the folder when it has done its work. With --hang the node "right" never ends:
it waits until the server holds what the node beside it wrote, leaves the file `hanging`, and sleeps until it is killed.
The last line on standard output is the final path, as JSON. INPUT "resume" continues the thread.

It imports nothing from the tests, since it must run anywhere.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, StateGraph


class Trail(TypedDict):
    """The path that the thread has taken."""

    path: Annotated[list[str], operator.add]


def build(saver: GrpcSaver, config: RunnableConfig, folder: Path, *, hang: bool) -> Any:
    """Builds plan -> (left, right) -> finish."""

    def worked(node: str) -> dict[str, Any]:
        marker = folder / f"{node}.{os.getpid()}"
        marker.touch(exist_ok=False)
        return {"path": [node]}

    def right(state: Trail) -> dict[str, Any]:
        if hang:
            while not (saved := saver.get_tuple(config)) or not any(
                (channel, value) == ("path", ["left"]) for _, channel, value in saved.pending_writes or ()
            ):
                time.sleep(0.01)
            (folder / "hanging").touch()
            time.sleep(3600)
        return worked("right")

    builder: StateGraph[Any, Any, Any, Any] = StateGraph(Trail)
    builder.add_node("plan", lambda state: worked("plan"))
    builder.add_node("left", lambda state: worked("left"))
    builder.add_node("right", right)
    builder.add_node("finish", lambda state: worked("finish"))
    builder.add_edge(START, "plan")
    builder.add_edge("plan", "left")
    builder.add_edge("plan", "right")
    builder.add_edge(["left", "right"], "finish")
    return builder.compile(checkpointer=saver)


def main() -> None:
    """Runs the agent."""
    target, thread_id, folder, flavour, durability, given, *options = sys.argv[1:]
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    input = None if given == "resume" else {"path": [given]}
    with GrpcSaver(target) as saver:
        graph = build(saver, config, Path(folder), hang="--hang" in options)
        if flavour == "invoke":
            result = graph.invoke(input, config, durability=durability)
        else:
            result = asyncio.run(graph.ainvoke(input, config, durability=durability))
    print(json.dumps(result["path"]))


if __name__ == "__main__":
    main()
