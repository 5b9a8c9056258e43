"""Agents and servers that start and stop, as real processes: each finds what the one before has stored."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver

from tests.e2e import agent_process
from tests.support import graphs
from tests.support.comparison import FLAVOURS, Durability, Flavour, Ledger
from tests.support.forked import ForkedAgent
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.until import until


def agent(server: ServerProcess, thread_id: str, folder: Path, *arguments: str) -> ForkedAgent:
    """Starts an agent."""
    arguments = (server.target, thread_id, str(folder), *arguments)
    return ForkedAgent(agent_process.__name__, *arguments, environment=clean_environment())


def run_agent(server: ServerProcess, thread_id: str, folder: Path, *arguments: str) -> list[str]:
    """Runs an agent to its end and returns the path that its thread has taken."""
    with agent(server, thread_id, folder, *arguments) as process:
        told = process.communicate(timeout=60)
        assert process.poll() == 0
    path: list[str] = json.loads(told.splitlines()[-1])
    return path


def runs(folder: Path) -> Counter[str]:
    """Returns how often each node has done its work, over all processes."""
    return Counter(marker.name.partition(".")[0] for marker in folder.iterdir() if "." in marker.name)


@pytest.mark.parametrize("flavour", ["ainvoke", pytest.param("invoke", marks=pytest.mark.long)])
def test_two_agents_on_one_thread_one_after_the_other(
    shared_server: ServerProcess, thread_id: str, tmp_path: Path, flavour: Flavour
) -> None:
    one_turn = ["plan", "left", "right", "finish"]
    first = run_agent(shared_server, thread_id, tmp_path, flavour, "async", "first")
    assert first == ["first", *one_turn]
    second = run_agent(shared_server, thread_id, tmp_path, flavour, "async", "second")
    assert second == [*first, "second", *one_turn]
    assert runs(tmp_path) == dict.fromkeys(one_turn, 2)


@pytest.mark.parametrize(
    ("flavour", "durability"),
    [
        ("invoke", "sync"),
        ("ainvoke", "async"),
        pytest.param("invoke", "async", marks=pytest.mark.long),
        pytest.param("ainvoke", "sync", marks=pytest.mark.long),
    ],
)
def test_a_killed_agent_is_finished_by_another_with_each_node_run_once(
    shared_server: ServerProcess, thread_id: str, tmp_path: Path, flavour: Flavour, durability: Durability
) -> None:
    with agent(shared_server, thread_id, tmp_path, flavour, durability, "start", "--hang") as process:

        def hangs() -> bool:
            assert process.poll() is None
            return (tmp_path / "hanging").exists()

        until(hangs, timeout=60)
        process.kill()
    assert runs(tmp_path) == {"plan": 1, "left": 1}

    path = run_agent(shared_server, thread_id, tmp_path, flavour, durability, "resume")
    assert path == ["start", "plan", "left", "right", "finish"]
    assert runs(tmp_path) == {"plan": 1, "left": 1, "right": 1, "finish": 1}


def _restart(server: ServerProcess) -> None:
    server.restart()


def _kill_and_start(server: ServerProcess) -> None:
    server.kill()
    server.start()


def _kill_and_start_meanwhile(server: ServerProcess) -> None:
    """The next turn begins before the server serves again."""
    server.kill()
    server.launch()


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    "interrupt_service",
    [_restart, _kill_and_start, _kill_and_start_meanwhile],
    ids=["stopped", "killed", "killed and not yet back"],
)
def test_the_server_restarts_between_two_turns_and_the_agent_does_not_notice(
    server: ServerProcess, flavour: Flavour, interrupt_service: Callable[[ServerProcess], None]
) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}}
    two_turns = ["one", "a1", "b2", "two", "a4", "b5"]
    saver = GrpcSaver(server.target)
    graph = graphs.line(Ledger(), "ab").compile(checkpointer=saver)
    result: dict[str, Any]
    if flavour == "invoke":
        with saver:
            graph.invoke({"path": ["one"]}, config)
            interrupt_service(server)
            result = graph.invoke({"path": ["two"]}, config)
    else:

        async def turns() -> dict[str, Any]:
            async with saver:
                await graph.ainvoke({"path": ["one"]}, config)
                await asyncio.to_thread(interrupt_service, server)
                return await graph.ainvoke({"path": ["two"]}, config)

        result = asyncio.run(turns())
    assert result["path"] == two_turns
    server.wait_ready()


def test_the_server_is_killed_within_a_turn_and_the_agent_does_not_notice(server: ServerProcess) -> None:
    """What was stored before the kill is there after it, and what was in flight is sent again."""
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}}
    with GrpcSaver(server.target) as saver:
        graph = graphs.line(Ledger(), "abcd").compile(checkpointer=saver)
        for chunk in graph.stream({"path": ["start"]}, config, stream_mode="updates", durability="async"):
            if "b" in chunk:
                server.kill()
                server.launch()
        history = list(graph.get_state_history(config))
    assert history[0].values["path"] == ["start", "a1", "b2", "c3", "d4"]
    assert [state.metadata["step"] for state in history if state.metadata] == [4, 3, 2, 1, 0, -1]
    server.wait_ready()
