"""What a call held is free when it was answered: without the garbage collector, which may come late."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.rpc.requests import put_of

SIZE = 1024 * 1024
CALLS = 8


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing is freed but what nobody refers to."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()
    gc.collect()


async def growth(call: Callable[[], Awaitable[object]]) -> int:
    """Makes a call several times, and returns by how many bytes the process has grown."""
    await call()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(CALLS):
        await call()
    grown = SIZE
    for _ in range(50):  # what has ended for the client may end a moment later for the server
        await asyncio.sleep(0.1)
        after, _ = tracemalloc.get_traced_memory()
        grown = after - before
        if grown < SIZE:
            break
    return grown


async def refused(client: Any, put: bytes, reason: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await client.raw("CheckpointService/PutCheckpoint", put)
    details: Any = dict(raised.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert reason.encode() in details


async def test_a_put(client: Any, no_collector: None) -> None:
    data = put_of(client, SIZE).SerializeToString()
    grown = await growth(lambda: client.raw("CheckpointService/PutCheckpoint", data))
    assert grown < SIZE


async def test_a_read(client: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(put_of(client, SIZE))
    data = pb.GetCheckpointRequest(thread_id="thread-1").SerializeToString()
    grown = await growth(lambda: client.raw("CheckpointService/GetCheckpoint", data))
    assert grown < SIZE


async def test_a_put_that_conflicts(client: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    request = put_of(client, SIZE)
    request.precondition.if_version_match = 0
    data = request.SerializeToString()
    grown = await growth(lambda: refused(client, data, "VERSION_CONFLICT"))
    assert grown < SIZE


async def test_a_put_with_a_bad_field(client: Any, no_collector: None) -> None:
    request = put_of(client, SIZE)
    request.thread_id = ""
    data = request.SerializeToString()
    grown = await growth(lambda: refused(client, data, "INVALID_ARGUMENT"))
    assert grown < SIZE


async def test_bytes_that_are_no_request(client: Any, no_collector: None) -> None:
    data = b"\xff" * SIZE
    grown = await growth(lambda: refused(client, data, "INVALID_ARGUMENT"))
    assert grown < SIZE


async def test_a_batch_of_which_some_conflict(client: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    request = put_of(client, SIZE // 4)
    late = put_of(client, SIZE // 4)
    late.precondition.if_version_match = 0
    operations = [pb.BatchOperation(put_checkpoint=one) for one in (request, late, request, late)]
    data = pb.BatchRequest(operations=operations).SerializeToString()
    grown = await growth(lambda: client.raw("CheckpointService/Batch", data))
    assert grown < SIZE


async def test_messages_on_an_open_call(client: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    late = put_of(client, SIZE)
    late.precondition.if_version_match = 0
    open_call = client.checkpoints.StreamBatches()

    async def exchange(*operations: Any) -> None:
        await open_call.write(pb.StreamBatchesRequest(operations=operations))
        assert (await open_call.read()).id == 0

    async def work() -> None:
        await exchange(pb.BatchOperation(put_checkpoint=put_of(client, SIZE)))
        await exchange(pb.BatchOperation(put_checkpoint=late))
        await exchange(pb.BatchOperation(get_checkpoint=pb.GetCheckpointRequest(thread_id="thread-1")))

    grown = await growth(work)
    assert grown < SIZE


async def test_messages_that_were_given_up_on_open_calls(client: Any, blocker: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    put = pb.BatchOperation(put_checkpoint=put_of(client, SIZE, "2"))
    idle: list[Any] = []

    async def give_up() -> None:
        open_call = client.checkpoints.StreamBatches()
        await open_call.write(pb.StreamBatchesRequest(id=1, operations=[put]))
        await blocked.until_waiting(1)
        await open_call.write(pb.StreamBatchesRequest(id=1, cancel=True))
        await blocked.until_waiting(0)
        idle.append(open_call)

    async with blocker() as blocked:
        grown = await growth(give_up)
    assert grown < SIZE


async def test_what_there_is_no_room_for(serve: Any, blocker: Any, no_collector: None) -> None:
    async with serve(max_bytes_in_flight=SIZE) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        data = put_of(client, SIZE, "2").SerializeToString()
        async with blocker() as blocked:
            held = asyncio.ensure_future(client.checkpoints.PutCheckpoint(put_of(client, SIZE // 2, "2")))
            await blocked.until_waiting(1)
            grown = await growth(lambda: refused(client, data, "OVERLOADED"))
        await held
        assert grown < SIZE


async def test_a_call_whose_client_has_gone(client: Any, blocker: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    data = put_of(client, SIZE, "2").SerializeToString()

    async def give_up() -> None:
        with suppress(grpc.aio.AioRpcError):
            await client.raw("CheckpointService/PutCheckpoint", data, timeout=0.2)
        await blocked.until_waiting(0)

    async with blocker() as blocked:
        grown = await growth(give_up)
    assert grown < SIZE


async def test_puts_that_share_commits(client: Any, no_collector: None) -> None:
    request = put_of(client, SIZE // 4)
    request.precondition.if_version_match = 0
    data = request.SerializeToString()

    async def at_once() -> None:
        await asyncio.gather(*(refused(client, data, "VERSION_CONFLICT") for _ in range(8)))

    await client.checkpoints.PutCheckpoint(client.put_request())
    grown = await growth(at_once)
    assert grown < SIZE


async def test_calls_themselves(client: Any, no_collector: None) -> None:
    """Not only what they carry. Of those that are refused gRPC keeps the error, and the error the call."""

    def left() -> int:
        return sum(type(thing).__name__ == "_ServicerContext" for thing in gc.get_objects())

    await client.checkpoints.PutCheckpoint(client.put_request())
    await asyncio.sleep(0.1)
    before = left()
    for _ in range(CALLS):
        await client.checkpoints.PutCheckpoint(client.put_request())
    await asyncio.sleep(0.1)
    assert left() <= before + 1
