"""A pipeline breaks with many saves in flight: acknowledged saves are stored, none is stored past a gap, and the run
fails with an error.

Many runs work at once, awaiting and blocking, in each durability mode, while streams are cut, answers get lost, a put
is refused, or the server is killed. Each node records that it has begun, so the test knows which saves must have been
acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypedDict

import grpc
import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver, InvalidArgumentError
from langgraph.graph import END, START, StateGraph

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.support.comparison import FLAVOURS, Flavour
from tests.support.gates import DURABILITIES
from tests.support.pipeline_proxy import PipelineProxy, Verdict, pipeline_proxy, refusal
from tests.support.server_process import ServerProcess
from tests.support.until import auntil

pytestmark = [
    pytest.mark.long,
    pytest.mark.parametrize("flavour", FLAVOURS),
    pytest.mark.parametrize("durability", DURABILITIES),
]

RUNS = 8
NODES = "abcdefgh"
REFUSED = 4
"""The number of the put that is refused, from 1: that of the third node's step. With "exit", a run makes one put."""


class State(TypedDict):
    """The path of a run, and a document."""

    path: Annotated[list[str], operator.add]
    document: str


class Fleet:
    """Concurrent runs, each on its own thread, through one saver.

    Args:
        flavour: How graphs are called.
        durability: LangGraph's option.
        executor: Has a thread for each run. On the default one, which has fewer, whatever breaks things would wait too.
    """

    def __init__(self, flavour: Flavour, durability: Any, executor: ThreadPoolExecutor) -> None:
        self.flavour = flavour
        self.durability = durability
        self._executor = executor
        self.may_end = threading.Event()
        """Set unless the last node of each run waits for it."""
        self.may_end.set()
        self.threads = [str(uuid.uuid4()) for _ in range(RUNS)]
        self.begun: dict[str, list[str]] = defaultdict(list)
        """The nodes that have begun, by thread."""

    def graph(self, saver: GrpcSaver) -> Any:
        """A sequence of nodes that each edit a document of 20 KB."""
        builder = StateGraph(State)
        for name in NODES:

            def update(state: State, name: str = name) -> dict[str, Any]:
                return {"path": [name], "document": f"{state['document']}{name}"}

            def node(state: State, config: RunnableConfig, name: str = name, update: Any = update) -> dict[str, Any]:
                self.begun[config["configurable"]["thread_id"]].append(name)
                time.sleep(0.01)
                if name == NODES[-1]:
                    self.may_end.wait()
                return dict(update(state))

            async def anode(
                state: State, config: RunnableConfig, name: str = name, update: Any = update
            ) -> dict[str, Any]:
                self.begun[config["configurable"]["thread_id"]].append(name)
                await asyncio.sleep(0.01)
                if name == NODES[-1]:
                    await auntil(self.may_end.is_set)
                return dict(update(state))

            builder.add_node(name, RunnableLambda(node, afunc=anode))
        builder.add_edge(START, NODES[0])
        for before, after in itertools.pairwise(NODES):
            builder.add_edge(before, after)
        builder.add_edge(NODES[-1], END)
        return builder.compile(checkpointer=saver)

    async def run(self, saver: GrpcSaver) -> list[asyncio.Task[Any]]:
        """Begins the runs."""
        graph = self.graph(saver)

        async def one(thread_id: str) -> Any:
            given = {"path": [], "document": "x" * 20_000}
            config = config_of(thread_id)
            if self.flavour == "ainvoke":
                return await graph.ainvoke(given, config, durability=self.durability)
            invoke = partial(graph.invoke, given, config, durability=self.durability)
            return await asyncio.get_running_loop().run_in_executor(self._executor, invoke)

        return [asyncio.create_task(one(thread_id)) for thread_id in self.threads]

    async def check(self, direct: GrpcSaver, thread_id: str, outcome: Any) -> list[CheckpointTuple]:
        """Checks the stored checkpoints of a run against its outcome. Returns them, oldest first."""
        found = [saved async for saved in direct.alist(config_of(thread_id))][::-1]
        ids = [saved.checkpoint["id"] for saved in found]
        parents = [saved.parent_config and saved.parent_config["configurable"]["checkpoint_id"] for saved in found]
        if self.durability != "exit":
            # Nothing is stored past a gap.
            assert parents == [None, *ids][: len(ids)]
            assert [len(path_of(saved)) for saved in found[1:]] == list(range(len(found) - 1))
        for saved in found:
            path = path_of(saved)
            assert path == list(NODES[: len(path)])
            assert saved.checkpoint["channel_values"].get("document", "x" * 20_000) == "x" * 20_000 + "".join(path)
            for _, channel, value in saved.pending_writes or ():
                if channel == "document":
                    # Beside the input's checkpoint, the write is the input itself.
                    added = 0 if saved.metadata["source"] == "input" else len(path) + 1
                    assert value == "x" * 20_000 + NODES[:added]
        done = len(path_of(found[-1])) if found else 0
        if not isinstance(outcome, BaseException):
            # All of a completed run is stored.
            assert outcome["path"] == list(NODES)
            assert done == len(NODES)
        elif self.durability == "sync":
            # A node begins when the previous step's put has been acknowledged.
            assert done >= len(self.begun[thread_id]) - 1
        return found

    async def go_on(self, direct: GrpcSaver, thread_id: str, found: list[CheckpointTuple]) -> None:
        """Continues a run where it ended: stored data must not prevent that."""
        given = None if found else {"path": [], "document": ""}
        state = await self.graph(direct).ainvoke(given, config_of(thread_id))
        assert state["path"] == list(NODES)


def config_of(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def path_of(saved: CheckpointTuple) -> list[str]:
    path: list[str] = saved.checkpoint["channel_values"].get("path", [])
    return path


async def settled(runs: list[asyncio.Task[Any]]) -> list[Any]:
    """Returns each run's result or exception."""
    return await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 90)


@pytest.fixture
def fleet(flavour: Flavour, durability: str) -> Iterator[Fleet]:
    with ThreadPoolExecutor(RUNS) as executor:
        fleet = Fleet(flavour, durability, executor)
        yield fleet
        fleet.may_end.set()


@pytest.fixture
async def proxy(shared_server: ServerProcess) -> AsyncIterator[PipelineProxy]:
    async with pipeline_proxy(shared_server.target) as proxy:
        yield proxy


@pytest.mark.parametrize("verdict", ["break", "lose"])
async def test_streams_that_are_cut(
    proxy: PipelineProxy, shared_server: ServerProcess, fleet: Fleet, verdict: Verdict
) -> None:
    """Cuts at intervals, before a write or before its answer: all runs succeed, and everything is stored."""
    proxy.judge = cut_at_writes(verdict, 3 if fleet.durability == "exit" else 23)
    async with GrpcSaver(proxy.target) as saver, GrpcSaver(shared_server.target) as direct:
        outcomes = await settled(await fleet.run(saver))
        assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert proxy.streams > 1
        for thread_id, outcome in zip(fleet.threads, outcomes, strict=True):
            found = await fleet.check(direct, thread_id, outcome)
            if fleet.durability != "exit":
                assert len(found) == len(NODES) + 2


def cut_at_writes(verdict: Verdict, every: int) -> Callable[[pb.Operation], Verdict]:
    """Cuts at every n-th write, but not when that write is repeated."""
    seen: set[bytes] = set()

    def judge(operation: pb.Operation) -> Verdict:
        request_id = getattr(getattr(operation, operation.WhichOneof("operation")), "request_id", b"")
        if not request_id or request_id in seen:
            return "pass"
        seen.add(request_id)
        return verdict if len(seen) % every == 0 else "pass"

    return judge


async def test_a_put_that_is_refused(proxy: PipelineProxy, shared_server: ServerProcess, fleet: Fleet) -> None:
    """Refuses a put of every other run; later operations still reach the server. The other runs succeed."""
    unlucky = set(fleet.threads[::2])
    refused: dict[str, str] = {}
    judge = refuse_a_put(unlucky, refused, 1 if fleet.durability == "exit" else REFUSED)
    proxy.judge = judge
    async with GrpcSaver(proxy.target) as saver, GrpcSaver(shared_server.target) as direct:
        outcomes = await settled(await fleet.run(saver))
        for thread_id, outcome in zip(fleet.threads, outcomes, strict=True):
            found = await fleet.check(direct, thread_id, outcome)
            ids = [saved.checkpoint["id"] for saved in found]
            if thread_id in unlucky:
                assert isinstance(outcome, InvalidArgumentError), outcome
                assert refused[thread_id] not in ids
                assert len(ids) == (0 if fleet.durability == "exit" else REFUSED - 1)
            else:
                assert not isinstance(outcome, BaseException), outcome
            await fleet.go_on(direct, thread_id, found)


def refuse_a_put(threads: set[str], refused: dict[str, str], number: int) -> Callable[[pb.Operation], Verdict]:
    """Refuses one put of each of these threads, however often it is sent, and records its checkpoint."""
    seen: dict[str, list[str]] = defaultdict(list)

    def judge(operation: pb.Operation) -> Verdict:
        put = operation.put_checkpoint
        if not operation.HasField("put_checkpoint") or put.thread_id not in threads:
            return "pass"
        ids = seen[put.thread_id]
        if put.checkpoint_id not in ids:
            ids.append(put.checkpoint_id)
        if put.checkpoint_id != ids[min(number, len(ids)) - 1] or len(ids) < number:
            return "pass"
        refused[put.thread_id] = put.checkpoint_id
        return refusal("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT, field="body")

    return judge


async def until_half_way(fleet: Fleet) -> None:
    """Waits until many saves are in flight."""
    await auntil(lambda: sum(map(len, fleet.begun.values())) > RUNS * len(NODES) // 2)


async def test_a_server_that_is_killed_and_comes_back(server: ServerProcess, fleet: Fleet) -> None:
    """All runs succeed."""
    async with GrpcSaver(server.target, retry_budget=60) as saver:
        runs = await fleet.run(saver)
        await until_half_way(fleet)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        outcomes = await settled(runs)
    async with GrpcSaver(server.target) as direct:
        for thread_id, outcome in zip(fleet.threads, outcomes, strict=True):
            assert not isinstance(outcome, BaseException), outcome
            found = await fleet.check(direct, thread_id, outcome)
            if fleet.durability != "exit":
                assert len(found) == len(NODES) + 2


async def test_a_server_that_is_killed_for_good(server: ServerProcess, fleet: Fleet) -> None:
    """Unfinished runs fail. On the next server they can be continued where they ended."""
    fleet.may_end.clear()
    async with GrpcSaver(server.target, retry_budget=0.5) as saver:
        runs = await fleet.run(saver)
        await until_half_way(fleet)
        await asyncio.to_thread(server.kill)
        fleet.may_end.set()
        outcomes = await settled(runs)
    assert all(isinstance(outcome, CheckpointdError) for outcome in outcomes), outcomes
    await asyncio.to_thread(server.restart)
    async with GrpcSaver(server.target) as direct:
        for thread_id, outcome in zip(fleet.threads, outcomes, strict=True):
            found = await fleet.check(direct, thread_id, outcome)
            await fleet.go_on(direct, thread_id, found)
