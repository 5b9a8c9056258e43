"""Batch: several calls in one, each as if it had been called alone."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from langgraph.checkpoint.grpc.batching import OperationError
from langgraph.checkpoint.grpc.errors import retry_delay

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from checkpointd_server.store import StoreOptions, open_store
from tests.rpc.requests import operation
from tests.rpc.serving import serving

pytestmark = pytest.mark.usefixtures("patient_batches")


async def batch(client: Any, *requests: Any) -> list[pb.BatchResult]:
    response = await client.checkpoints.Batch(pb.BatchRequest(operations=map(operation, requests)))
    return list(response.results)


async def test_an_empty_batch_has_an_empty_answer(client: Any) -> None:
    assert await batch(client) == []


async def test_answers_come_in_the_order_of_the_calls(client: Any) -> None:
    threads = [f"thread-{i}" for i in range(40)]
    puts = await batch(client, *(client.put_request(thread_id=thread) for thread in threads))
    versions = [result.put_checkpoint.version for result in puts]
    assert len(set(versions)) == 40
    reads = await batch(client, *(pb.GetCheckpointRequest(thread_id=thread) for thread in threads))
    assert [result.get_checkpoint.tuple.thread_id for result in reads] == threads
    assert [result.get_checkpoint.version for result in reads] == versions


async def test_the_writes_on_one_namespace_are_done_in_their_order(client: Any) -> None:
    run: dict[str, Any] = {"precondition": values.Precondition(if_version_match=0, if_last_writer=b"me")}
    results = await batch(
        client,
        client.put_request(checkpoint_id="1", writer=b"me", **run),
        client.writes_request(checkpoint_id="1", **run),
        client.put_request(checkpoint_id="2", parent_checkpoint_id="1", writer=b"me", **run),
        client.writes_request(checkpoint_id="2", **run),
    )
    assert [result.WhichOneof("result") for result in results] == ["put_checkpoint", "put_writes"] * 2
    assert results[0].put_checkpoint.version < results[2].put_checkpoint.version
    for checkpoint_id in ("1", "2"):
        read = await client.checkpoints.GetCheckpoint(
            pb.GetCheckpointRequest(thread_id="thread-1", checkpoint_id=checkpoint_id)
        )
        assert len(read.tuple.pending_writes) == 1


async def test_each_call_fails_for_itself_as_it_would_alone(client: Any) -> None:
    stale = values.Precondition(if_version_match=10**9)
    bad = [
        client.put_request(thread_id=""),
        client.put_request(thread_id="conflict", precondition=stale),
        client.writes_request(task_id="x" * 129),
        pb.GetCheckpointRequest(thread_id="a\0b"),
        client.put_request(thread_id="lease", lease_token=7),
    ]
    good = [client.put_request(thread_id=f"good-{i}") for i in range(len(bad))]
    mixed = [request for pair in zip(bad, good, strict=True) for request in pair]
    results = await batch(client, *mixed)
    assert [result.WhichOneof("result") for result in results] == ["failure", "put_checkpoint"] * len(bad)
    methods = {
        pb.PutCheckpointRequest: client.checkpoints.PutCheckpoint,
        pb.PutWritesRequest: client.checkpoints.PutWrites,
        pb.GetCheckpointRequest: client.checkpoints.GetCheckpoint,
    }
    for request, result in zip(bad, results[::2], strict=True):
        alone = await client.refused(methods[type(request)](request))
        failure = result.failure
        assert (failure.code, failure.message) == (alone.code.value[0], alone.message)
        assert (failure.reason, dict(failure.metadata)) == (alone.reason, alone.metadata)


async def test_an_operation_without_a_call_is_refused_alone(client: Any) -> None:
    request = pb.BatchRequest(operations=[pb.BatchOperation(), operation(client.put_request())])
    nothing, put = (await client.checkpoints.Batch(request)).results
    assert nothing.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert nothing.failure.metadata["field"] == "operation"
    assert put.put_checkpoint.version > 0


async def test_too_many_operations_are_refused_and_change_nothing(client: Any) -> None:
    requests = [client.put_request(thread_id=f"t-{i}") for i in range(257)]
    refusal = await client.refused(batch(client, *requests))
    assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_ARGUMENT", "operations")
    assert refusal.metadata["limit"] == "256"
    assert not (await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())).tuples


async def test_a_repeated_put_in_a_batch_is_stored_once(client: Any) -> None:
    named = client.put_request(request_id=b"once")
    first = (await client.checkpoints.PutCheckpoint(named)).version
    again = await batch(client, named, client.put_request(thread_id="other"))
    assert again[0].put_checkpoint.version == first


async def test_repeated_task_writes_are_known_alone_and_in_a_batch(client: Any) -> None:
    put = client.put_request(writer=b"me")
    await client.checkpoints.PutCheckpoint(put)
    fence = values.Precondition(if_last_writer=b"me")
    named, nameless = (client.writes_request(precondition=fence, request_id=name) for name in (b"once", b""))
    first = await client.checkpoints.PutWrites(named)
    again = await batch(client, named, client.put_request(thread_id="other"))
    assert again[0].put_writes.version == first.version > 0
    rival = client.put_request(checkpoint_id="checkpoint-2", writer=b"you")
    current = (await client.checkpoints.PutCheckpoint(rival)).version
    # No version to go on with: who sends again hasn't read what the rival wrote.
    assert (await client.checkpoints.PutWrites(named)).version == 0
    known, stranger, _ = await batch(client, named, nameless, client.put_request(thread_id="another"))
    assert known.put_writes == pb.PutWritesResponse()
    assert stranger.failure.reason == "VERSION_CONFLICT"
    assert stranger.failure.metadata["current_version"] == str(current)
    read = await client.checkpoints.GetCheckpoint(
        pb.GetCheckpointRequest(thread_id="thread-1", checkpoint_id="checkpoint-1")
    )
    assert len(read.tuple.pending_writes) == 1


@pytest.mark.parametrize("size", [300_000])
async def test_answers_that_do_not_fit_together_fail_alone(serve: Any, size: int) -> None:
    async with serve(limits=Limits(max_message_bytes=1024 * 1024)) as (_, client):
        for i in range(5):
            value = values.ChannelValue(
                channel="c", version=values.ChannelVersion(integer=1), value=client.value(b"x" * size)
            )
            put = client.put_request(thread_id=f"t-{i}", values=[value])
            put.checkpoint.channel_versions.versions["c"].integer = 1
            await client.checkpoints.PutCheckpoint(put)
        results = await batch(
            client,
            *(pb.GetCheckpointRequest(thread_id=f"t-{i}") for i in range(5)),
            client.put_request(thread_id="small"),
        )
    kinds = [result.WhichOneof("result") for result in results]
    assert kinds[5] == "put_checkpoint"
    # Several are read at once, and the first that is there has the room.
    assert sorted(kinds[:5]) == ["failure"] * 4 + ["get_checkpoint"]
    failures = [result.failure for result in results if result.WhichOneof("result") == "failure"]
    assert {failure.reason for failure in failures} == {"MESSAGE_TOO_LARGE"}


async def test_what_there_is_no_room_for_is_told_when_to_come_again(database_url: str) -> None:
    async with open_store(StoreOptions(dsn=database_url, max_queue=2)) as store, serving(store) as (_, client):
        results = await batch(client, *(client.put_request(thread_id=f"thread-{i}") for i in range(20)))
    failures = [result.failure for result in results if result.WhichOneof("result") == "failure"]
    assert len(failures) == 18
    hints = [failure.retry_after_ms for failure in failures]
    assert all(50 <= hint <= 7500 for hint in hints)
    assert len(set(hints)) > 1
    assert {(failure.code, failure.reason, failure.metadata["bound"]) for failure in failures} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "OVERLOADED", "queue")
    }
    # The saver takes it as it takes that of a call on its own.
    assert [retry_delay(OperationError(failure)) for failure in failures] == [hint / 1000 for hint in hints]
