"""Real graphs under leases: the holder has its thread to itself, the others wait or are refused."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, LeaseHeldError

from checkpointd.v1 import lease_service_pb2 as pb
from tests.concurrency.leases import outside, thread_of
from tests.concurrency.ways import durabilities, either, savers
from tests.support.gates import (
    Gate,
    InThread,
    build,
    new_thread,
    said,
    turn,
    turns_of,
)
from tests.support.server_process import ServerProcess
from tests.support.until import auntil, until


def state(saver: GrpcSaver, config: RunnableConfig) -> pb.GetLeaseResponse:
    """The server's view of a thread's lease."""
    request = pb.GetLeaseRequest(thread_id=thread_of(config))
    answer: pb.GetLeaseResponse = saver._client.call(request)
    return answer


def until_waiting(saver: GrpcSaver, config: RunnableConfig, number: int) -> None:
    """Waits until this many callers wait for the lease."""
    until(lambda: state(saver, config), lambda lease: lease.waiting == number)


def until_renewed(saver: GrpcSaver, config: RunnableConfig) -> None:
    """Waits until the lease has more time left than a moment ago."""
    left = [state(saver, config).remaining_ms]

    def look() -> list[int]:
        left.append(state(saver, config).remaining_ms)
        return left[-2:]

    until(look, lambda pair: pair[0] < pair[1])


class TestIntruders:
    """Writes to a thread that is leased to another are refused, and the holder doesn't notice."""

    @durabilities
    @savers
    @either
    def test_another_run_is_refused(self, saver: GrpcSaver, other: GrpcSaver, durability: Any, shared: bool) -> None:
        config = new_thread()
        gate = Gate()
        intruder = build(saver if shared else other)
        with saver.lease(thread_of(config)) as lease:
            assert lease.thread_id == thread_of(config)
            context = contextvars.copy_context()
            run = InThread(
                lambda: context.run(
                    lambda: build(saver, gates={"holder": gate}).invoke(turn("holder"), config, durability=durability)
                )
            )
            assert gate.arrived.wait(30)
            with pytest.raises(LeaseHeldError) as refused:
                outside(lambda: intruder.invoke(turn("intruder"), config, durability=durability))
            with pytest.raises(LeaseHeldError):
                outside(lambda: intruder.update_state(config, turn("a person"), as_node="last"))
            with pytest.raises(LeaseHeldError):
                outside(lambda: other.delete_thread(thread_of(config)))
            gate.open.set()
            run.result()
            assert not lease.lost
        assert said(saver, config) == turns_of("holder")
        assert refused.value.thread_id == thread_of(config)
        assert refused.value.remaining is not None
        assert 0 < refused.value.remaining <= 30
        assert refused.value.waited is None
        for words in (thread_of(config), "not written to", "saver.lease"):
            assert words in str(refused.value)

    @durabilities
    @savers
    @either
    async def test_another_async_run_is_refused(
        self, saver: GrpcSaver, other: GrpcSaver, durability: Any, shared: bool
    ) -> None:
        config = new_thread()
        gate = Gate()

        async def hold() -> None:
            async with saver.alease(thread_of(config)) as lease:
                graph = build(saver, gates={"holder": gate})
                await graph.ainvoke(turn("holder"), config, durability=durability)
                assert not lease.lost

        holder = asyncio.create_task(hold())
        await auntil(gate.arrived.is_set)
        intruder = build(saver if shared else other)
        with pytest.raises(LeaseHeldError):
            await intruder.ainvoke(turn("intruder"), config, durability=durability)
        with pytest.raises(LeaseHeldError):
            await intruder.aupdate_state(config, turn("a person"), as_node="last")
        with pytest.raises(LeaseHeldError):
            await other.adelete_thread(thread_of(config))
        gate.open.set()
        await holder
        state = await build(saver).aget_state(config)
        assert state.values["said"] == turns_of("holder")

    @either
    def test_all_kinds_of_writes_go_through_within_the_block(self, saver: GrpcSaver) -> None:
        config, source = new_thread(), new_thread()
        build(saver).invoke(turn("elsewhere"), source)
        with saver.lease(thread_of(config)):
            saver.copy_thread(thread_of(source), thread_of(config))
            build(saver).invoke(turn("holder"), config)
            build(saver).update_state(config, turn("a person"), as_node="last")
            saver.prune([thread_of(config), thread_of(source)])
            saver.delete_for_runs(["unknown"])
            assert said(saver, config) == [*turns_of("elsewhere"), *turns_of("holder"), "a person"]
            saver.delete_thread(thread_of(config))
            build(saver).invoke(turn("again"), config)
            with pytest.raises(LeaseHeldError):
                outside(lambda: saver.prune([thread_of(config)]))
        assert said(saver, config) == turns_of("again")

    async def test_tasks_and_threads_that_are_begun_in_the_block_are_in_it(self, saver: GrpcSaver) -> None:
        config = new_thread()
        async with saver.alease(thread_of(config)):
            await asyncio.create_task(build(saver).ainvoke(turn("task"), config))
            await asyncio.to_thread(build(saver).invoke, turn("thread"), config)
        assert said(saver, config) == [*turns_of("task"), *turns_of("thread")]

    def test_leases_on_several_threads_go_together(self, saver: GrpcSaver) -> None:
        one, two = new_thread(), new_thread()
        with saver.lease(thread_of(one)), saver.lease(thread_of(two)):
            build(saver).invoke(turn("one"), one)
            build(saver).invoke(turn("two"), two)
            saver.prune([thread_of(one), thread_of(two)])
        assert said(saver, one) == turns_of("one")
        assert said(saver, two) == turns_of("two")

    def test_afterwards_everybody_may_write(self, saver: GrpcSaver, other: GrpcSaver) -> None:
        config = new_thread()
        with pytest.raises(ZeroDivisionError), saver.lease(thread_of(config)):
            raise ZeroDivisionError
        assert state(saver, config) == pb.GetLeaseResponse()
        build(other).invoke(turn("other"), config)
        assert said(saver, config) == turns_of("other")


class TestWaiting:
    """Waiters get the lease one after another."""

    def test_each_gets_it_in_turn(self, saver: GrpcSaver, other: GrpcSaver) -> None:
        config = new_thread()
        order: list[tuple[str, int]] = []

        def make_turn(through: GrpcSaver, who: str) -> None:
            with through.lease(thread_of(config)) as lease:
                order.append((who, lease.token))
                build(through).invoke(turn(who), config)

        runs = []
        with saver.lease(thread_of(config)):
            for number in range(6):
                through, who = (saver, other)[number % 2], f"waiter {number}"
                runs.append(InThread(lambda through=through, who=who: make_turn(through, who)))  # type: ignore[misc]
                until_waiting(saver, config, number + 1)
        for run in runs:
            run.result()
        assert [who for who, _ in order] == [f"waiter {number}" for number in range(6)]
        tokens = [token for _, token in order]
        assert tokens == sorted(set(tokens))
        assert said(saver, config) == [word for who, _ in order for word in turns_of(who)]

    @either
    @durabilities
    async def test_runs_that_would_collide_never_do(self, saver: GrpcSaver, other: GrpcSaver, durability: Any) -> None:
        config = new_thread()

        async def make_turn(through: GrpcSaver, who: str) -> None:
            async with through.alease(thread_of(config)):
                await build(through).ainvoke(turn(who), config, durability=durability)

        names = [f"run {number}" for number in range(10)]
        await asyncio.gather(*(make_turn((saver, other)[i % 2], who) for i, who in enumerate(names)))
        words = (await build(saver).aget_state(config)).values["said"]
        turns = [words[i : i + 4] for i in range(0, len(words), 4)]
        assert sorted(turns) == sorted(turns_of(who) for who in names)

    def test_a_wait_that_is_over_is_told(self, saver: GrpcSaver) -> None:
        config = new_thread()
        with saver.lease(thread_of(config)):
            for wait in (0, 0.2):
                with pytest.raises(LeaseHeldError) as refused:
                    outside(lambda wait=wait: saver.lease(thread_of(config), wait=wait).__enter__())  # type: ignore[misc]
                assert refused.value.waited == wait
                assert refused.value.thread_id == thread_of(config)
                assert "was not free within" in str(refused.value)
            until_waiting(saver, config, 0)

    async def test_a_wait_that_is_cancelled_leaves_the_line(self, saver: GrpcSaver) -> None:
        config = new_thread()

        async def hold() -> None:
            async with saver.alease(thread_of(config)):
                raise AssertionError("it was not to have the lease")

        with saver.lease(thread_of(config)):
            waiter = asyncio.create_task(hold(), context=contextvars.Context())
            await asyncio.to_thread(until_waiting, saver, config, 1)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert state(saver, config).waiting == 0

    def test_nobody_waits_for_himself(self, saver: GrpcSaver) -> None:
        config = new_thread()
        with saver.lease(thread_of(config)):
            with pytest.raises(LeaseHeldError, match="already"), saver.lease(thread_of(config)):
                pass
            build(saver).invoke(turn("holder"), config)
        with saver.lease(thread_of(config), wait=0):
            pass


class TestRenewal:
    """A lease lives as long as its block, and no longer than its process."""

    def test_a_lease_outlives_its_time_to_live(self, saver: GrpcSaver) -> None:
        config = new_thread()
        with saver.lease(thread_of(config), ttl=4) as lease:
            for _ in range(4):  # a third of the time to live each
                until_renewed(saver, config)
            assert not lease.lost
            build(saver).invoke(turn("holder"), config)

    async def test_an_event_loop_that_is_blocked_does_not_cost_the_lease(self, saver: GrpcSaver) -> None:
        config = new_thread()
        async with saver.alease(thread_of(config), ttl=5) as lease:
            time.sleep(7)
            assert not lease.lost
            await build(saver).ainvoke(turn("holder"), config)

    def test_a_lease_outlives_a_restart_of_the_server(self, server: ServerProcess) -> None:
        config = new_thread()
        with GrpcSaver(server.target) as saver:
            with saver.lease(thread_of(config), ttl=12) as lease:
                server.kill()
                assert not lease.lost
                server.start()
                until_renewed(saver, config)
                assert not lease.lost
                build(saver).invoke(turn("holder"), config)
            assert state(saver, config) == pb.GetLeaseResponse()

    def test_a_lease_that_cannot_be_given_up_hides_nothing(self, server: ServerProcess) -> None:
        config = new_thread()

        def run() -> None:
            with GrpcSaver(server.target, retry_budget=0.2) as saver, saver.lease(thread_of(config)):
                server.kill()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run()

    def test_nothing_runs_on_after_the_block(self, saver: GrpcSaver) -> None:
        with saver.lease("one"), saver.lease("two"):
            assert len(renewing()) >= 2
        until(renewing, lambda threads: not threads)


def renewing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "checkpointd-lease"]


@pytest.mark.parametrize(
    ("thread_id", "options", "field"),
    [
        ("", {}, "thread_id"),
        ("x" * 513, {}, "thread_id"),
        ("t", {"ttl": 0}, "ttl"),
        ("t", {"ttl": -1}, "ttl"),
        ("t", {"ttl": float("nan")}, "ttl"),
        ("t", {"ttl": 0.5}, "ttl_ms"),
        ("t", {"ttl": 4000}, "ttl_ms"),
        ("t", {"ttl": float("inf")}, "ttl_ms"),
        ("t", {"wait": -1}, "wait"),
        ("t", {"wait": float("nan")}, "wait"),
    ],
)
def test_unusable_arguments_are_named(saver: GrpcSaver, thread_id: str, options: Any, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused, saver.lease(thread_id, **options):
        pass
    assert refused.value.field == field


def test_a_thread_may_be_named_by_a_number(saver: GrpcSaver) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": time.monotonic_ns()}}
    with saver.lease(config["configurable"]["thread_id"]):
        build(saver).invoke(turn("holder"), config)
