"""Blocks and calls that are cancelled, once or, as anyio does, at every await: clean-up still completes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest
from langgraph.checkpoint.grpc import Encryption, GrpcSaver

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.support.calls import checkpoint, config_of
from tests.support.server_process import ServerProcess

TTL = 600.0
SOON = 30.0
"""Long for a call, short for a lease."""

Started = asyncio.Event
Block = Callable[[Started], Coroutine[Any, Any, None]]


async def cancel_with_anyio(block: Block) -> None:
    started = asyncio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(block, started)
        await started.wait()
        tasks.cancel_scope.cancel()


async def cancel_again_and_again(block: Block) -> None:
    started = asyncio.Event()
    task = asyncio.ensure_future(block(started))
    await started.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await task


async def cancel_once(block: Block) -> None:
    started = asyncio.Event()
    task = asyncio.ensure_future(block(started))
    await started.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture(params=[cancel_with_anyio, cancel_again_and_again, cancel_once], ids=lambda way: way.__name__)
def cancel(request: pytest.FixtureRequest) -> Callable[[Block], Awaitable[None]]:
    """Runs a block until it says that it has started, and cancels it."""
    return request.param  # type: ignore[no-any-return]


async def test_a_lease_is_given_up(
    cancel: Callable[[Block], Awaitable[None]], shared_server: ServerProcess, thread_id: str
) -> None:
    async with GrpcSaver(shared_server.target) as saver:

        async def block(started: Started) -> None:
            async with saver.alease(thread_id, ttl=TTL):
                started.set()
                await asyncio.sleep(TTL)

        await cancel(block)
        async with saver.alease(thread_id, ttl=TTL, wait=SOON):
            pass


async def test_half_a_copy_is_deleted(
    cancel: Callable[[Block], Awaitable[None]],
    shared_server: ServerProcess,
    thread_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = f"{thread_id} copy"
    encryption = Encryption(keys={"k": b"k" * 32}, current="k")
    async with GrpcSaver(shared_server.target, encryption=encryption) as saver:
        for number in range(3):
            await saver.aput(
                config_of(thread_id, "", str(number) if number else None),
                checkpoint(str(number + 1), {"a": number}),
                {},
                {"a": 1},
            )
        acall = saver._client.acall

        async def block(started: Started) -> None:
            puts = 0

            async def counted(request: Any, **options: Any) -> Any:
                nonlocal puts
                answer = await acall(request, **options)
                if isinstance(request, pb.PutCheckpointRequest):
                    puts += 1
                    if puts == 2:
                        started.set()
                        await asyncio.sleep(TTL)
                return answer

            monkeypatch.setattr(saver._client, "acall", counted)
            await saver.acopy_thread(thread_id, target)

        await cancel(block)
        assert [saved async for saved in saver.alist(config_of(target, None))] == []
        monkeypatch.undo()
        await saver.acopy_thread(thread_id, target)
        assert len([saved async for saved in saver.alist(config_of(target, None))]) == 3
