"""A save returns as soon as it is sent if task writes of its run follow: those return, or raise, once it is durable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver, InvalidArgumentError, VersionConflictError
from langgraph.checkpoint.grpc._runs import handover

from tests.support.blocker import blocked
from tests.support.gates import new_thread
from tests.support.local_server import LocalServer
from tests.support.runs import a_run, at, holding
from tests.support.tuned import tuned

SOON = 20.0
"""The time that a call which waits for nothing may take on a busy machine, in seconds."""


class Run:
    """A run on an existing thread, so that a blocker can hold it up: awaiting, or blocking in a thread of its own."""

    def __init__(self, saver: GrpcSaver, *, blocking: bool, durability: str | None = None) -> None:
        self.saver = saver
        self.blocking = blocking
        self.thread = new_thread()
        self.config = a_run(self.thread, durability=durability)
        self._number = 0
        self.last: RunnableConfig = self.config

    async def begin(self) -> None:
        """Reads the thread, and puts a first checkpoint."""
        await self.saver.aget_tuple(self.config)
        await self.put()

    def put(self, config: RunnableConfig | None = None) -> asyncio.Future[Any]:
        """Puts the next checkpoint."""
        self._number += 1
        version = f"{self._number:08}"
        checkpoint = holding(self._number, version)
        before, self.last = config or self.last, at(config or self.config, checkpoint)
        return self._call("put", before, checkpoint, {"step": self._number}, {"a": version})

    def writes(self, channel: str = "a", task_id: str = "task") -> asyncio.Future[Any]:
        """Stores task writes beside the last checkpoint."""
        return self._call("put_writes", self.last, [(channel, self._number)], task_id)

    def _call(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        if self.blocking:
            return asyncio.ensure_future(asyncio.to_thread(getattr(self.saver, name), *arguments))
        call: asyncio.Future[Any] = asyncio.ensure_future(getattr(self.saver, f"a{name}")(*arguments))
        return call

    async def stored(self) -> list[Any]:
        """Returns the values of the thread's checkpoints, oldest first."""
        async with GrpcSaver(self.saver.options.target) as other:
            found = [saved.checkpoint["channel_values"]["a"] async for saved in other.alist(self.thread)]
        return found[::-1]


@pytest.fixture(params=[False, True], ids=["awaited", "blocking"])
def blocking(request: pytest.FixtureRequest) -> bool:
    """True for blocking calls, False for awaiting ones."""
    return bool(request.param)


async def is_held_up(call: asyncio.Future[Any]) -> bool:
    """Returns whether a call is still running after some time."""
    await asyncio.wait([call], timeout=0.5)
    return not call.done()


async def a_moment() -> None:
    """Gives calls that were just made time to begin."""
    await asyncio.sleep(0.2)


async def test_a_put_returns_at_once_where_writes_of_its_run_are_under_way(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            writes = run.writes()
            await a_moment()
            for _ in range(3):
                await asyncio.wait_for(run.put(), SOON)
            assert await is_held_up(writes)
            assert await run.stored() == [1]
        await asyncio.wait_for(writes, SOON)
        assert await run.stored() == [1, 2, 3, 4]


async def test_a_put_returns_when_writes_of_its_run_come_meanwhile(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            put = run.put()
            assert await is_held_up(put)
            writes = run.writes()
            await asyncio.wait_for(put, SOON)
            assert await is_held_up(writes)
        await asyncio.wait_for(writes, SOON)
        assert await run.stored() == [1, 2]


@pytest.mark.parametrize(
    ("durability", "channel", "with_runtime"),
    [
        ("sync", "a", True),
        ("exit", "a", True),
        (None, "__error__", True),
        (None, "__interrupt__", True),
        (None, "a", False),
    ],
    ids=["sync", "exit", "errors", "interrupts", "no runtime"],
)
async def test_what_a_put_is_not_handed_over_to(
    local_server: LocalServer,
    database_url: str,
    blocking: bool,
    durability: str | None,
    channel: str,
    with_runtime: bool,
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking, durability=durability)
        if not with_runtime:
            run.config = run.last = {"configurable": {**run.thread["configurable"], "checkpoint_ns": ""}}
        await run.begin()
        async with blocked(database_url):
            writes = run.writes(channel)
            await a_moment()
            put = run.put()
            assert await is_held_up(put)
        await asyncio.wait_for(asyncio.gather(put, writes), SOON)
        assert await run.stored() == [1, 2]


async def test_nor_to_writes_of_another_run_or_namespace(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run, other = Run(saver, blocking=blocking), Run(saver, blocking=blocking)
        await run.begin()
        await other.begin()
        nested = {"configurable": {**run.last["configurable"], "checkpoint_ns": "node:1"}}
        async with blocked(database_url):
            elsewhere = [other.writes(), run._call("put_writes", nested, [("a", 1)], "task")]
            await a_moment()
            put = run.put()
            assert await is_held_up(put)
        await asyncio.wait_for(asyncio.gather(put, *elsewhere), SOON)


async def test_the_writes_raise_what_the_put_would_have(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver, GrpcSaver(local_server.target) as other:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            # Another saver's put gets the thread's lock first.
            thread: RunnableConfig = {"configurable": {**run.thread["configurable"], "checkpoint_ns": ""}}
            overtaking = asyncio.ensure_future(other.aput(thread, holding("other", "9"), {}, {"a": "9"}))
            await a_moment()
            writes = run.writes()
            await a_moment()
            await asyncio.wait_for(run.put(), SOON)
        await overtaking
        with pytest.raises(VersionConflictError):
            await asyncio.wait_for(writes, SOON)
        # The run gets an error, and nothing of it is stored past the gap.
        with pytest.raises(VersionConflictError):
            await asyncio.wait_for(run.put(), SOON)
        assert sorted(map(str, await run.stored())) == ["1", "other"]


async def test_puts_that_were_handed_over_are_awaited_though_the_writes_fail(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            # No task has such an id: the server rejects the writes, and accepts what comes after them.
            writes = run.writes(task_id="x" * 200)
            put = run.put()
            await asyncio.wait([writes, put], timeout=1.0)
        outcome, _ = await asyncio.wait_for(asyncio.gather(writes, put, return_exceptions=True), SOON)
        assert isinstance(outcome, Exception)
        assert await run.stored() == [1, 2]


async def test_writes_return_at_once_where_others_of_their_run_are_under_way(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            first = run.writes(task_id="1")
            await a_moment()
            await asyncio.wait_for(run.writes(task_id="2"), SOON)
            await asyncio.wait_for(run.put(), SOON)
            await asyncio.wait_for(run.writes(task_id="3"), SOON)
            assert await is_held_up(first)
        await asyncio.wait_for(first, SOON)
        async with GrpcSaver(local_server.target) as other:
            beside = {saved.checkpoint["channel_values"]["a"]: saved async for saved in other.alist(run.thread)}
        assert {value: [task for task, *_ in saved.pending_writes or ()] for value, saved in beside.items()} == {
            1: ["1", "2"],
            2: ["3"],
        }


async def test_which_writes_are_not_handed_over(local_server: LocalServer, database_url: str, blocking: bool) -> None:
    cases = [("sync", "a"), ("exit", "a"), (None, "__error__"), (None, "__interrupt__"), (None, "__resume__")]
    async with GrpcSaver(local_server.target) as saver:
        runs = [(Run(saver, blocking=blocking, durability=durability), channel) for durability, channel in cases]
        await asyncio.gather(*(run.begin() for run, _ in runs))
        async with blocked(database_url):
            first = [run.writes(task_id="1") for run, _ in runs]
            await a_moment()
            others = [run.writes(channel, task_id="2") for run, channel in runs]
            assert all(await asyncio.gather(*map(is_held_up, others)))
        await asyncio.wait_for(asyncio.gather(*first, *others), SOON)


async def test_the_writes_under_way_raise_what_others_would_have(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            first = run.writes(task_id="1")
            await a_moment()
            await asyncio.wait_for(run.writes(task_id="x" * 200), SOON)
            await asyncio.wait_for(run.put(), SOON)
        with pytest.raises(InvalidArgumentError, match="task_id"):
            await asyncio.wait_for(first, SOON)
        assert await run.stored() == [1, 2]


async def test_writes_do_not_wait_for_those_of_a_later_step_whose_put_waits_for_them(
    local_server: LocalServer, database_url: str, blocking: bool
) -> None:
    """With delta channels LangGraph puts a checkpoint only when the writes of the step before have returned."""
    async with tuned(put_expected_within=60.0)(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        checkpoint = holding(2, "00000002")
        later = at(run.config, checkpoint)
        async with blocked(database_url):
            writes = run.writes(task_id="1")
            await a_moment()
            others = [run._call("put_writes", later, [("a", 2)], task_id) for task_id in "23"]
            await a_moment()
        await asyncio.wait_for(writes, SOON)
        assert not all(call.done() for call in others)  # one of them waits for the others
        await asyncio.wait_for(run._call("put", run.last, checkpoint, {"step": 2}, {"a": "00000002"}), SOON)
        await asyncio.wait_for(asyncio.gather(*others), SOON)
        assert await run.stored() == [1, 2]


async def test_beyond_a_bound_of_puts_they_wait(local_server: LocalServer, database_url: str, blocking: bool) -> None:
    async with GrpcSaver(local_server.target) as saver:
        run = Run(saver, blocking=blocking)
        await run.begin()
        async with blocked(database_url):
            writes = run.writes()
            await a_moment()
            for _ in range(handover.MAX_SAVES):
                await asyncio.wait_for(run.put(), SOON)
            one_more = run.put()
            assert await is_held_up(one_more)
        await asyncio.wait_for(asyncio.gather(writes, one_more), SOON)
        assert len(await run.stored()) == handover.MAX_SAVES + 2
