"""The narration of the demo."""

from __future__ import annotations

import textwrap
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

WIDTH = 110


class Story:
    """Prints numbered steps and what happens in them."""

    def __init__(self) -> None:
        self._step = 0

    def heading(self, text: str) -> None:
        """Begins a step."""
        self._step += 1
        print(f"\n{self._step}. {text}", flush=True)

    def say(self, *lines: str) -> None:
        """Prints a sentence of the story."""
        for line in lines:
            print(textwrap.fill(line, WIDTH, initial_indent="   ", subsequent_indent=" " * 6), flush=True)

    def table(self, history: list[StateSnapshot]) -> None:
        """Shows a thread's checkpoints, newest first."""
        self.say(f"{'checkpoint':<16}{'made from':<16}{'step':>4}  {'messages':>8}  next")
        for state in history:
            metadata: Any = state.metadata or {}
            ids = f"{short(state.config):<16}{short(state.parent_config):<16}"
            messages = len(state.values.get("messages", []))
            self.say(f"{ids}{metadata['step']:>4}  {messages:>8}  {', '.join(state.next) or '(finished)'}")


def checkpoint_id(config: RunnableConfig) -> str:
    """Returns the id of the checkpoint that a config names."""
    return str(config["configurable"]["checkpoint_id"])


def short(config: RunnableConfig | None) -> str:
    """Returns enough of a checkpoint's id to tell it from the others on a screen."""
    return checkpoint_id(config)[9:23] if config else ""
