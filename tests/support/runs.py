"""Configs of a graph's run, made by hand, and checkpoints to put with them."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint


class Runtime:
    """Stands in for LangGraph's runtime object, which identifies the calls of one run."""

    def __init__(self, control: object = None) -> None:
        self.control = control


def a_run(thread: RunnableConfig, *, durability: str | None = None, control: object = None) -> RunnableConfig:
    """Returns the config of a new run's first read of a thread."""
    more = {} if durability is None else {"__pregel_durability": durability}
    runtime = Runtime(control)
    return {"configurable": {"checkpoint_ns": "", **thread["configurable"], "__pregel_runtime": runtime, **more}}


def at(config: RunnableConfig, checkpoint: Checkpoint | str | None) -> RunnableConfig:
    """Returns the config of a call of the same run at a checkpoint, or at its id."""
    checkpoint_id = checkpoint["id"] if isinstance(checkpoint, dict) else checkpoint
    return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}


def holding(value: Any, version: Any = 1) -> Checkpoint:
    """Returns a new checkpoint whose channel "a" holds a value, at a version."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"a": value}
    checkpoint["channel_versions"] = {"a": version}
    return checkpoint
