"""The family of serializers that a thread was written with, as it is reported to clients of any language."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import values_pb2 as values

MSGPACK = values.SERIALIZER_FAMILY_LANGGRAPH_MSGPACK
JSON = values.SERIALIZER_FAMILY_LANGGRAPH_JSON
OTHER = values.SERIALIZER_FAMILY_OTHER


async def put(client: Any, type_tag: str, **fields: Any) -> None:
    data = b"{}" if type_tag == "json" else b"\x80"
    index = b"" if type_tag in ("json", "msgpack") else b"\x80"
    metadata = values.Metadata(value=values.TypedValue(type=type_tag, data=data), index=index)
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=metadata, **fields))


@pytest.mark.parametrize(
    ("type_tag", "family"), [("msgpack", MSGPACK), ("json", JSON), ("json+cpd1.key", JSON), ("cbor", OTHER)]
)
async def test_reads_and_lists_tell_it(client: Any, type_tag: str, family: int) -> None:
    await put(client, type_tag)
    found = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))
    listed = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(thread_id="thread-1"))
    assert [each.serializer_family for each in (found.tuple, *listed.tuples)] == [family] * 2
    thread = await client.threads.GetThread(threads_pb.GetThreadRequest(thread_id="thread-1"))
    threads = await client.threads.ListThreads(threads_pb.ListThreadsRequest())
    assert [each.serializer_family for each in (thread.thread, *threads.threads)] == [family] * 2


async def test_metadata_as_json_is_of_its_family(client: Any) -> None:
    metadata = values.Metadata()
    metadata.struct["step"] = 1
    await put(client, "msgpack")
    refusal = await client.refused(
        client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id="2", metadata=metadata))
    )
    assert refusal.reason == "SERIALIZER_MISMATCH"


async def test_a_pipeline_goes_on_after_a_refusal(client: Any) -> None:
    await put(client, "json")
    operations = [
        pb.Operation(id=1, put_checkpoint=client.put_request(checkpoint_id="2")),
        pb.Operation(id=2, put_writes=client.writes_request(serializer_family=JSON)),
    ]
    results: dict[int, Any] = {}
    async for answer in client.checkpoints.Pipeline(iter([pb.PipelineRequest(operations=operations)]), timeout=20):
        results |= {result.id: result for result in answer.results}
    assert results[1].failure.reason == "SERIALIZER_MISMATCH"
    assert results[1].failure.metadata["thread_serializer_family"] == "langgraph-json"
    assert results[2].WhichOneof("result") == "put_writes"


@pytest.mark.parametrize(
    ("thread", "type_tag", "declared", "is_refused"),
    [
        ("json", "msgpack", 0, True),
        ("json", "pickle", 0, True),
        ("json", "null", 0, False),
        ("json", "null", MSGPACK, True),
        ("json", "msgpack", JSON, False),
        # LangGraph for Python can read it.
        ("msgpack", "json", 0, False),
        ("msgpack", "json", JSON, True),
        ("msgpack", "json", OTHER, False),
        ("msgpack", "cbor", 0, False),
        ("cbor", "msgpack", 0, False),
    ],
)
async def test_task_writes_go_by_what_their_writer_says_or_else_by_their_types(
    client: Any, thread: str, type_tag: str, declared: int, is_refused: bool
) -> None:
    await put(client, thread)
    request = client.writes_request(serializer_family=declared)
    request.writes[0].value.type = type_tag
    if is_refused:
        refusal = await client.refused(client.checkpoints.PutWrites(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SERIALIZER_MISMATCH")
    else:
        await client.checkpoints.PutWrites(request)
    found = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))
    assert len(found.tuple.pending_writes) == (not is_refused)


async def test_a_family_that_the_server_doesnt_know_is_named(client: Any) -> None:
    refusal = await client.refused(client.checkpoints.PutWrites(client.writes_request(serializer_family=9)))
    assert (refusal.code, refusal.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": "serializer_family"})
