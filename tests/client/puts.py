"""Calls made by hand, as a run of a graph makes them."""

from __future__ import annotations

import re
import uuid
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint

from tests.support.server_process import ServerProcess


class Runtime:
    """Stands for LangGraph's runtime object: what makes calls belong to one run."""


def thread(thread_id: str | None = None) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id or str(uuid.uuid4()), "checkpoint_ns": ""}}


def run_on(config: RunnableConfig) -> RunnableConfig:
    return {"configurable": {**config["configurable"], "__pregel_runtime": Runtime()}}


def at(config: RunnableConfig, checkpoint: Checkpoint) -> RunnableConfig:
    return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}


def holding(value: Any) -> Checkpoint:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": value}
    checkpoint["channel_versions"] = {"a": 1}
    return checkpoint


def calls(server: ServerProcess, method: str) -> int:
    """How often an RPC was called, by the server's log."""
    return len(re.findall(rf" method=CheckpointService/{method}\b", server.stderr))
