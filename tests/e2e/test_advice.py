"""Valid calls that do nothing and were probably meant otherwise: a warning says what to call."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.graph import START, MessagesState, StateGraph

from tests.support.calls import Calls, checkpoint, config_of

RUN = "0198c2a4-0000-7000-8000-000000000001"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "langgraph.checkpoint.grpc"):
        yield caplog


def said(told: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in told.records]


def graph_on(saver: GrpcSaver) -> Any:
    builder = StateGraph(MessagesState).add_node("answer", lambda state: {"messages": [("ai", "hello")]})
    return builder.add_edge(START, "answer").compile(checkpointer=saver)


async def test_a_thread_that_looks_like_a_pattern(calls: Calls, told: pytest.LogCaptureFixture) -> None:
    assert await calls.ids(config_of(f"{calls.thread_id}:*")) == []
    [(level, message)] = said(told)
    assert level == "WARNING"
    assert "compared as it is" in message
    told.clear()
    await calls.put(checkpoint("1"), thread_id=f"{calls.thread_id}*")
    assert await calls.ids(config_of(f"{calls.thread_id}*")) == ["1"]
    assert await calls.ids(config_of(calls.thread_id)) == []
    assert said(told) == []


async def test_a_run_from_another_threads_checkpoint(calls: Calls, told: pytest.LogCaptureFixture) -> None:
    graph = graph_on(calls.saver)
    question = {"messages": [("human", "hi")]}
    foreign = "1f0a5f6e-0000-6000-8000-000000000000"
    if calls.flavour == "invoke":
        graph.invoke(question, config_of(calls.thread_id, "", foreign))
    else:
        await graph.ainvoke(question, config_of(calls.thread_id, "", foreign))
    [(level, message)] = said(told)
    assert level == "WARNING"
    assert foreign in message
    assert "saver.copy_thread(source, target, checkpoint_id=...)" in message
    told.clear()
    assert await calls.find(config_of(calls.thread_id, "", foreign)) is None  # a read is no mistake
    assert said(told) == []


async def test_runs_that_no_checkpoint_names(calls: Calls, told: pytest.LogCaptureFixture) -> None:
    await calls.do("delete_for_runs", [RUN])
    [(level, message)] = said(told)
    assert level == "WARNING"
    assert RUN in message
    assert "top of a config" in message


async def test_what_was_deleted(calls: Calls, told: pytest.LogCaptureFixture) -> None:
    run = f"run of {calls.thread_id}"
    await calls.put(checkpoint("1"), metadata={"run_id": run})
    await calls.put(checkpoint("2"), parent="1")
    await calls.put(checkpoint("3"), parent="2")
    await calls.do("delete_for_runs", [run])
    await calls.do("prune", [calls.thread_id])
    await calls.do("delete_thread", calls.thread_id)
    assert said(told) == [
        ("INFO", "deleted 1 checkpoints of 1 runs"),
        ("INFO", "pruned 1 threads: deleted 1 checkpoints"),
        ("INFO", f"deleted thread {calls.thread_id!r}: 1 checkpoints"),
    ]
