"""StreamBatches: batches over one call that stays open, each as if it had come in a call of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc import open_calls
from checkpointd_server.rpc.health import READINESS
from tests.rpc.requests import operation
from tests.rpc.serving import until_idle
from tests.support.until import auntil

pytestmark = pytest.mark.usefixtures("patient_batches")

GET = pb.GetCheckpointRequest(thread_id="thread-1")


def message(number: int, *requests: Any, **fields: Any) -> pb.StreamBatchesRequest:
    return pb.StreamBatchesRequest(id=number, operations=map(operation, requests), **fields)


async def answers(call: Any, count: int) -> dict[int, pb.StreamBatchesResponse]:
    """Reads so many answers, by their ids."""
    async with asyncio.timeout(20):
        read = [await call.read() for _ in range(count)]
    return {answer.id: answer for answer in read}


async def ask(call: Any, *requests: Any, number: int = 1, **fields: Any) -> pb.StreamBatchesResponse:
    """Sends a message and reads its answer, which must be the next."""
    await call.write(message(number, *requests, **fields))
    return (await answers(call, 1))[number]


async def test_messages_are_done_as_batches_are(client: Any) -> None:
    call = client.checkpoints.StreamBatches()
    put = await ask(call, client.put_request(), client.writes_request(), number=7)
    assert [result.WhichOneof("result") for result in put.results] == ["put_checkpoint", "put_writes"]
    read = await ask(call, GET, number=8)
    (result,) = read.results
    assert result.get_checkpoint.version == put.results[0].put_checkpoint.version
    assert len(result.get_checkpoint.tuple.pending_writes) == 1
    assert not (await ask(call, number=9)).results
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_what_was_sent_before_the_end_is_answered(client: Any) -> None:
    call = client.checkpoints.StreamBatches()
    for number in range(40):
        await call.write(message(number, client.put_request(thread_id=f"thread-{number}")))
    await call.done_writing()
    found = await answers(call, 40)
    assert sorted(found) == list(range(40))
    assert all(answer.results[0].put_checkpoint.version for answer in found.values())
    assert await call.read() is grpc.aio.EOF


async def test_a_message_that_waits_does_not_hold_up_the_next(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    call = client.checkpoints.StreamBatches()
    async with blocker() as blocked:
        await call.write(message(1, client.put_request(checkpoint_id="2")))
        await blocked.until_waiting(1)
        assert (await ask(call, GET, number=2)).results[0].get_checkpoint.tuple.checkpoint_id == "checkpoint-1"
    assert (await answers(call, 1))[1].results[0].put_checkpoint.version


async def test_only_so_many_messages_are_at_work_at_once(
    serve: Any, blocker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_calls, "MESSAGES_AT_WORK", 2)
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        call = client.checkpoints.StreamBatches()
        async with blocker() as blocked:
            for number in range(5):
                await call.write(message(number, client.put_request(checkpoint_id=str(number))))
            await blocked.until_waiting(1)  # the others on this namespace wait in the server
            await auntil(lambda: server.active_calls, lambda number: number >= 2)
            await asyncio.sleep(0.1)
            assert server.active_calls == 2
        assert len(await answers(call, 5)) == 5


async def test_a_call_that_fails_fails_for_itself(client: Any) -> None:
    call = client.checkpoints.StreamBatches()
    answer = await ask(call, client.put_request(thread_id=""), client.put_request(), number=3)
    refused, stored = answer.results
    assert refused.failure.reason == "INVALID_ARGUMENT"
    assert refused.failure.metadata["field"] == "thread_id"
    assert stored.put_checkpoint.version


async def test_a_message_that_is_refused_leaves_the_call_open(serve: Any) -> None:
    async with serve(limits=Limits(max_batch_operations=2)) as (server, client):
        call = client.checkpoints.StreamBatches()
        refused = await ask(call, GET, GET, GET, number=1)
        assert refused.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert refused.failure.metadata["field"] == "operations"
        assert not refused.results
        assert len((await ask(call, GET, GET, number=2)).results) == 2
        assert server.active_calls == 0


async def test_a_message_too_many_is_refused_with_a_hint(serve: Any, blocker: Any) -> None:
    async with serve(max_concurrent_calls=1) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        call = client.checkpoints.StreamBatches()
        async with blocker() as blocked:
            await call.write(message(1, client.put_request(checkpoint_id="2")))
            await blocked.until_waiting(1)
            refused = await ask(call, GET, number=2)
            assert refused.failure.reason == "OVERLOADED"
            assert refused.failure.retry_after_ms > 0
        assert (await answers(call, 1))[1].results[0].put_checkpoint.version


async def test_a_message_that_cannot_be_read_ends_the_call(client: Any) -> None:
    for garbage in (b"\xff\xff\xff", b"\x0a\x7f"):
        call = client.channel.stream_stream("/checkpointd.v1.CheckpointService/StreamBatches")()
        await call.write(garbage)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_that_is_too_large_ends_the_call_after_those_before(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    call = client.checkpoints.StreamBatches()
    async with blocker() as blocked:
        await call.write(message(1, client.put_request(checkpoint_id="2")))
        await blocked.until_waiting(1)
        large = client.put_request(metadata=client.metadata({"a": "x" * open_calls.MESSAGE_BYTES}))
        await call.write(message(2, large))
    assert (await answers(call, 1))[1].results[0].put_checkpoint.version
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(open_calls.MESSAGE_BYTES) in (raised.value.details() or "")


async def test_a_message_has_a_deadline_of_its_own(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    call = client.checkpoints.StreamBatches()
    async with blocker() as blocked:
        answer = await ask(call, client.put_request(checkpoint_id="2"), timeout_ms=200)
        assert answer.results[0].failure.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        await blocked.until_waiting(0)
    assert (await ask(call, GET)).results[0].get_checkpoint.tuple.checkpoint_id == "checkpoint-1"


async def test_a_message_that_is_given_up_is_left_undone(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        call = client.checkpoints.StreamBatches()
        async with blocker() as blocked:
            await call.write(message(1, client.put_request(checkpoint_id="2")))
            await blocked.until_waiting(1)
            await call.write(pb.StreamBatchesRequest(id=1, cancel=True))
            await call.write(pb.StreamBatchesRequest(id=99, cancel=True))  # there is none
            await blocked.until_waiting(0)
        assert (await ask(call, GET, number=2)).results[0].get_checkpoint.tuple.checkpoint_id == "checkpoint-1"
        await until_idle(server)


async def test_a_client_that_goes_away_leaves_nothing_at_work(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        call = client.checkpoints.StreamBatches()
        async with blocker() as blocked:
            await call.write(message(1, client.put_request(checkpoint_id="2")))
            await blocked.until_waiting(1)
            call.cancel()
            await blocked.until_waiting(0)
        assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"
        await until_idle(server)


async def test_a_server_that_drains_answers_what_it_took_and_ends_the_call(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        idle, busy = client.checkpoints.StreamBatches(), client.checkpoints.StreamBatches()
        await ask(idle, GET)
        async with blocker() as blocked:
            await busy.write(message(1, client.put_request(checkpoint_id="2")))
            await blocked.until_waiting(1)
            draining = asyncio.create_task(server.drain(60))
            await refused_for(idle, "DRAINING")
            await refused_for(client.checkpoints.StreamBatches(), "DRAINING")
            assert not draining.done()
        assert (await answers(busy, 1))[1].results[0].put_checkpoint.version
        await refused_for(busy, "DRAINING")
        async with asyncio.timeout(20):
            await draining


async def test_a_client_that_does_not_read_loses_its_call_and_nobody_else_is_refused(
    serve: Any, tmp_path: Path
) -> None:
    """What is held for it is held from the others, and it may never read."""
    size, target = 2_900_000, f"unix:{tmp_path}/socket"
    async with serve(listen=(target,), max_bytes_in_flight=8 * size) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request(metadata=client.metadata({"a": "x" * size})))
        async with connection_of_its_own(target) as stub:
            call = stub.StreamBatches()
            for number in range(12):
                await call.write(message(number, GET, timeout_ms=6000))
            await auntil(lambda: server._calls._load.held_bytes, lambda held: held >= 8 * size)
            await auntil(lambda: server._calls._load.held_bytes, lambda held: held == 0)
            assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"
            # It is told, should it read after all.
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await answers(call, 12)
            assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert raised.value.details() == "no answer of this call was read for 6 s"


async def test_a_client_that_reads_late_loses_nothing_however_little_time_a_message_had(
    serve: Any, tmp_path: Path
) -> None:
    size, target = 2_900_000, f"unix:{tmp_path}/socket"
    async with serve(listen=(target,)) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request(metadata=client.metadata({"a": "x" * size})))
        async with connection_of_its_own(target) as stub:
            call = stub.StreamBatches()
            for number in range(12):
                await call.write(message(number, GET))
            await auntil(lambda: server._calls._load.held_bytes, lambda held: held >= 8 * size)
            await call.write(message(12, timeout_ms=1))
            await call.done_writing()
            await asyncio.sleep(0.5)
            assert sorted(await answers(call, 13)) == list(range(13))
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK


@asynccontextmanager
async def connection_of_its_own(target: str) -> AsyncIterator[Any]:
    """Returns a stub on a connection that nothing else uses: it would wait for what isn't read, too."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield CheckpointServiceStub(channel)


async def refused_for(call: Any, reason: str) -> None:
    """Reads on a call that must have ended for this reason."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(20):
            await call.read()
    details: Any = dict(raised.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert reason.encode() in details


async def test_only_so_many_calls_are_open(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_calls, "OPEN_CALLS", 2)
    calls = [client.checkpoints.StreamBatches() for _ in range(2)]
    for call in calls:
        await ask(call, GET)
    await refused_for(client.checkpoints.StreamBatches(), "OVERLOADED")
    health = health_pb2_grpc.HealthStub(client.channel)
    ready = await health.Check(health_pb2.HealthCheckRequest(service=READINESS))
    assert ready.status == health_pb2.HealthCheckResponse.SERVING  # none of them has anything to do
    await calls[0].done_writing()
    assert await calls[0].read() is grpc.aio.EOF
    assert (await ask(client.checkpoints.StreamBatches(), GET)).results
