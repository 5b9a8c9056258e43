"""Configs of a graph's run, made by hand."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint


class Runtime:
    """Stands for LangGraph's runtime object: what makes calls belong to one run."""


def a_run(thread: RunnableConfig) -> RunnableConfig:
    """Returns the config of a new run's first read on a thread."""
    return {"configurable": {"checkpoint_ns": "", **thread["configurable"], "__pregel_runtime": Runtime()}}


def at(config: RunnableConfig, checkpoint: Checkpoint | str | None) -> RunnableConfig:
    """Returns the config of a call of the same run at a checkpoint, or at its id."""
    checkpoint_id = checkpoint["id"] if isinstance(checkpoint, dict) else checkpoint
    return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}
