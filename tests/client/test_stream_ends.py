"""The end of a saver's streams: at their time limit, or with their server, their saver or their event loop."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver
from langgraph.checkpoint.grpc._transport.stream import Stream

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.checkpoint_service_pb2_grpc import (
    CheckpointServiceServicer,
    add_CheckpointServiceServicer_to_server,
)
from tests.client import fork_while_saving
from tests.support.calls import checkpoint, config_of
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned
from tests.support.until import auntil


async def test_a_stream_is_changed_for_a_new_one_and_ends_when_all_is_answered(
    local_server: LocalServer, blocker: Any, opened: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with blocker() as blocked:
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await blocked.until_waiting(1)
            opened[0].until = 0.0  # its time is up
            assert await saver.aget_tuple(config_of("another")) is None
            assert len(opened) == 2
            assert not opened[0].ended
        await stuck
        await auntil(lambda: opened[0].ended)
        assert opened[1].is_open


async def test_a_stream_that_the_server_has_ended_is_replaced_unseen(
    server: ServerProcess, opened: list[Stream], caplog: pytest.LogCaptureFixture
) -> None:
    async with GrpcSaver(server.target) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        server.stop()
        await auntil(lambda: not opened[0].is_open)
        server.restart()
        assert await saver.aget_tuple(config_of("t"))
    assert len(opened) >= 2
    assert "unavailable" not in caplog.text


@pytest.mark.parametrize("restarts", [3, pytest.param(8, marks=pytest.mark.long)])
async def test_a_server_that_restarts_under_load_is_waited_for(server: ServerProcess, restarts: int) -> None:
    """Whatever a stream was doing when it ended: if it was being written to, grpc.aio reports an internal error."""
    done = 0

    async def work(saver: GrpcSaver, number: int, ended: asyncio.Event) -> None:
        nonlocal done
        while not ended.is_set():
            await saver.aput(config_of(f"under load {number}"), checkpoint("1"), {}, {})
            done += 1
            if number % 5 == 0:
                time.sleep(0.005)  # like a busy agent: what arrives meanwhile is seen late

    async with GrpcSaver(server.target) as saver, asyncio.TaskGroup() as agents:
        ended = asyncio.Event()
        for number in range(24):
            agents.create_task(work(saver, number, ended))
        for _ in range(restarts):
            enough = done + 100
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.restart)
            await auntil(lambda: done, partial(operator.le, enough))
        ended.set()


class WithoutStreams(CheckpointServiceServicer):
    """A server that has no thread, and refuses streams at once."""

    def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Any) -> pb.GetCheckpointResponse:
        return pb.GetCheckpointResponse()


async def test_a_server_that_refuses_streams_is_asked_by_single_calls_without_a_retry() -> None:
    """If a stream is refused while it is being written to, grpc.aio doesn't say so. That happens now and then."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_CheckpointServiceServicer_to_server(WithoutStreams(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for _ in range(60):
            async with GrpcSaver(f"127.0.0.1:{port}", retry_budget=0) as saver:
                found = await asyncio.gather(*(saver.aget_tuple(config_of(f"{number}")) for number in range(5)))
                assert found == [None] * 5
    finally:
        server.stop(None).wait()


async def test_a_stream_that_nobody_uses_is_ended(shared_server: ServerProcess, opened: list[Stream]) -> None:
    async with tuned(stream_lifetime=0.2)(shared_server.target) as saver:
        await saver.aget_tuple(config_of("idle"))
        await auntil(lambda: not opened[0].is_open)
        await saver.aget_tuple(config_of("idle"))
    assert len(opened) == 2


async def test_a_clone_that_is_closed_takes_nothing_from_the_others(
    local_server: LocalServer, blocker: Any, opened: list[Stream]
) -> None:
    async with GrpcSaver(local_server.target) as saver:
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with blocker() as blocked:
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await blocked.until_waiting(1)
            await copy(saver).aclose()
            async with copy(saver):
                pass
            assert not stuck.done()
        await stuck
        await saver.aget_tuple(config_of("t"))
        assert opened[0].is_open
    assert len(opened) == 1


async def test_whoever_leaves_a_block_waits_for_what_others_have_under_way(
    local_server: LocalServer, blocker: Any, opened: list[Stream]
) -> None:
    saver = GrpcSaver(local_server.target)
    async with copy(saver):
        await saver.aput(config_of("t"), checkpoint("1"), {}, {})
        async with blocker() as blocked:
            stuck = asyncio.create_task(saver.aput(config_of("t"), checkpoint("2"), {}, {}))
            await blocked.until_waiting(1)
    await stuck
    assert opened[0].ended
    # In the background from now on.
    assert await saver.aget_tuple(config_of("t")) is not None
    assert len(opened) == 2
    await saver.aclose()


async def test_a_saver_that_is_closed_says_so(local_server: LocalServer, blocker: Any) -> None:
    saver = GrpcSaver(local_server.target)
    async with copy(saver) as in_block:
        await in_block.aput(config_of("t"), checkpoint("1"), {}, {})
        async with blocker() as blocked:
            stuck = [asyncio.create_task(in_block.aput(config_of("t"), checkpoint("2"), {}, {}))]
            stuck.append(asyncio.create_task(asyncio.to_thread(saver.put, config_of("t"), checkpoint("3"), {}, {})))
            await blocked.until_waiting(1)
            await saver.aclose()
            await in_block.aclose()
            for put in stuck:
                with pytest.raises(CheckpointdError, match="closed"):
                    await put
    with pytest.raises(CheckpointdError, match="closed"):
        await in_block.aget_tuple(config_of("t"))


@pytest.mark.parametrize("way", ["in_a_block", "closed_in_a_block", "without"])
def test_event_loops_that_end_are_no_noise(shared_server: ServerProcess, way: str) -> None:
    """A stream that is open when its loop ends disturbs grpc in the next loop. So only a saver's block opens one."""
    program = """
import asyncio, sys, threading
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.grpc._transport.stream import Stream
opened, init = [], Stream.__init__
Stream.__init__ = lambda self, *args: (opened.append(threading.current_thread().name), init(self, *args))[1]
config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
unclosed = GrpcSaver(sys.argv[1])
async def in_a_block():
    async with GrpcSaver(sys.argv[1]) as saver:
        await saver.aget_tuple(config)
async def closed_in_a_block():
    async with GrpcSaver(sys.argv[1]) as saver:
        await saver.aget_tuple(config)
        saver.close()
async def without():
    await unclosed.aget_tuple(config)
work = globals()[sys.argv[2]]
for _ in range(10):
    asyncio.run(work())
loop = asyncio.new_event_loop()
loop.run_until_complete(work())
loop.close()
asyncio.run(work())
print(*dict.fromkeys(opened), len(opened))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, shared_server.target, way],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    streams = "checkpointd 1" if way == "without" else "MainThread 12"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{streams}\n", "")


@pytest.mark.parametrize("forks", [12, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", [[], ["instrumented"]], ids=lambda how: "".join(how) or "plain")
def test_a_fork_while_saving_harms_neither_parent_nor_child(
    how: list[str], forks: int, shared_server: ServerProcess
) -> None:
    """A tool's process pool, for example: LangGraph saves in the background while it starts."""
    ended = subprocess.run(
        [sys.executable, str(Path(fork_while_saving.__file__)), shared_server.target, str(forks), *how],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"children: {[0] * forks}\nstored: {forks * fork_while_saving.NAMESPACES}\n"
    assert "unavailable" not in ended.stderr
