"""Memory of a call is freed when it is answered, without the garbage collector, which may run late."""

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
from tests.support.operations import GET, operation, results_of, send
from tests.support.until import auntil

SIZE = 1024 * 1024
CALLS = 8


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disables the garbage collector: only objects without references are freed."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()
    gc.collect()


async def growth(call: Callable[[], Awaitable[object]]) -> int:
    """Makes a call several times, and returns the growth of the process in bytes."""
    await call()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(CALLS):
        await call()
    grown = SIZE
    for _ in range(50):  # the server may finish a moment after the client has its answer
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


async def test_operations_of_a_pipeline(client: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    late = put_of(client, SIZE)
    late.precondition.if_version_match = 0
    bad = put_of(client, SIZE)
    bad.thread_id = ""
    stream = client.checkpoints.Pipeline()

    async def exchange(request: Any) -> None:
        await stream.write(pb.PipelineRequest(operations=[operation(1, request)]))
        assert (await stream.read()).results[0].id == 1

    async def work() -> None:
        for request in (put_of(client, SIZE), late, bad, pb.GetCheckpointRequest(thread_id="thread-1")):
            await exchange(request)

    grown = await growth(work)
    assert grown < SIZE


async def test_operations_of_one_message_of_which_some_conflict(client: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    request = put_of(client, SIZE // 4)
    late = put_of(client, SIZE // 4)
    late.precondition.if_version_match = 0
    message = pb.PipelineRequest(operations=[operation(i, one) for i, one in enumerate((request, late) * 2)])
    stream = client.checkpoints.Pipeline()

    async def work() -> None:
        await stream.write(message)
        results = 0
        while results < 4:
            results += len((await stream.read()).results)

    grown = await growth(work)
    assert grown < SIZE


async def test_streams_whose_clients_have_gone(client: Any, blocker: Any, no_collector: None) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    put = operation(1, put_of(client, SIZE, "2"), timeout_ms=500)

    async def give_up() -> None:
        stream = client.checkpoints.Pipeline()
        await stream.write(pb.PipelineRequest(operations=[put]))
        reading = asyncio.ensure_future(stream.read())

        async def is_held_up() -> bool:
            # On a busy machine its deadline may pass first.
            return bool(reading.done() or await blocked.waiting() == 1)

        await auntil(is_held_up)
        stream.cancel()
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await reading
        await blocked.until_waiting(0)

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
    """Not only their data. For refused calls gRPC keeps the error, and the error keeps the call."""

    def left() -> int:
        return sum(type(thing).__name__ == "_ServicerContext" for thing in gc.get_objects())

    before = left()
    for _ in range(CALLS):
        await client.checkpoints.PutCheckpoint(client.put_request())
    # The server may finish a moment after the client has its answer.
    await auntil(left, lambda number: number <= before + 1, pause=0.05)


async def test_streams_themselves(client: Any, blocker: Any, no_collector: None) -> None:
    """Streams that ended, and streams whose clients have gone."""

    def left() -> int:
        return sum(type(thing).__name__ in ("_Stream", "Outbox") for thing in gc.get_objects())

    await client.checkpoints.PutCheckpoint(client.put_request())
    put, late = client.put_request(), client.put_request()
    late.precondition.if_version_match = 0
    for _ in range(CALLS):
        stream = client.checkpoints.Pipeline()
        await send(stream, operation(1, put), operation(2, late), operation(3, GET), operation(4, put))
        await stream.done_writing()
        await results_of(stream, 4)
        assert await stream.read() is grpc.aio.EOF
    async with blocker() as blocked:
        for _ in range(CALLS):
            stream = client.checkpoints.Pipeline()
            await send(stream, operation(1, put), operation(2, GET), operation(3, put))
            await blocked.until_waiting(1)
            stream.cancel()
            await blocked.until_waiting(0)
    async with asyncio.timeout(20):
        while left() > 1:
            await asyncio.sleep(0.05)
