"""A lane keeps the order whatever happens to its operations in transit: nothing is stored past a gap, or twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from langgraph.checkpoint.grpc import (
    CheckpointdError,
    GrpcSaver,
    InvalidArgumentError,
    ServerError,
    VersionConflictError,
)

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.support.gates import new_thread
from tests.support.pipeline_proxy import PipelineProxy, Verdict, overloaded, pipeline_proxy, refusal
from tests.support.runs import a_run, at, holding
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned
from tests.support.until import auntil

INVALID = refusal("INVALID_ARGUMENT", grpc.StatusCode.INVALID_ARGUMENT, field="values")


def judge_once(proxy: PipelineProxy, kind: str, number: int, verdict: Verdict) -> None:
    """Applies a verdict once, to the operation of a kind with this number, counted from 1."""
    seen = 0

    def judge(operation: pb.Operation) -> Verdict:
        nonlocal seen
        seen += operation.WhichOneof("operation") == kind
        if seen == number and operation.WhichOneof("operation") == kind:
            seen += 1
            return verdict
        return "pass"

    proxy.judge = judge


class Save:
    """A run's background saves: puts with their task writes, all in flight."""

    def __init__(self, saver: GrpcSaver, thread: RunnableConfig) -> None:
        self.saver = saver
        self.run = a_run(thread)
        self.checkpoints: list[Checkpoint] = []
        self.outcomes: list[Any] = []
        self._under_way: list[Awaitable[Any]] = []
        self._last: RunnableConfig | None = None

    async def begin(self) -> None:
        await self.saver.aget_tuple(self.run)
        self._last = self.run

    async def step(self, value: Any) -> None:
        """Puts a checkpoint as LangGraph does, and stores task writes beside it."""
        assert self._last is not None
        checkpoint = holding(value, f"{value:08}")
        self.checkpoints.append(checkpoint)
        put = asyncio.ensure_future(self.saver.aput(self._last, checkpoint, {}, {"a": f"{value:08}"}))
        self._last = at(self.run, checkpoint)
        writes = asyncio.ensure_future(self.saver.aput_writes(self._last, [("a", value)], "task"))
        self._under_way += [put, writes]
        await asyncio.wait([put])

    async def end(self) -> list[Any]:
        return await asyncio.gather(*self._under_way, return_exceptions=True)


async def stored(saver: GrpcSaver, thread: RunnableConfig) -> list[tuple[Any, Any]]:
    """Returns each checkpoint's value and task writes in a thread, oldest first."""
    found = [saved async for saved in saver.alist(thread)]
    return [(saved.checkpoint["channel_values"]["a"], saved.pending_writes) for saved in reversed(found)]


def complete(steps: int) -> list[tuple[Any, Any]]:
    return [(value, [("task", "a", value)]) for value in range(steps)]


FAULTS: dict[str, tuple[str, int, Verdict]] = {
    "a put is refused for a while": ("put_checkpoint", 2, overloaded()),
    "the first put is": ("put_checkpoint", 1, overloaded()),
    "writes are, and the put after them isn't": ("put_writes", 2, overloaded()),
    "the database is away": (
        "put_checkpoint",
        2,
        refusal("DATABASE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE),
    ),
    "the stream breaks before a put": ("put_checkpoint", 2, "break"),
    "the stream breaks before writes": ("put_writes", 2, "break"),
    "a put's answer is lost": ("put_checkpoint", 2, "lose"),
    "the first put's answer is lost": ("put_checkpoint", 1, "lose"),
    "writes' answer is lost": ("put_writes", 2, "lose"),
    "the read's answer is lost": ("get_checkpoint", 1, "lose"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_waiting_can_mend_goes_unseen(shared_server: ServerProcess, fault: tuple[str, int, Verdict]) -> None:
    thread = new_thread()
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target) as saver:
        judge_once(proxy, *fault)
        save = Save(saver, thread)
        await save.begin()
        for value in range(5):
            await save.step(value)
        assert not [error for error in await save.end() if isinstance(error, BaseException)]
        assert await stored(saver, thread) == complete(5)
        # And the run continues.
        await save.step(5)
        assert not [error for error in await save.end() if isinstance(error, BaseException)]


async def test_nothing_waits_for_an_answer_before_it(shared_server: ServerProcess) -> None:
    """All of it is in flight at once: operations behind a refused put were sent before its refusal came."""
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target) as saver:
        judge_once(proxy, "put_checkpoint", 2, overloaded(200))
        save = Save(saver, new_thread())
        await save.begin()
        for value in range(4):
            await save.step(value)
        assert not [error for error in await save.end() if isinstance(error, BaseException)]
        ids = [checkpoint["id"] for checkpoint in save.checkpoints]
        puts = [ids.index(kind.split()[1]) for kind in proxy.kinds() if kind.startswith("put_checkpoint")]
    assert puts == [0, 1, 2, 3, 1, 2, 3]


async def test_a_put_refused_for_good_takes_with_it_what_was_built_on_it(shared_server: ServerProcess) -> None:
    thread = new_thread()
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target) as saver:
        judge_once(proxy, "put_checkpoint", 3, INVALID)
        save = Save(saver, thread)
        await save.begin()
        for value in range(5):
            await save.step(value)
        outcomes = await save.end()
        # Whether it was handed over to in-flight writes or not, a call raises its error, and none raises another.
        told = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert told
        assert all(isinstance(error, InvalidArgumentError) for error in told)
        assert await stored(saver, thread) == complete(2)
        # Later operations that build on it fail, too.
        with pytest.raises(InvalidArgumentError):
            await saver.aput(at(save.run, save.checkpoints[-1]), holding(9), {}, {"a": 1})
        with pytest.raises(InvalidArgumentError):
            await saver.aput_writes(at(save.run, save.checkpoints[2]), [("a", 9)], "late")
        # Operations that build on stored checkpoints succeed.
        await saver.aput(at(save.run, save.checkpoints[1]), holding(10, "10"), {}, {"a": "10"})
        assert [value for value, _ in await stored(saver, thread)] == [0, 1, 10]


async def test_a_run_that_is_overtaken_in_the_midst_is_told(shared_server: ServerProcess) -> None:
    thread = new_thread()
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target) as saver:
        save = Save(saver, thread)
        await save.begin()
        await save.step(0)
        await save.end()
        async with GrpcSaver(shared_server.target) as other:
            await other.aput(at(thread, save.checkpoints[0]), holding("theirs"), {}, {"a": 1})
        for value in range(1, 4):
            await save.step(value)
        outcomes = await save.end()
        told = [outcome for outcome in outcomes[2:] if isinstance(outcome, VersionConflictError)]
        assert told
        assert all(conflict.current_version > conflict.expected_version > 0 for conflict in told)
        assert [value for value, _ in await stored(saver, thread)] == [0, "theirs"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
async def test_whatever_happens_on_the_way(shared_server: ServerProcess, seed: int) -> None:
    dice = random.Random(seed)
    verdicts: list[Verdict] = ["break", "lose", overloaded(), refusal("DRAINING", grpc.StatusCode.UNAVAILABLE)]

    def judge(operation: pb.Operation) -> Verdict:
        return dice.choice(verdicts) if dice.random() < 0.15 else "pass"

    async def agent(saver: GrpcSaver, thread: RunnableConfig) -> None:
        for turn in range(3):
            save = Save(saver, thread)
            await save.begin()
            before = len(await stored(saver, thread))
            assert before == turn * 6
            for value in range(before, before + 6):
                await save.step(value)
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
            assert not [error for error in await save.end() if isinstance(error, BaseException)]
        assert await stored(saver, thread) == complete(18)

    # On a busy machine an answer takes longer, so more streams break before it.
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target, retry_budget=90) as saver:
        proxy.judge = judge
        await asyncio.gather(*(agent(saver, new_thread()) for _ in range(6)))
        assert proxy.streams > 1


async def test_a_closed_saver_sends_nothing_again(shared_server: ServerProcess) -> None:
    noise: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target) as saver:
        save = Save(saver, new_thread())
        await save.begin()
        judge_once(proxy, "put_checkpoint", 1, overloaded(300))
        step = asyncio.ensure_future(save.step(0))
        await auntil(lambda: any(sent.HasField("put_checkpoint") for sent in proxy.operations))
        await asyncio.sleep(0.05)
        await saver.aclose()
        await step
        assert any(isinstance(outcome, CheckpointdError) for outcome in await save.end())
        sent, streams = len(proxy.operations), proxy.streams
        await asyncio.sleep(0.6)
        assert (len(proxy.operations), proxy.streams) == (sent, streams)
        assert not noise


async def test_a_patch_without_its_base_is_sent_again_whole(shared_server: ServerProcess) -> None:
    thread = new_thread()
    async with pipeline_proxy(shared_server.target) as proxy, GrpcSaver(proxy.target) as saver:
        save = Save(saver, thread)
        await save.begin()
        long = list(range(2000))
        config = save.run
        version = None
        refused = 0

        def judge(operation: pb.Operation) -> Verdict:
            nonlocal refused
            if any(entry.value.HasField("patch") for entry in operation.put_checkpoint.values) and not refused:
                refused += 1
                return refusal("BASE_MISSING", grpc.StatusCode.FAILED_PRECONDITION, channel="a")
            return "pass"

        proxy.judge = judge
        for number in range(4):
            version = saver.get_next_version(version, None)
            checkpoint = holding([*long, number], version)
            writes = saver.aput_writes(at(config, checkpoint), [("a", number)], "task")
            await asyncio.gather(saver.aput(config, checkpoint, {}, {"a": version}), writes)
            config = at(config, checkpoint)
        assert refused == 1
        assert [value[-1] for value, _ in await stored(saver, thread)] == [0, 1, 2, 3]


async def test_the_new_stream_is_used_when_the_old_one_has_answered(shared_server: ServerProcess) -> None:
    thread, short = new_thread(), tuned(stream_lifetime=0.05)
    async with pipeline_proxy(shared_server.target) as proxy, short(proxy.target) as saver:
        save = Save(saver, thread)
        await save.begin()
        for value in range(60):
            await save.step(value)
            await asyncio.sleep(0.005)
        assert not [error for error in await save.end() if isinstance(error, BaseException)]
        assert await stored(saver, thread) == complete(60)
        assert proxy.streams > 3


async def test_an_answer_that_is_not_as_it_should_be_is_an_error(shared_server: ServerProcess) -> None:
    async def answer(requests: object, context: grpc.aio.ServicerContext) -> None:
        await context.send_initial_metadata(())
        while (raw := await context.read()) is not grpc.aio.EOF:
            for operation in pb.PipelineRequest.FromString(raw).operations:
                nonsense = pb.OperationResult(id=operation.id, put_writes=pb.PutWritesResponse(version=1))
                await context.write(pb.PipelineResponse(results=[nonsense]).SerializeToString())

    server = grpc.aio.server()
    handlers = {"Pipeline": grpc.stream_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("checkpointd.v1.CheckpointService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with GrpcSaver(f"127.0.0.1:{port}") as saver, asyncio.timeout(10):
        for _ in range(2):
            with pytest.raises(ServerError, match="something else"):
                await saver.aget_tuple(new_thread())
    await server.stop(0)


async def test_results_that_nobody_can_read_are_an_error(shared_server: ServerProcess) -> None:
    async def answer(requests: object, context: grpc.aio.ServicerContext) -> None:
        await context.read()
        await context.write(b"\xff\xff\xff")

    server = grpc.aio.server()
    handlers = {"Pipeline": grpc.stream_stream_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("checkpointd.v1.CheckpointService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with GrpcSaver(f"127.0.0.1:{port}", retry_budget=0) as saver, asyncio.timeout(20):
        with pytest.raises(Exception):  # noqa: B017 - its type doesn't matter
            await saver.aget_tuple(new_thread())
    await server.stop(0)
