"""Leases, and calls from outside their blocks."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeVar

from langchain_core.runnables import RunnableConfig

from tests.support.gates import InThread

T = TypeVar("T")


def thread_of(config: RunnableConfig) -> str:
    """The id of a config's thread."""
    return str(config["configurable"]["thread_id"])


def outside(call: Callable[[], T]) -> T:
    """Makes a call outside any block: in a separate thread and context."""
    result: T = InThread(lambda: contextvars.Context().run(call)).result()
    return result
