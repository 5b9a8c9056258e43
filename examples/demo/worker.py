"""One process that runs the agent: `python -m examples.demo.worker`. Another process can continue its work.

It prints a line for each node that begins and for what came out of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.types import Command

from examples.demo.agent import TICKET, ScriptedModel, support_agent
from examples.demo.shop import Shop


def main() -> None:
    """Runs a thread until it is finished or waits for a human."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True, help="the checkpointd server")
    parser.add_argument("--thread", required=True, help="the thread to run")
    parser.add_argument("--checkpoint", help="a checkpoint of the thread to go on from, if not the latest")
    parser.add_argument("--shop", type=Path, required=True, help="the shop's folder")
    parser.add_argument("--new", action="store_true", help="begin with the customer's ticket")
    parser.add_argument("--answer", help="the human's answer that the thread waits for")
    parser.add_argument("--stall", action="store_true", help="with a model that doesn't answer")
    arguments = parser.parse_args()

    configurable = {"thread_id": arguments.thread}
    if arguments.checkpoint:
        configurable["checkpoint_id"] = arguments.checkpoint
    config: RunnableConfig = {"configurable": configurable}
    given: Any = None  # no input: continue the thread
    if arguments.new:
        given = {"messages": [HumanMessage(TICKET)]}
    elif arguments.answer:
        given = Command(resume=arguments.answer)

    with GrpcSaver.from_conn_string(arguments.target) as saver:
        agent = support_agent(Shop(arguments.shop), ScriptedModel(stalls=arguments.stall))
        graph = agent.compile(checkpointer=saver)
        # durability="sync": a step is on disk before the next one begins.
        for event in graph.stream(given, config, stream_mode="tasks", durability="sync"):
            tell(event)


def tell(event: Any) -> None:
    """Prints what happened to a node."""
    if "triggers" in event:
        print(f"{event['name']:<12} begins", flush=True)
    elif event["interrupts"]:
        print(f"{event['name']:<12} waits: {event['interrupts'][0]['value']['question']}", flush=True)
    else:
        result = event["result"] or {}
        said = [message.content for message in result.get("messages", [])]
        print(f"{event['name']:<12} done{': ' if said else ''}{' '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
