"""A run whose lease ends early is told, and nothing that it writes from then on is stored."""

from __future__ import annotations

import asyncio
import contextvars
import operator
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, LeaseHeldError, LeaseLostError, WriteConflictError
from langgraph.checkpoint.grpc._convert import thread_requests as requests
from langgraph.checkpoint.grpc.leases import AsyncLeaseContext, LeaseContext
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from checkpointd.v1.lease_service_pb2 import GetLeaseRequest
from tests.concurrency.leases import outside, thread_of
from tests.concurrency.ways import durabilities, durabilities_of_processes, either
from tests.support.forked import ForkedAgent
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
from tests.support.pauses import own_pauses
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.until import auntil, until


def lose(saver: GrpcSaver, block: LeaseContext | AsyncLeaseContext, config: RunnableConfig) -> None:
    """Ends a lease behind its holder's back, as if it had expired."""
    request = requests.release_lease(thread_of(config), block._holder)
    assert saver._client.call(request).released


class TestInOneProcess:
    @durabilities
    @either
    @pytest.mark.parametrize("way", ["invoke", "stream"])
    def test_the_caller_is_told(self, saver: GrpcSaver, durability: Any, way: str) -> None:
        config = new_thread()
        gate = Gate()
        graph = build(saver, gates={"holder": gate})
        block = saver.lease(thread_of(config))

        def run() -> None:
            with block:
                if way == "invoke":
                    graph.invoke(turn("holder"), config, durability=durability)
                else:
                    list(graph.stream(turn("holder"), config, durability=durability))

        holder = InThread(lambda: contextvars.Context().run(run))
        assert gate.arrived.wait(30)
        until_saved(saver, config, durability)
        lose(saver, block, config)
        gate.open.set()
        with pytest.raises(LeaseLostError) as lost:
            holder.result()
        assert lost.value.thread_id == thread_of(config)
        assert thread_of(config) in str(lost.value)
        assert "Take the lease again" in str(lost.value)
        assert not {"holder.middle", "holder.last"} & set(said(saver, config))

    @durabilities
    @either
    async def test_the_caller_of_ainvoke_is_told(self, saver: GrpcSaver, durability: Any) -> None:
        config = new_thread()
        gate = Gate()
        block = saver.alease(thread_of(config))

        async def run() -> None:
            async with block:
                await build(saver, gates={"holder": gate}).ainvoke(turn("holder"), config, durability=durability)

        holder = asyncio.create_task(run())
        await auntil(gate.arrived.is_set)
        await asyncio.to_thread(until_saved, saver, config, durability)
        await asyncio.to_thread(lose, saver, block, config)
        gate.open.set()
        with pytest.raises(LeaseLostError):
            await holder
        assert not {"holder.middle", "holder.last"} & set(await asyncio.to_thread(said, saver, config))

    @durabilities
    @either
    def test_also_where_a_nested_graph_ends_in_an_interrupt(self, saver: GrpcSaver, durability: Any) -> None:
        """LangGraph drops the errors of the nested graph's saves, and would report the interrupt."""
        config = new_thread()
        gate = Gate()
        block = saver.lease(thread_of(config))

        def run() -> Any:
            with block:
                return nested(saver, gate).invoke(turn("holder"), config, durability=durability)

        holder = InThread(lambda: contextvars.Context().run(run))
        assert gate.arrived.wait(30)
        lose(saver, block, config)
        gate.open.set()
        with pytest.raises(LeaseLostError):
            holder.result()

    @either
    def test_a_run_that_was_refused_stays_refused_when_the_lease_is_free_again(self, saver: GrpcSaver) -> None:
        """LangGraph may have dropped the refusal, and continue as if the write were stored."""
        config = new_thread()
        control = object()
        outer, inner = run_of(config, "", control), run_of(config, "inner", control)
        saver.get_tuple(outer)
        with saver.lease(thread_of(config)), pytest.raises(LeaseHeldError):
            outside(lambda: saver.put(inner, empty_checkpoint(), {}, {}))
        with pytest.raises(LeaseHeldError):
            saver.put(outer, empty_checkpoint(), {}, {})
        another = run_of(config, "", object())
        saver.get_tuple(another)
        saver.put(another, empty_checkpoint(), {}, {})

    def test_the_lease_says_that_it_is_lost(self, saver: GrpcSaver) -> None:
        config = new_thread()
        block = saver.lease(thread_of(config), ttl=6)
        with block as lease:
            assert not lease.lost
            lose(saver, block, config)
            until(lambda: lease.lost)
            with pytest.raises(LeaseLostError):
                build(saver).invoke(turn("holder"), config)
        assert lease.lost

    async def test_what_goes_on_after_its_block_is_refused(self, saver: GrpcSaver) -> None:
        config = new_thread()
        gate = Gate()
        async with saver.alease(thread_of(config)) as lease:
            graph = build(saver, gates={"straggler": gate})
            straggler = asyncio.create_task(graph.ainvoke(turn("straggler"), config))
            await auntil(gate.arrived.is_set)
        assert not lease.lost  # it was released
        await build(saver).ainvoke(turn("next"), config)
        gate.open.set()
        with pytest.raises(LeaseLostError):
            await straggler
        assert (await build(saver).aget_state(config)).values["said"][-4:] == turns_of("next")

    @pytest.mark.parametrize(
        "error",
        [
            LeaseHeldError(thread_id="t", remaining=1.5),
            LeaseHeldError(thread_id="t", waited=3.0),
            LeaseHeldError(thread_id="t", here=True),
            LeaseLostError(thread_id="t"),
        ],
        ids=str,
    )
    def test_the_errors_travel_between_processes(self, error: WriteConflictError) -> None:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))


class Runtime:
    """Stands for LangGraph's runtime object: nested graphs share its control."""

    def __init__(self, control: object) -> None:
        self.control = control


def run_of(thread: RunnableConfig, checkpoint_ns: str, control: object) -> RunnableConfig:
    """The config of a run in a namespace."""
    return {
        "configurable": {
            **thread["configurable"],
            "checkpoint_ns": checkpoint_ns,
            "__pregel_runtime": Runtime(control),
        }
    }


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


def nested(saver: GrpcSaver, gate: Gate) -> CompiledStateGraph[Any]:
    """A graph whose only node is a graph that waits at the gate and then asks a person."""

    def wait(state: Said) -> Said:
        gate.wait()
        return {"said": ["waited"]}

    def ask(state: Said) -> Said:
        return {"said": [interrupt("well?")]}

    inner = StateGraph(Said)
    inner.add_node("wait", wait)
    inner.add_node("ask", ask)
    inner.add_edge(START, "wait")
    inner.add_edge("wait", "ask")
    inner.add_edge("ask", END)
    outer = StateGraph(Said)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    outer.add_edge("inner", END)
    return outer.compile(checkpointer=saver)


@contextmanager
def agent(target: str, thread_id: str, who: str, *options: str) -> Iterator[ForkedAgent]:
    """A process that makes its turn under a lease, and waits in the middle of it."""
    arguments = (target, thread_id, who, *options)
    with ForkedAgent("tests.concurrency.lease_agent", *arguments, environment=clean_environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def arrived(process: ForkedAgent) -> int:
    """Waits until an agent has its lease and is in the middle of its turn; returns the token."""
    word, token = process.stdout.readline().split()
    assert (word, process.stdout.readline()) == ("held", "arrived\n")
    return int(token)


def let_end(saver: GrpcSaver, config: RunnableConfig, token: int) -> None:
    """Makes a lease that nobody renews end soon instead of after its full time to live."""
    shorter = requests.renew_lease(thread_of(config), token, ttl=1.0)
    saver._client.call(shorter)


class TestProcesses:
    @durabilities_of_processes
    def test_an_intruder_is_refused_and_the_other_process_unharmed(
        self, shared_server: ServerProcess, saver: GrpcSaver, durability: Any
    ) -> None:
        config = new_thread()
        with agent(shared_server.target, thread_of(config), "holder", durability, "optimistic", "30") as holder:
            arrived(holder)
            with pytest.raises(LeaseHeldError):
                build(saver).invoke(turn("intruder"), config, durability=durability)
            assert holder.communicate(timeout=60) == "done\n"
        assert said(saver, config) == turns_of("holder")

    @pytest.mark.parametrize("concurrency", ["optimistic", pytest.param("last_write_wins", marks=pytest.mark.long)])
    @durabilities_of_processes
    def test_a_holder_that_was_paused_and_overtaken_writes_nothing_when_it_wakes_up(
        self, shared_server: ServerProcess, saver: GrpcSaver, durability: Any, concurrency: str
    ) -> None:
        config = new_thread()
        holder = agent(shared_server.target, thread_of(config), "paused", durability, concurrency, "30")
        with own_pauses(), holder as paused:
            token = arrived(paused)
            until_saved(saver, config, durability)
            paused.send_signal(signal.SIGSTOP)
            let_end(saver, config, token)
            with saver.lease(thread_of(config)) as lease:
                assert lease.token > token
                build(saver).invoke(turn("next"), config)
                before = everything(saver, config)
                paused.send_signal(signal.SIGCONT)
                assert paused.communicate(timeout=60) == "LeaseLostError\n"
        assert everything(saver, config) == before
        assert said(saver, config)[-4:] == turns_of("next")

    def test_the_lease_of_a_process_that_was_killed_goes_to_the_next(
        self, shared_server: ServerProcess, saver: GrpcSaver
    ) -> None:
        config = new_thread()
        with agent(shared_server.target, thread_of(config), "killed", "sync", "optimistic", "30") as killed:
            token = arrived(killed)
            killed.send_signal(signal.SIGKILL)
            killed.wait(30)
            let_end(saver, config, token)
            with saver.lease(thread_of(config), wait=60) as lease:
                assert lease.token > token
                build(saver).invoke(None, config)
        assert said(saver, config) == turns_of("killed")

    def test_a_killed_process_is_passed_over_in_the_line(self, shared_server: ServerProcess, saver: GrpcSaver) -> None:
        config = new_thread()
        with saver.lease(thread_of(config)) as lease:
            with agent(shared_server.target, thread_of(config), "killed", "sync", "optimistic", "30") as killed:
                request = GetLeaseRequest(thread_id=thread_of(config))

                def waiting() -> int:
                    return int(saver._client.call(request).waiting)

                until(waiting, lambda number: number == 1)
                killed.kill()
                killed.wait(30)
            until(waiting, lambda number: number == 0)
        with saver.lease(thread_of(config), wait=0) as after:
            assert after.token > lease.token


def everything(saver: GrpcSaver, config: RunnableConfig) -> list[Any]:
    """Everything that is stored for a thread."""
    return [
        (saved.config, saved.checkpoint, saved.pending_writes)
        for saved in saver.list({"configurable": {"thread_id": thread_of(config)}})
    ]
