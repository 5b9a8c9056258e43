"""The end of a stream: by its client, by its server, by an unreadable message, and by results that nobody reads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.access import AccessOptions, Scope
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.auth.api_keys import new_key
from checkpointd_server.rpc.health import READINESS
from checkpointd_server.rpc.pipeline.pipelines import PipelineOptions
from tests.rpc.requests import put_of
from tests.rpc.serving import connection_of_its_own, until_idle
from tests.support.operations import GET, ask, operation, results_of, send
from tests.support.rpc_client import bearer

MOST = Limits().max_pipeline_bytes


async def end_of(stream: Any) -> grpc.aio.AioRpcError:
    """Reads from a stream that should have ended with an error, and returns the error."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async with asyncio.timeout(20):
            await stream.read()
    return raised.value


def reason_of(error: grpc.aio.AioRpcError) -> bytes:
    details: Any = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return bytes(details)


async def test_a_message_that_cannot_be_read_ends_the_stream(client: Any) -> None:
    for garbage in (b"\xff\xff\xff", b"\x0a\x7f"):
        stream = client.channel.stream_stream("/checkpointd.v1.CheckpointService/Pipeline")()
        await stream.write(garbage)
        error = await end_of(stream)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_of_too_many_operations_ends_the_stream(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    await send(stream, *(operation(number, GET) for number in range(256)))
    await results_of(stream, 256)
    await send(stream, *(operation(number, GET) for number in range(257)))
    error = await end_of(stream)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "operations: has 257 entries, at most 256 are allowed"


async def test_a_message_that_is_too_large_ends_the_stream_after_those_before(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    stream = client.checkpoints.Pipeline()
    async with blocker() as blocked:
        await send(stream, operation(1, client.put_request(checkpoint_id="2")))
        await blocked.until_waiting(1)
        await send(stream, operation(2, put_of(client, MOST)))
    (result,) = await results_of(stream, 1)
    assert result.put_checkpoint.version
    error = await end_of(stream)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MOST) in (error.details() or "")


async def test_a_client_that_goes_away_leaves_nothing_at_work(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        stream = client.checkpoints.Pipeline()
        async with blocker() as blocked:
            await send(
                stream,
                operation(1, client.put_request(checkpoint_id="2"), timeout_ms=2000),
                operation(2, GET),
                operation(3, client.put_request(checkpoint_id="3")),
                operation(4, client.put_request(body=None)),
            )
            await blocked.until_waiting(1)
            stream.cancel()
            async with asyncio.timeout(20):
                # Operations that the store has begun count until they are done; the others are dropped.
                while server.active_calls > 1:
                    await asyncio.sleep(0.01)
            await blocked.until_waiting(0)
        await until_idle(server)
        assert server._calls._load.held_bytes == 0
        assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"


async def test_a_server_that_drains_answers_what_it_took_and_ends_the_stream(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        idle, busy = client.checkpoints.Pipeline(), client.checkpoints.Pipeline()
        await ask(idle, GET)
        async with blocker() as blocked:
            await send(busy, operation(1, client.put_request(checkpoint_id="checkpoint-2")), operation(2, GET))
            await blocked.until_waiting(1)
            draining = asyncio.create_task(server.drain(60))
            for stream in (idle, client.checkpoints.Pipeline()):
                error = await end_of(stream)
                assert error.code() == grpc.StatusCode.UNAVAILABLE
                assert b"DRAINING" in reason_of(error)
            assert not draining.done()
        put, read = await results_of(busy, 2)
        assert put.put_checkpoint.version
        assert read.get_checkpoint.tuple.checkpoint_id == "checkpoint-2"
        assert b"DRAINING" in reason_of(await end_of(busy))
        async with asyncio.timeout(20):
            await draining


async def test_an_operation_that_comes_while_the_server_drains_is_not_done(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        stream = client.checkpoints.Pipeline()
        async with blocker() as blocked:
            await send(stream, operation(1, client.put_request(checkpoint_id="2")))
            await blocked.until_waiting(1)
            draining = asyncio.create_task(server.drain(60))
            await asyncio.sleep(0.2)
            await send(stream, operation(2, client.put_request(thread_id="other")))
        (result,) = await results_of(stream, 1)
        assert result.id == 1
        assert b"DRAINING" in reason_of(await end_of(stream))
        await draining
    async with serve() as (_, client):
        assert not (await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="other"))).version


async def test_a_client_that_does_not_read_loses_its_stream_and_nobody_else_is_refused(
    serve: Any, tmp_path: Path
) -> None:
    """Bytes held for it are missing for the others, and it may never read."""
    target = f"unix:{tmp_path}/socket"
    async with serve(listen=(target,), max_bytes_in_flight=8 * 1024 * 1024, default_timeout=6.0) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request(body=bytes(900_000)))
        async with connection_of_its_own(target) as stub:
            stream = stub.Pipeline()
            for number in range(100):
                await send(stream, operation(number, GET))
            async with asyncio.timeout(20):
                while not server._calls._load.held_bytes:
                    await asyncio.sleep(0.01)
                assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"
                while server._calls._load.held_bytes or server.active_calls:
                    await asyncio.sleep(0.01)
            assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"
            # The client learns of it if it reads after all.
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await results_of(stream, 100)
            assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert raised.value.details() == "no result of this stream was read for 6 s"


async def test_a_client_that_reads_late_loses_nothing(serve: Any, tmp_path: Path) -> None:
    target = f"unix:{tmp_path}/socket"
    async with serve(listen=(target,)) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request(body=bytes(900_000)))
        async with connection_of_its_own(target) as stub:
            stream = stub.Pipeline()
            for number in range(40):
                await send(stream, operation(number, GET, timeout_ms=30_000))
            await stream.done_writing()
            await asyncio.sleep(1)
            # The server has read ahead only a few operations, and holds few bytes for the client.
            assert server._calls._load.held_bytes <= 8 * 1024 * 1024
            assert [result.id for result in await results_of(stream, 40)] == list(range(40))
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK


async def test_only_so_many_streams_are_open(serve: Any) -> None:
    async with serve(pipeline=PipelineOptions(max_streams=2)) as (_, client):
        streams = [client.checkpoints.Pipeline() for _ in range(2)]
        for stream in streams:
            await ask(stream, GET)
        assert b"OVERLOADED" in reason_of(await end_of(client.checkpoints.Pipeline()))
        health = health_pb2_grpc.HealthStub(client.channel)
        ready = await health.Check(health_pb2.HealthCheckRequest(service=READINESS))
        assert ready.status == health_pb2.HealthCheckResponse.SERVING  # the streams are idle
        await streams[0].done_writing()
        assert await streams[0].read() is grpc.aio.EOF
        assert (await ask(client.checkpoints.Pipeline(), GET)).WhichOneof("result") == "get_checkpoint"


async def test_a_key_that_was_withdrawn_ends_the_stream(serve: Any, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.toml"
    key, entry = new_key("acme", [Scope.READ], "reader")
    keys_file.write_text(entry)
    async with serve(access=AccessOptions(keys_file=keys_file)) as (_, client):
        stream = client.checkpoints.Pipeline(metadata=bearer(key))
        assert (await ask(stream, GET)).WhichOneof("result") == "get_checkpoint"
        # Scopes are checked for each operation.
        assert (await ask(stream, client.put_request())).failure.reason == "PERMISSION_DENIED"
        keys_file.write_text("")
        async with asyncio.timeout(20):
            while (result := await ask(stream, GET)).WhichOneof("result") == "get_checkpoint":
                await asyncio.sleep(0.1)
        assert result.failure.reason == "UNAUTHENTICATED"
        assert (await end_of(stream)).code() == grpc.StatusCode.UNAUTHENTICATED
