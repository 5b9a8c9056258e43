"""Two runs on one thread: the overtaken one is told, and nothing that it writes from then on is stored."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError

from tests.concurrency.ways import durabilities, savers
from tests.support.gates import (
    Gate,
    InThread,
    build,
    new_thread,
    said,
    turn,
    turns_of,
    until_saved,
)
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

threads = pytest.mark.parametrize("old", [False, True], ids=["fresh-thread", "old-thread"])
graphs = pytest.mark.parametrize("nested", [False, True], ids=["flat", "with-subgraph"])


def prepare(saver: GrpcSaver, old: bool) -> RunnableConfig:
    config = new_thread()
    if old:
        build(saver).invoke(turn("before"), config)
    return config


def check_loser_left_nothing(saver: GrpcSaver, config: RunnableConfig, winner: str) -> None:
    """The final state has the winner's whole turn, and of the slow run only what was stored before it lost."""
    words = said(saver, config)
    assert words[-4:] == turns_of(winner)
    assert "slow.middle" not in words
    assert "slow.last" not in words


def test_the_subgraph_of_these_tests_has_checkpoints_of_its_own(saver: GrpcSaver) -> None:
    config = new_thread()
    build(saver, nested=True).invoke(turn("one"), config)
    namespaces = {saved.config["configurable"]["checkpoint_ns"].partition(":")[0] for saved in saver.list(config)}
    assert namespaces == {"", "middle"}
    assert said(saver, config) == turns_of("one")


@durabilities
@threads
@savers
@graphs
def test_a_slow_run_overtaken_by_a_fast_one_is_told(
    saver: GrpcSaver, other: GrpcSaver, durability: str, old: bool, shared: bool, nested: bool
) -> None:
    config = prepare(saver, old)
    gate = Gate()
    slow = InThread(
        lambda: build(saver, gates={"slow": gate}, nested=nested).invoke(turn("slow"), config, durability=durability)
    )
    assert gate.arrived.wait(30)
    until_saved(saver, config, durability)
    fast = saver if shared else other
    build(fast, nested=nested).invoke(turn("fast"), config, durability=durability)
    gate.open.set()
    with pytest.raises(VersionConflictError) as conflict:
        slow.result()
    check_loser_left_nothing(saver, config, "fast")
    assert conflict.value.thread_id == config["configurable"]["thread_id"]
    assert conflict.value.checkpoint_ns == ""
    assert conflict.value.current_version > conflict.value.expected_version >= 0
    assert (
        conflict.value.current_checkpoint_id == build(saver).get_state(config).config["configurable"]["checkpoint_id"]
    )
    message = str(conflict.value)
    assert conflict.value.thread_id in message
    assert "Run the turn again" in message


@durabilities
@threads
@savers
@graphs
async def test_a_slow_async_run_overtaken_by_a_fast_one_is_told(
    saver: GrpcSaver, other: GrpcSaver, durability: str, old: bool, shared: bool, nested: bool
) -> None:
    config = prepare(saver, old)
    gate = Gate()
    slow = asyncio.create_task(
        build(saver, gates={"slow": gate}, nested=nested).ainvoke(turn("slow"), config, durability=durability)
    )
    await auntil(gate.arrived.is_set)
    await asyncio.to_thread(until_saved, saver, config, durability)
    await build(saver if shared else other, nested=nested).ainvoke(turn("fast"), config, durability=durability)
    gate.open.set()
    with pytest.raises(VersionConflictError):
        await slow
    check_loser_left_nothing(saver, config, "fast")


@durabilities
def test_the_caller_of_stream_is_told(saver: GrpcSaver, durability: str) -> None:
    config = new_thread()
    gate = Gate()
    slow = InThread(
        lambda: list(build(saver, gates={"slow": gate}).stream(turn("slow"), config, durability=durability))
    )
    assert gate.arrived.wait(30)
    until_saved(saver, config, durability)
    build(saver).invoke(turn("fast"), config)
    gate.open.set()
    with pytest.raises(VersionConflictError):
        slow.result()


@durabilities
@savers
def test_a_run_overtaken_by_update_state_is_told(
    saver: GrpcSaver, other: GrpcSaver, durability: str, shared: bool
) -> None:
    config = prepare(saver, True)
    gate = Gate()
    slow = InThread(lambda: build(saver, gates={"slow": gate}).invoke(turn("slow"), config, durability=durability))
    assert gate.arrived.wait(30)
    until_saved(saver, config, durability)
    build(saver if shared else other).update_state(config, turn("a person"), as_node="last")
    gate.open.set()
    with pytest.raises(VersionConflictError):
        slow.result()
    assert said(saver, config)[-1] == "a person"


@durabilities
@threads
def test_a_delete_during_a_run_sticks(saver: GrpcSaver, other: GrpcSaver, durability: str, old: bool) -> None:
    config = prepare(saver, old)
    gate = Gate()
    slow = InThread(lambda: build(saver, gates={"slow": gate}).invoke(turn("slow"), config, durability=durability))
    assert gate.arrived.wait(30)
    until_saved(saver, config, durability)
    if durability == "exit" and not old:
        # Nothing is stored yet, so there is nothing to delete and the run doesn't conflict.
        other.delete_thread(config["configurable"]["thread_id"])
        gate.open.set()
        slow.result()
        return
    other.delete_thread(config["configurable"]["thread_id"])
    gate.open.set()
    with pytest.raises(VersionConflictError) as conflict:
        slow.result()
    assert conflict.value.current_version == 0
    assert conflict.value.current_checkpoint_id is None
    assert "deleted" in str(conflict.value)
    assert list(saver.list(config)) == []


@durabilities
def test_two_update_states_at_once_both_count(saver: GrpcSaver, durability: str) -> None:
    config = prepare(saver, True)
    callers = [
        InThread(partial(build(saver).update_state, config, turn(f"person {i}"), as_node="last")) for i in range(8)
    ]
    stored = []
    for i, caller in enumerate(callers):
        try:
            caller.result()
            stored.append(f"person {i}")
        except VersionConflictError:
            pass
    assert stored
    words = [word for word in said(saver, config) if word.startswith("person")]
    assert sorted(words) == sorted(stored)


@durabilities
def test_last_write_wins_is_what_stock_savers_do(shared_server: ServerProcess, durability: str) -> None:
    with GrpcSaver(shared_server.target, concurrency="last_write_wins") as saver:
        config = new_thread()
        gate = Gate()
        slow = InThread(lambda: build(saver, gates={"slow": gate}).invoke(turn("slow"), config, durability=durability))
        assert gate.arrived.wait(30)
        until_saved(saver, config, durability)
        build(saver).invoke(turn("fast"), config)
        gate.open.set()
        slow.result()
