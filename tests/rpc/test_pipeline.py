"""Operations over one stream: each is done as a separate call would be, in order within a namespace."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.rpc.pipeline.pipelines import PipelineOptions
from checkpointd_server.store import StoreOptions, migrate, open_store
from tests.rpc.requests import put_of
from tests.rpc.serving import serving, until_idle
from tests.support.operations import GET, ask, operation, results_of, send, send_each

MEBIBYTE = 1024 * 1024


async def test_operations_are_done_as_calls_are(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    await send(stream, operation(5, client.put_request()), operation(6, client.writes_request()), operation(7, GET))
    put, written, read = await results_of(stream, 3)
    assert (put.id, written.id, read.id) == (5, 6, 7)
    version = put.put_checkpoint.version
    assert version > 0
    assert written.put_writes.version == read.get_checkpoint.version == version
    assert read.get_checkpoint == await client.checkpoints.GetCheckpoint(GET)
    assert len(read.get_checkpoint.tuple.pending_writes) == 1
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() == grpc.StatusCode.OK


async def test_a_message_may_be_empty_and_an_absence_is_a_result(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    await send(stream)
    read = await ask(stream, pb.GetCheckpointRequest(thread_id="nobody"))
    assert read.WhichOneof("result") == "get_checkpoint"
    assert not read.get_checkpoint.HasField("tuple")
    written = await ask(stream, pb.PutWritesRequest(thread_id="t", checkpoint_id="c", task_id="task"))
    assert written.WhichOneof("result") == "put_writes"


async def test_what_was_sent_before_the_end_is_answered(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    for number in range(200):
        await send(stream, operation(number, client.put_request(thread_id=f"thread-{number % 7}")))
    await stream.done_writing()
    results = await results_of(stream, 200)
    assert sorted(result.id for result in results) == list(range(200))
    assert all(result.put_checkpoint.version for result in results)
    assert await stream.read() is grpc.aio.EOF


def run_of_puts(client: Any, count: int) -> list[Any]:
    """Returns a run's puts and the task writes beside them, each put building on the previous one."""
    requests = []
    for number in range(count):
        parent = f"{number - 1:04}" if number else ""
        precondition = (
            values.Precondition(if_last_writer=b"me", if_last_checkpoint_id=parent)
            if number
            else values.Precondition(if_version_match=0)
        )
        put = client.put_request(
            checkpoint_id=f"{number:04}", parent_checkpoint_id=parent, precondition=precondition, writer=b"me"
        )
        onto = values.Precondition(if_last_writer=b"me", if_last_checkpoint_id=f"{number:04}")
        requests += [put, client.writes_request(checkpoint_id=f"{number:04}", precondition=onto)]
    return requests


async def test_a_run_goes_through_without_waiting_for_its_results(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    requests = run_of_puts(client, 40)
    for number, request in enumerate(requests):
        await send(stream, operation(number, request))
    results = await results_of(stream, 80)
    assert [result.id for result in results] == list(range(80))
    assert {result.WhichOneof("result") for result in results} == {"put_checkpoint", "put_writes"}
    versions = [result.put_checkpoint.version for result in results[::2]]
    assert versions == sorted(set(versions))
    assert [result.put_writes.version for result in results[1::2]] == versions
    read = (await client.checkpoints.GetCheckpoint(GET)).tuple
    assert (read.checkpoint_id, read.version, len(read.pending_writes)) == ("0039", versions[-1], 1)


@pytest.mark.parametrize("gap", ["refused", "lost"])
async def test_what_builds_on_a_gap_is_refused(client: Any, gap: str) -> None:
    stream = client.checkpoints.Pipeline()
    requests = run_of_puts(client, 4)
    if gap == "refused":
        requests[2].body = b""
    else:
        del requests[2]
    await send(stream, *(operation(number, request) for number, request in enumerate(requests)))
    results = await results_of(stream, len(requests))
    reasons = [result.failure.reason for result in results]
    assert reasons[:2] == ["", ""]
    assert reasons[2:] == [*(["INVALID_ARGUMENT"] if gap == "refused" else []), *["PREDECESSOR_MISSING"] * 5]
    assert (await client.checkpoints.GetCheckpoint(GET)).tuple.checkpoint_id == "0000"


async def test_a_read_goes_behind_the_writes_before_it_and_before_those_behind_it(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    operations = []
    for number in range(30):
        put = client.put_request(checkpoint_id=f"{number:04}")
        operations += [operation(3 * number, put), operation(3 * number + 1, GET)]
        operations.append(operation(3 * number + 2, client.writes_request(checkpoint_id=f"{number:04}")))
    await send(stream, *operations)
    results = await results_of(stream, len(operations))
    assert [result.id for result in results] == list(range(len(operations)))
    for number, result in enumerate(results[1::3]):
        assert result.get_checkpoint.tuple.checkpoint_id == f"{number:04}"
        assert result.get_checkpoint.version == results[3 * number].put_checkpoint.version
        assert not result.get_checkpoint.tuple.pending_writes


async def test_results_of_a_namespace_come_in_order_refusals_too(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    stream = client.checkpoints.Pipeline()
    async with blocker() as blocked:
        await send(
            stream,
            operation(1, client.put_request(checkpoint_id="checkpoint-2")),
            operation(2, client.put_request(body=None)),
            operation(3, GET),
            operation(4, client.put_request(checkpoint_id="checkpoint-3", lease_token=5)),
            operation(5, client.put_request(checkpoint_id="checkpoint-4")),
        )
        await blocked.until_waiting(1)
        # Operations on other namespaces don't wait.
        await send(stream, operation(6, client.put_request(thread_id="other")))
        await send(stream, operation(7, client.put_request(thread_id="")))
        await send(stream, operation(8, pb.GetCheckpointRequest(thread_id="other")))
        early = await results_of(stream, 3)
        assert {result.id for result in early} == {6, 7, 8}
    results = await results_of(stream, 5)
    assert [result.id for result in results] == [1, 2, 3, 4, 5]
    assert [result.failure.reason for result in results] == ["", "INVALID_ARGUMENT", "", "LEASE_LOST", ""]
    assert results[2].get_checkpoint.tuple.checkpoint_id == "checkpoint-2"


async def test_each_operation_fails_for_itself_as_it_would_alone(client: Any) -> None:
    stale = values.Precondition(if_version_match=10**9)
    bad = [
        client.put_request(thread_id=""),
        client.put_request(thread_id="conflict", precondition=stale),
        client.writes_request(task_id="x" * 129),
        pb.GetCheckpointRequest(thread_id="a\0b"),
        client.put_request(thread_id="lease", lease_token=7),
    ]
    stream = client.checkpoints.Pipeline()
    for number, request in enumerate(bad):
        await send(stream, operation(2 * number, request), operation(2 * number + 1, client.put_request(thread_id="t")))
    results = {result.id: result for result in await results_of(stream, 2 * len(bad))}
    methods = {pb.PutCheckpointRequest: "PutCheckpoint", pb.PutWritesRequest: "PutWrites"}
    for number, request in enumerate(bad):
        assert results[2 * number + 1].put_checkpoint.version
        failure = results[2 * number].failure
        method = methods.get(type(request), "GetCheckpoint")
        alone = await client.refused(getattr(client.checkpoints, method)(request))
        assert failure.code == alone.code.value[0]
        assert (failure.reason, failure.message) == (alone.reason, alone.message)
        assert dict(failure.metadata) == alone.metadata


async def test_an_operation_that_sets_nothing_is_refused(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    await send(stream, pb.Operation(id=3), pb.Operation(), operation(4, GET))
    results = {result.id: result for result in await results_of(stream, 3)}
    assert results[3].failure.metadata["field"] == results[0].failure.metadata["field"] == "operation"
    assert results[4].WhichOneof("result") == "get_checkpoint"


async def test_results_say_which_operation_they_are_of_whatever_its_id(client: Any) -> None:
    stream = client.checkpoints.Pipeline()
    for number in (0, 1, 2**63, 2**64 - 1):
        assert (await ask(stream, GET, number=number)).WhichOneof("result") == "get_checkpoint"


async def test_an_operation_has_a_deadline_of_its_own(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    stream = client.checkpoints.Pipeline()
    async with blocker() as blocked:
        result = await ask(stream, client.put_request(checkpoint_id="2"), timeout_ms=200)
        assert result.failure.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        await blocked.until_waiting(0)
    assert (await ask(stream, GET)).get_checkpoint.tuple.checkpoint_id == "checkpoint-1"


async def test_operations_too_many_are_refused_with_a_hint(serve: Any, blocker: Any) -> None:
    async with serve(max_concurrent_calls=3) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        stream = client.checkpoints.Pipeline()
        async with blocker() as blocked:
            await send(stream, operation(1, client.put_request(checkpoint_id="2")))
            await blocked.until_waiting(1)
            # Of operations that come together, the first ones are done as far as there is room.
            await send(
                stream, *(operation(number, pb.GetCheckpointRequest(thread_id=f"{number}")) for number in range(9))
            )
            results = {result.id: result for result in await results_of(stream, 9)}
            done = {number for number, result in results.items() if result.HasField("get_checkpoint")}
            assert done == {0, 1}
            for number in range(2, 9):
                failure = results[number].failure
                assert (failure.reason, dict(failure.metadata)) == ("OVERLOADED", {"bound": "calls", "limit": "3"})
                assert failure.retry_after_ms > 0
        (result,) = await results_of(stream, 1)
        assert result.put_checkpoint.version
        await until_idle(server)


async def test_bytes_too_many_are_refused_with_a_hint(serve: Any, blocker: Any) -> None:
    async with serve(max_bytes_in_flight=MEBIBYTE) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        stream = client.checkpoints.Pipeline()
        async with blocker() as blocked:
            await send(stream, operation(1, put_of(client, MEBIBYTE // 2, "2")))
            await blocked.until_waiting(1)
            await send(stream, operation(2, put_of(client, MEBIBYTE, "3")))
            await send(stream, operation(3, pb.GetCheckpointRequest(thread_id="t")))
            (result,) = await results_of(stream, 1)
            assert result.id == 3  # the other put comes after the first one
        first, second = await results_of(stream, 2)
        assert first.put_checkpoint.version
        assert (second.failure.reason, second.failure.metadata["bound"]) == ("OVERLOADED", "bytes")
        await until_idle(server)
        assert server._calls._load.held_bytes == 0


async def test_what_the_store_has_no_room_for_is_told_when_to_come_again(database_url: str) -> None:
    options = StoreOptions(dsn=database_url, max_queue=2)
    await migrate(options)
    async with open_store(options) as store, serving(store) as (_, client):
        stream = client.checkpoints.Pipeline()
        await send(stream, *(operation(i, client.put_request(thread_id=f"thread-{i}")) for i in range(20)))
        results = await results_of(stream, 20)
    failures = [result.failure for result in results if result.HasField("failure")]
    assert failures
    hints = [failure.retry_after_ms for failure in failures]
    assert all(50 <= hint <= 7500 for hint in hints)
    assert {(failure.code, failure.reason, failure.metadata["bound"]) for failure in failures} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "OVERLOADED", "queue")
    }


async def test_a_stream_reads_no_more_than_it_may_have_unanswered(serve: Any, blocker: Any) -> None:
    async with serve(pipeline=PipelineOptions(max_operations=4)) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        stream = client.checkpoints.Pipeline()
        async with blocker() as blocked:
            for number in range(10):
                await send(stream, operation(number, client.put_request(checkpoint_id=str(number))))
            await blocked.until_waiting(1)
            async with asyncio.timeout(20):
                while server.active_calls < 4:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert server.active_calls == 4
        assert [result.id for result in await results_of(stream, 10)] == list(range(10))


async def test_bytes_without_a_result_are_bounded_as_well(serve: Any, blocker: Any) -> None:
    async with serve(pipeline=PipelineOptions(max_bytes=MEBIBYTE)) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        stream = client.checkpoints.Pipeline()
        async with blocker() as blocked:
            puts = [operation(number, put_of(client, 300_000, str(number))) for number in range(10)]
            sending = asyncio.create_task(send_each(stream, puts))  # it has to wait, too
            await blocked.until_waiting(1)
            async with asyncio.timeout(20):
                while server.active_calls < 4:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert server.active_calls == 4
            assert not sending.done()
        assert [result.id for result in await results_of(stream, 10)] == list(range(10))
        await sending


async def test_a_write_whose_time_runs_out_is_answered_in_its_turn(client: Any, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    stream = client.checkpoints.Pipeline()
    async with blocker() as blocked:
        await send(
            stream,
            operation(1, client.put_request(checkpoint_id="checkpoint-2")),
            operation(2, client.writes_request(checkpoint_id="checkpoint-2"), timeout_ms=100),
            operation(3, client.writes_request(thread_id="other"), timeout_ms=10_000),
        )
        await blocked.until_waiting(1)
        (result,) = await results_of(stream, 1)
        assert result.id == 3
        await asyncio.sleep(0.3)
    put, late = await results_of(stream, 2)
    assert put.put_checkpoint.version
    assert late.failure.reason == "DEADLINE_EXCEEDED"


async def test_reads_of_many_namespaces_are_done_side_by_side_a_few_at_a_time(client: Any) -> None:
    threads = [f"thread-{number}" for number in range(100)]
    stream = client.checkpoints.Pipeline()
    await send(stream, *(operation(i, client.put_request(thread_id=thread)) for i, thread in enumerate(threads)))
    await results_of(stream, 100)
    await send(stream, *(operation(i, pb.GetCheckpointRequest(thread_id=t)) for i, t in enumerate(threads)))
    results = await results_of(stream, 100)
    assert {threads[result.id] for result in results} == set(threads)
    assert all(result.get_checkpoint.tuple.thread_id == threads[result.id] for result in results)
