"""Calls made by hand, as a run of a graph makes them."""

from __future__ import annotations

import re
import uuid
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint

from tests.support.server_process import ServerProcess


def thread(thread_id: str | None = None) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id or str(uuid.uuid4()), "checkpoint_ns": ""}}


def holding(value: Any) -> Checkpoint:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": value}
    checkpoint["channel_versions"] = {"a": 1}
    return checkpoint


def calls(server: ServerProcess, method: str) -> int:
    """The number of calls of an RPC, from the server's log."""
    return len(re.findall(rf" method=CheckpointService/{method}\b", server.stderr))
