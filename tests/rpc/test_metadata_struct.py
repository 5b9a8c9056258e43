"""Metadata and filters as JSON, for tools without msgpack, and the namespaces that a list covers."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits

CONTENT: dict[str, Any] = {
    "source": "loop",
    "step": 3,
    "user": {"name": "Ann", "tags": ["a", "b"]},
    "none": None,
    "half": 0.5,
}


def json_value(content: Any) -> values.TypedValue:
    return values.TypedValue(type="json", data=json.dumps(content).encode())


def struct_metadata(content: dict[str, Any]) -> values.Metadata:
    return ParseDict({"struct": content}, values.Metadata())


async def listed(client: Any, **fields: Any) -> list[values.CheckpointTuple]:
    request = ParseDict(fields, pb.ListCheckpointsRequest())
    return list((await client.checkpoints.ListCheckpoints(request)).tuples)


@pytest.mark.parametrize("form", ["msgpack", "json", "struct", "index"])
async def test_metadata_is_found_and_read_as_json_however_it_came(client: Any, form: str) -> None:
    metadata = {
        "msgpack": client.metadata(CONTENT),
        "json": values.Metadata(value=json_value(CONTENT)),
        "struct": struct_metadata(CONTENT),
        "index": values.Metadata(value=json_value(CONTENT), index=msgpack.packb(CONTENT)),
    }[form]
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=metadata))
    for filter, count in (({"user": {"tags": ["b"]}}, 1), ({"step": 3, "none": None}, 1), ({"step": 4}, 0), ({}, 1)):
        assert len(await listed(client, filterStruct=filter)) == count
    (found,) = await listed(client, metadataStruct=True)
    assert MessageToDict(found.metadata.struct) == CONTENT
    got = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1", metadata_struct=True))
    assert got.tuple.metadata == found.metadata
    plain = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))
    assert not plain.tuple.metadata.HasField("struct")
    if form == "struct":
        assert (plain.tuple.metadata.value.type, json.loads(plain.tuple.metadata.value.data)) == ("json", CONTENT)


async def test_what_json_can_not_say_is_read_as_filters_see_it(client: Any) -> None:
    deep: Any = "deep"
    for _ in range(31):
        deep = {"k": deep}
    odd = {
        "nul": "a\0b",
        "bytes": b"\0",
        "deep": deep,
        "nan": float("nan"),
        "extension": msgpack.ExtType(2, b"x"),
        "step": 1,
    }
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=client.metadata(odd)))
    (found,) = await listed(client, metadataStruct=True, view="CHECKPOINT_VIEW_METADATA")
    shown = MessageToDict(found.metadata.struct)
    assert len(await listed(client, filterStruct={"nul": "a\0b"})) == 1
    assert shown.keys() == {"nul", "bytes", "nan", "extension", "step"}
    assert (shown["bytes"], shown["nan"]) == ("\ue000bAA==", "\ue000dnan")


async def test_metadata_that_the_server_can_not_read_has_no_json(client: Any) -> None:
    sealed = values.Metadata(value=client.value(b"sealed", "msgpack+aes"), index=msgpack.packb({"user": "u1"}))
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=sealed))
    (found,) = await listed(client, metadataStruct=True)
    assert not found.metadata.HasField("struct")


async def test_empty_metadata_is_empty_and_not_absent(client: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=struct_metadata({})))
    (found,) = await listed(client, metadataStruct=True)
    assert found.metadata.HasField("struct")


LARGE = {"k": "x" * Limits().max_filter_bytes}
BOTH = values.Metadata(value=json_value({}))
BOTH.struct.SetInParent()
ENDLESS = values.Metadata()
ENDLESS.struct.fields["k"].number_value = math.inf


@pytest.mark.parametrize(
    ("field", "limit", "metadata"),
    [
        ("metadata.value", None, values.Metadata(value=values.TypedValue(type="json", data=b"{"))),
        ("metadata.value", None, values.Metadata(value=json_value([1]))),
        ("metadata.value", None, values.Metadata(value=json_value({"k": 2**64}))),
        ("metadata.value", None, values.Metadata(value=values.TypedValue(type="json", data=b"[" * 60_000))),
        ("metadata.index", 65536, values.Metadata(value=json_value(LARGE))),
        ("metadata.struct", None, BOTH),
        ("metadata.struct", None, ENDLESS),
        ("metadata.value", None, values.Metadata()),
    ],
)
async def test_json_that_can_not_be_used_is_refused(
    client: Any, field: str, limit: int | None, metadata: values.Metadata
) -> None:
    refused = await client.refused(client.checkpoints.PutCheckpoint(client.put_request(metadata=metadata)))
    assert (refused.reason, refused.metadata.get("field")) == ("INVALID_ARGUMENT", field)
    assert refused.metadata.get("limit") == (None if limit is None else str(limit))
    assert not await listed(client)


async def test_a_filter_may_hold_what_json_has_not(client: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=client.metadata({"k": math.inf})))
    request = pb.ListCheckpointsRequest()
    request.filter_struct.fields["k"].number_value = math.inf
    assert len((await client.checkpoints.ListCheckpoints(request)).tuples) == 1
    request.filter_struct.fields["k"].Clear()
    assert not (await client.checkpoints.ListCheckpoints(request)).tuples


async def test_filters_that_can_not_be_used_are_refused(client: Any) -> None:
    both = pb.ListCheckpointsRequest(filter=b"\x80")
    both.filter_struct.update({"k": 1})
    large = pb.ListCheckpointsRequest()
    large.filter_struct.update(LARGE)
    for request, field in ((both, "filter_struct"), (large, "filter")):
        refused = await client.refused(client.checkpoints.ListCheckpoints(request))
        assert refused.metadata["field"] == field


async def test_lists_of_threads_take_filters_as_json_too(client: Any) -> None:
    for name, user in (("a", "ann"), ("b", "bob")):
        request = client.put_request(thread_id=name, metadata=client.metadata({"user": user, "tries": 1}))
        await client.checkpoints.PutCheckpoint(request)
    wanted = threads_pb.ThreadFilter()
    wanted.metadata_struct.update({"user": "ann", "tries": 1})
    page = await client.threads.ListThreads(threads_pb.ListThreadsRequest(filter=wanted))
    assert [found.thread_id for found in page.threads] == ["a"]
    assert (await client.threads.CountThreads(threads_pb.CountThreadsRequest(filter=wanted))).count == 1
    wanted.metadata = b"\x80"
    refused = await client.refused(client.threads.ListThreads(threads_pb.ListThreadsRequest(filter=wanted)))
    assert refused.metadata["field"] == "filter.metadata_struct"
    large = threads_pb.ThreadFilter()
    large.metadata_struct.update(LARGE)
    refused = await client.refused(client.threads.ListThreads(threads_pb.ListThreadsRequest(filter=large)))
    assert refused.metadata["field"] == "filter.metadata"


async def test_an_omitted_namespace_is_the_root_graph_in_lists_too(client: Any) -> None:
    for ns in ("", "child:1"):
        await client.checkpoints.PutCheckpoint(client.put_request(checkpoint_ns=ns))
    for fields in ({}, {"threadId": "thread-1"}):
        assert [found.checkpoint_ns for found in await listed(client, **fields)] == [""]
        assert [found.checkpoint_ns for found in await listed(client, allNamespaces=True, **fields)] == ["", "child:1"]
    request = pb.ListCheckpointsRequest(checkpoint_ns="child:1", all_namespaces=True)
    assert (await client.refused(client.checkpoints.ListCheckpoints(request))).metadata["field"] == "checkpoint_ns"
