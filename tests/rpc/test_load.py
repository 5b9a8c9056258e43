"""Overload: calls are refused at once, with a retry delay, before their request is read if possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.calls.admission import READS_AT_ONCE, SWEEP_SECONDS, AdmissionController
from checkpointd_server.rpc.health import READINESS
from tests.rpc.requests import put_of
from tests.support.until import auntil

MEBIBYTE = 1024 * 1024
PUT = "/checkpointd.v1.CheckpointService/PutCheckpoint"
GET = pb.GetCheckpointRequest(thread_id="thread-1")


async def silent() -> AsyncIterator[bytes]:
    """A request that never arrives."""
    await asyncio.Event().wait()
    yield b""


def arriving(client: Any, requests: AsyncIterator[bytes] | None = None, **options: Any) -> Any:
    """A call whose request is still arriving."""
    return client.channel.stream_unary(PUT)(requests or silent(), **options)


async def hint_of(call: Any) -> float:
    """Awaits a call that should be refused, and returns its retry delay in seconds."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    details: Any = dict(raised.value.trailing_metadata() or ())["grpc-status-details-bin"]
    hint = RetryInfo()
    assert Status.FromString(details).details[1].Unpack(hint)
    return float(hint.retry_delay.ToMilliseconds() / 1000)


async def is_ready(client: Any) -> bool:
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=READINESS))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_bytes_beyond_the_bound_are_refused_until_there_is_room(serve: Any, blocker: Any) -> None:
    async with serve(max_bytes_in_flight=MEBIBYTE) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        async with blocker() as blocked:
            # Larger than the bound, but nothing else is in flight.
            large = asyncio.ensure_future(client.checkpoints.PutCheckpoint(put_of(client, 2 * MEBIBYTE, "2")))
            await blocked.until_waiting(1)
            for size in (1000, MEBIBYTE):
                refusal = await client.refused(client.checkpoints.PutCheckpoint(put_of(client, size, "3")))
                assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert refusal.reason == "OVERLOADED"
                assert refusal.metadata == {"bound": "bytes", "limit": str(MEBIBYTE)}
        await large
        # The answer counts too, until it has been sent.
        assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "checkpoint-1"
        await client.checkpoints.PutCheckpoint(put_of(client, MEBIBYTE, "4"))


async def test_a_small_call_beside_large_ones_goes_on(serve: Any, blocker: Any) -> None:
    async with serve(max_bytes_in_flight=3 * MEBIBYTE) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        async with blocker() as blocked:
            large = asyncio.ensure_future(client.checkpoints.PutCheckpoint(put_of(client, 2 * MEBIBYTE, "2")))
            await blocked.until_waiting(1)
            refusal = await client.refused(client.checkpoints.PutCheckpoint(put_of(client, 2 * MEBIBYTE, "3")))
            assert refusal.metadata["bound"] == "bytes"
            await client.checkpoints.GetCheckpoint(GET)
        await large


async def test_the_more_is_refused_the_later_it_is_to_come_again(serve: Any, blocker: Any) -> None:
    async with serve(max_concurrent_calls=1) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        async with blocker() as blocked:
            at_work = asyncio.ensure_future(client.checkpoints.PutCheckpoint(client.put_request()))
            await blocked.until_waiting(1)
            first = await hint_of(client.checkpoints.GetCheckpoint(GET))
            hints = [await hint_of(client.checkpoints.GetCheckpoint(GET)) for _ in range(50)]
            assert 0.05 <= first <= 1.5
            assert 2.5 <= hints[-1] <= 7.5
            assert len(set(hints)) > 10
            async with asyncio.timeout(20):
                while await is_ready(client):
                    await hint_of(client.checkpoints.GetCheckpoint(GET))  # or it would recover
            whole = await health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())
            assert whole.status == health_pb2.HealthCheckResponse.SERVING
        await at_work
        await auntil(lambda: is_ready(client))


async def test_who_watches_readiness_is_told_of_overload(serve: Any, blocker: Any) -> None:
    async with serve(max_concurrent_calls=1) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service=READINESS))
        told = [(await watch.read()).status]
        async with blocker() as blocked:
            at_work = asyncio.ensure_future(client.checkpoints.PutCheckpoint(client.put_request()))
            await blocked.until_waiting(1)
            await client.refused(client.checkpoints.GetCheckpoint(GET))
            told.append((await asyncio.wait_for(watch.read(), 20)).status)
        await at_work
        told.append((await asyncio.wait_for(watch.read(), 20)).status)
        health = health_pb2.HealthCheckResponse
        assert told == [health.SERVING, health.NOT_SERVING, health.SERVING]
        watch.cancel()


async def test_a_call_over_the_limit_is_refused_before_its_request_is_there(serve: Any, blocker: Any) -> None:
    async with serve(max_concurrent_calls=1) as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        async with blocker() as blocked:
            at_work = asyncio.ensure_future(client.checkpoints.PutCheckpoint(client.put_request()))
            await blocked.until_waiting(1)
            refusal = await client.refused(arriving(client, timeout=20))
            assert refusal.metadata == {"bound": "calls", "limit": "1"}
        await at_work


async def test_a_server_that_shuts_down_waits_for_no_request(serve: Any) -> None:
    async with serve() as (server, client):
        call = asyncio.ensure_future(client.refused(arriving(client)))
        await auntil(lambda: server._calls.active._entered)
        await asyncio.wait_for(server.drain(600), 20)
        assert (await call).reason == "DRAINING"


async def test_nor_for_those_that_are_not_even_read_yet(serve: Any) -> None:
    async with serve() as (server, client):
        calls = [asyncio.ensure_future(client.refused(arriving(client))) for _ in range(3 * READS_AT_ONCE)]
        await auntil(lambda: server._calls.active._entered, lambda number: number >= len(calls))
        async with asyncio.timeout(20):
            await server.drain(600)
        assert {(await call).reason for call in calls} == {"DRAINING"}


async def test_a_request_that_arrived_while_the_loop_stood_still_took_no_time(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = AdmissionController.read

    async def stand_still(self: AdmissionController, context: Any) -> Any:
        asyncio.get_running_loop().call_soon(time.sleep, 2 * SWEEP_SECONDS)
        return await read(self, context)

    limit = MEBIBYTE + 100_000  # room for a slow request, and a bit more
    async with serve(limits=Limits(max_message_bytes=MEBIBYTE), max_bytes_in_flight=limit) as (_, client):
        long = asyncio.ensure_future(arriving(client))
        await asyncio.sleep(3 * SWEEP_SECONDS)
        monkeypatch.setattr(AdmissionController, "read", stand_still)
        assert (await client.checkpoints.PutCheckpoint(client.put_request())).version
        long.cancel()


async def test_a_request_that_does_not_arrive_ends(serve: Any) -> None:
    async with serve(default_timeout=0.6) as (_, client):
        refusal = await client.refused(arriving(client))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        assert "didn't arrive within 0.6 s" in refusal.message


async def test_requests_that_take_long_are_reckoned_and_hold_up_nobody(serve: Any) -> None:
    limit = 4 * MEBIBYTE + 100_000  # the rest is for the small requests
    async with serve(limits=Limits(max_message_bytes=MEBIBYTE), max_bytes_in_flight=limit) as (_, client):
        calls = [asyncio.ensure_future(arriving(client)) for _ in range(20)]
        async with asyncio.timeout(20):
            while sum(call.done() for call in calls) < 16:
                await client.checkpoints.PutCheckpoint(client.put_request(), timeout=20)
        await asyncio.sleep(0.6)
        # A quick request, however large, doesn't compete with slow ones.
        await client.checkpoints.PutCheckpoint(put_of(client, MEBIBYTE, "2"), timeout=20)
        # The bound has room for four of the slow requests, at a mebibyte each.
        refused = [call for call in calls if call.done()]
        assert len(refused) == 16
        for call in refused:
            refusal = await client.refused(call)
            assert refusal.metadata == {"bound": "bytes", "limit": str(limit)}
        for call in calls:
            call.cancel()


async def test_calls_that_hang_up_while_their_request_arrives_leave_nothing(serve: Any) -> None:
    async with serve(max_concurrent_calls=20, limits=Limits(max_message_bytes=MEBIBYTE)) as (_, client):
        for _ in range(5):
            calls = [arriving(client) for _ in range(20)]
            await asyncio.sleep(0.1)
            for call in calls:
                call.cancel()
        await auntil(lambda: all_go_through(client), pause=0.05)


async def all_go_through(client: Any) -> bool:
    """Returns whether the server serves the maximum number of calls at once."""
    answers = await asyncio.gather(*(client.checkpoints.GetCheckpoint(GET) for _ in range(20)), return_exceptions=True)
    return not any(isinstance(answer, BaseException) for answer in answers)


async def test_a_call_without_a_request_is_told_so(client: Any) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    refusal = await client.refused(arriving(client, nothing()))
    assert (refusal.code, refusal.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "request")


async def test_of_several_requests_the_first_is_served(client: Any) -> None:
    async def several() -> AsyncIterator[bytes]:
        for number in range(3):
            yield client.put_request(checkpoint_id=f"checkpoint-{number}").SerializeToString()

    await arriving(client, several())
    page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())
    assert [found.checkpoint_id for found in page.tuples] == ["checkpoint-0"]
