"""One process that runs the agent for one turn: `python -m examples.memory.worker`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, GrpcStore

from examples.memory.agent import TEXT, remembering_agent


def main() -> None:
    """Says something to the agent, and prints what it answers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True, help="the checkpointd server")
    parser.add_argument("--thread", required=True, help="the thread to run")
    parser.add_argument("--user", required=True, help="who talks to the agent")
    parser.add_argument("--meet", type=Path, help="a folder in which agents wait until two have read the profile")
    parser.add_argument("text", help="what the user says")
    arguments = parser.parse_args()

    def on_read(visits: int) -> None:
        if arguments.meet is not None:
            print(f"read a profile with {visits} visits", flush=True)
            (arguments.meet / str(os.getpid())).touch()
            while len(list(arguments.meet.iterdir())) < 2:
                time.sleep(0.01)

    config: RunnableConfig = {"configurable": {"thread_id": arguments.thread, "user": arguments.user}}
    with GrpcSaver(arguments.target) as saver, GrpcStore.from_saver(saver, text=TEXT) as store:
        graph = remembering_agent(on_read).compile(checkpointer=saver, store=store)
        result = graph.invoke({"messages": [HumanMessage(arguments.text)], "remembered": []}, config)
        print(result["messages"][-1].text, flush=True)


if __name__ == "__main__":
    main()
