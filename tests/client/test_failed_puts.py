"""A put that fails before it is sent: the run ends at once, and no task write waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.grpc import CheckpointdError
from langgraph.graph import START, StateGraph

from tests.support.calls import config_of
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned


class State(TypedDict, total=False):
    value: Any


@pytest.mark.parametrize("awaited", [True, False])
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_value_that_can_t_be_serialized(
    awaited: bool, seconds: float, shared_server: ServerProcess, thread_id: str
) -> None:
    def work(state: State) -> dict[str, Any]:
        time.sleep(seconds)
        return {"value": 1}

    def lock(state: State) -> dict[str, Any]:
        return {"value": threading.Lock()}

    builder: Any = StateGraph(State)
    for name, before, node in (("a", START, work), ("b", "a", lock), ("c", "b", work), ("d", "c", work)):
        builder.add_node(name, node)
        builder.add_edge(before, name)
    begun = time.monotonic()
    with tuned(put_expected_within=60.0)(shared_server.target) as saver:
        graph = builder.compile(checkpointer=saver)
        run = (lambda *given: asyncio.run(graph.ainvoke(*given))) if awaited else graph.invoke
        # LangGraph raises the first failed save that it finds: the put, or task writes beside its checkpoint.
        with pytest.raises((TypeError, CheckpointdError), match=r"serializable|TypeError"):
            run({"value": 0}, config_of(thread_id))
    assert time.monotonic() - begun < 30
