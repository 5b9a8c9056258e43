"""The primary dies and a synchronous standby takes over: acknowledged writes stay, and versions keep their rules."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import GrpcSaver, VersionConflictError

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2, values_pb2
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
from tests.support.gates import DURABILITIES, Gate, build, new_thread, said, turn, turns_of
from tests.support.replicas import ReplicatedPostgres
from tests.support.server_process import ServerProcess
from tests.support.until import auntil


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[ReplicatedPostgres]:
    """A primary and its standby."""
    async with ReplicatedPostgres(tmp_path / "postgres") as replicated:
        yield replicated


@pytest.fixture
async def server(postgres: ReplicatedPostgres, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that knows both hosts."""
    process = ServerProcess("--database-url", postgres.dsn, log_dir=tmp_path)
    # Starting and stopping block, and the event loop must also serve the database's processes.
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.stop)


@pytest.fixture
async def saver(server: ServerProcess) -> AsyncIterator[GrpcSaver]:
    """A saver with default options."""
    async with GrpcSaver(server.target) as saver:
        yield saver


@pytest.fixture
async def channel(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel for direct calls of the protocol."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield channel


@dataclass
class Writer:
    """Puts one checkpoint after another in a namespace, each on condition that the previous one is there.

    It repeats a put as long as the server has no database.
    """

    channel: grpc.aio.Channel
    thread_id: str = field(default_factory=lambda: f"writer-{uuid.uuid4()}")
    checkpoint_ids: list[str] = field(default_factory=list)
    """The checkpoints whose puts were answered."""
    versions: list[int] = field(default_factory=lambda: [0])
    """The versions from the answers, after an initial 0."""
    unavailable: int = 0
    stopped: bool = False

    async def run(self) -> None:
        """Writes until it is stopped."""
        service: Any = CheckpointServiceStub(self.channel)
        while not self.stopped:
            checkpoint = empty_checkpoint()
            request = pb.PutCheckpointRequest(
                thread_id=self.thread_id,
                checkpoint_id=checkpoint["id"],
                body=b"\x80",
                metadata=values_pb2.Metadata(value=values_pb2.TypedValue(type="msgpack", data=b"\x80")),
                precondition=values_pb2.Precondition(if_version_match=self.versions[-1]),
                request_id=uuid.uuid4().bytes,
            )
            answer = await self._send(service, request)
            self.checkpoint_ids.append(checkpoint["id"])
            self.versions.append(answer.version)

    async def _send(self, service: Any, request: pb.PutCheckpointRequest) -> pb.PutCheckpointResponse:
        while True:
            try:
                answer: pb.PutCheckpointResponse = await service.PutCheckpoint(request, timeout=60)
                return answer
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                self.unavailable += 1
                await asyncio.sleep(0.02)

    async def check(self) -> None:
        """All acknowledged checkpoints are there, and nothing else; no version was used twice."""
        service: Any = CheckpointServiceStub(self.channel)
        page = await service.ListCheckpoints(
            pb.ListCheckpointsRequest(thread_id=self.thread_id, checkpoint_ns="", page_size=1000)
        )
        assert [found.checkpoint_id for found in page.tuples] == sorted(self.checkpoint_ids, reverse=True)
        assert not page.next_page_token
        assert page.version == self.versions[-1]
        assert self.versions == sorted(set(self.versions))


@dataclass
class Talk:
    """Makes one turn after another of a real graph on one thread."""

    saver: GrpcSaver
    durability: str
    config: Any = field(default_factory=new_thread)
    done: list[str] = field(default_factory=list)
    """The turns that reported success."""
    stopped: bool = False

    async def run(self) -> None:
        """Makes turns until it is stopped."""
        while not self.stopped:
            who = f"{self.durability} {len(self.done)}"
            await build(self.saver).ainvoke(turn(who), self.config, durability=self.durability)
            self.done.append(who)

    def check(self) -> None:
        """Every turn that reported success is there, once and whole."""
        assert said(self.saver, self.config) == [word for who in self.done for word in turns_of(who)]


async def test_nothing_that_was_acknowledged_is_lost_and_no_version_comes_twice(
    postgres: ReplicatedPostgres, saver: GrpcSaver, channel: grpc.aio.Channel
) -> None:
    writers = [Writer(channel) for _ in range(6)]
    talks = [Talk(saver, durability) for durability in DURABILITIES]
    parties: list[Writer | Talk] = [*writers, *talks]
    async with asyncio.TaskGroup() as group:
        for party in parties:
            group.create_task(party.run())
        await auntil(lambda: all(len(writer.versions) > 20 for writer in writers))
        await auntil(lambda: all(len(talk.done) > 2 for talk in talks))
        postgres.kill_primary()
        await auntil(lambda: all(writer.unavailable for writer in writers))
        await postgres.promote()
        answered = [len(writer.versions) for writer in writers]
        done = [len(talk.done) for talk in talks]
        await auntil(lambda: all(len(writer.versions) > n + 20 for writer, n in zip(writers, answered, strict=True)))
        await auntil(lambda: all(len(talk.done) > n + 2 for talk, n in zip(talks, done, strict=True)))
        for party in parties:
            party.stopped = True
    for writer in writers:
        await writer.check()
    for talk in talks:
        talk.check()


async def test_versions_of_a_deleted_thread_grow_on_after_the_failover(
    postgres: ReplicatedPostgres, channel: grpc.aio.Channel
) -> None:
    threads: Any = ThreadServiceStub(channel)
    before = Writer(channel)
    await write(before, 40)
    await threads.DeleteThread(thread_service_pb2.DeleteThreadRequest(thread_id=before.thread_id))
    postgres.kill_primary()
    await postgres.promote()
    after = Writer(channel, thread_id=before.thread_id)
    await write(after, 1)
    assert after.versions[-1] > before.versions[-1]
    await after.check()


@pytest.mark.long
async def test_a_primary_that_is_cut_off_and_refuses_nothing_is_left_for_the_new_one(
    postgres: ReplicatedPostgres, server: ServerProcess, channel: grpc.aio.Channel
) -> None:
    service: Any = CheckpointServiceStub(channel)
    writer = Writer(channel)
    await write(writer, 1)
    request = pb.GetCheckpointRequest(thread_id=writer.thread_id)
    # The pool is full of connections to a host that is about to freeze.
    await asyncio.gather(*(service.GetCheckpoint(request, timeout=30) for _ in range(100)))
    await postgres.freeze_primary()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await service.GetCheckpoint(request, timeout=0.5)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await auntil(lambda: "replacing the database connections" in server.stderr)
    await postgres.promote()
    writer.stopped = False
    await write(writer, 20)
    await writer.check()


async def write(writer: Writer, count: int) -> None:
    """Lets a writer put this many checkpoints."""
    async with asyncio.TaskGroup() as group:
        group.create_task(writer.run())
        await auntil(lambda: len(writer.checkpoint_ids) >= count)
        writer.stopped = True


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_runs_that_a_failover_meets_conflict_if_they_were_overtaken_and_go_on_if_not(
    postgres: ReplicatedPostgres, saver: GrpcSaver, durability: str
) -> None:
    async def start(config: Any) -> tuple[Gate, asyncio.Task[Any]]:
        gate = Gate()
        graph = build(saver, gates={"slow": gate})
        run = asyncio.create_task(graph.ainvoke(turn("slow"), config, durability=durability))
        await auntil(gate.arrived.is_set)
        if durability != "exit":
            await until_saved(saver, config)
        return gate, run

    config, overtaken, fresh = new_thread(), new_thread(), new_thread()
    for thread in (config, overtaken):
        await build(saver).ainvoke(turn("before"), thread)
    runs = [await start(thread) for thread in (config, overtaken, fresh)]
    await build(saver).ainvoke(turn("fast"), overtaken)
    postgres.kill_primary()
    await postgres.promote()
    for gate, _ in runs:
        gate.open.set()
    results = await asyncio.gather(*(run for _, run in runs), return_exceptions=True)
    assert isinstance(results[1], VersionConflictError)
    assert results[0] == {"said": turns_of("before") + turns_of("slow")}
    assert said(saver, config) == turns_of("before") + turns_of("slow")
    assert results[2] == {"said": turns_of("slow")}
    assert said(saver, fresh) == turns_of("slow")
    assert said(saver, overtaken)[-4:] == turns_of("fast")
    assert "slow.middle" not in said(saver, overtaken)


async def until_saved(saver: GrpcSaver, config: Any) -> None:
    """Waits until the run's steps before its gate are stored: with "async", that happens in the background."""
    await auntil(lambda: build(saver).aget_state(config), lambda state: state.next == ("middle",))
