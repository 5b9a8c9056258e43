"""Requests that can't be used: each names its field and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import grpc
import msgpack
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import lease_service_pb2, thread_service_pb2
from checkpointd.v1 import values_pb2 as values
from tests.rpc.requests import (
    assert_nothing_stored,
    channel_value,
    checkpoint,
    copy,
    seen,
    send,
    task_write,
    versions,
)


async def test_all_keys_may_have_their_full_length_at_once(client: Any) -> None:
    keys = {"thread_id": "t" * 512, "checkpoint_ns": "n" * 1408, "checkpoint_id": "c" * 128}
    version = values.ChannelVersion(text="v" * 128)
    put = client.put_request(**keys, values=[channel_value(client, channel="c" * 512, version=version)])
    put.checkpoint.channel_versions.versions["c" * 512].CopyFrom(version)
    await client.checkpoints.PutCheckpoint(put)
    writes = client.writes_request(**keys, task_id="i" * 128, task_path="p" * 65536)
    await client.checkpoints.PutWrites(writes)
    got = await client.checkpoints.GetCheckpoint(
        pb.GetCheckpointRequest(thread_id=keys["thread_id"], checkpoint_ns=keys["checkpoint_ns"])
    )
    assert (len(got.tuple.values), len(got.tuple.pending_writes)) == (1, 1)


def many(number: int) -> list[str]:
    return [f"n-{position}" for position in range(number)]


NO_VERSION = values.ChannelVersion()
NAN = values.ChannelVersion(number=math.nan)
Make = Callable[[Any], Any]

OTHERS: list[tuple[str, str, int | None, Make]] = [
    ("PutCheckpoint", "checkpoint", None, lambda c: c.put_request(checkpoint=None)),
    ("PutCheckpoint", "metadata", None, lambda c: c.put_request(metadata=None)),
    ("PutCheckpoint", "metadata.value", None, lambda c: c.put_request(metadata=values.Metadata(index=b"\x80"))),
    (
        "PutCheckpoint",
        "metadata.index",
        None,
        lambda c: c.put_request(metadata=values.Metadata(value=c.value(b"{}", "json"))),
    ),
    (
        "PutCheckpoint",
        "metadata.value",
        None,
        lambda c: c.put_request(metadata=values.Metadata(value=c.value(b"\xc1"))),
    ),
    (
        "PutCheckpoint",
        "metadata.index",
        65536,
        lambda c: c.put_request(
            metadata=values.Metadata(value=c.value(b"\x80"), index=msgpack.packb({"k": "x" * 65536}))
        ),
    ),
    (
        "PutCheckpoint",
        'checkpoint.channel_versions.versions["a"]',
        None,
        lambda c: c.put_request(checkpoint=checkpoint(channel_versions=versions(a=NO_VERSION))),
    ),
    (
        "PutCheckpoint",
        'checkpoint.channel_versions.versions["a"].number',
        None,
        lambda c: c.put_request(checkpoint=checkpoint(channel_versions=versions(a=NAN))),
    ),
    (
        "PutCheckpoint",
        'checkpoint.versions_seen["node"].versions["a"]',
        None,
        lambda c: c.put_request(checkpoint=seen("a", NO_VERSION)),
    ),
    (
        "PutCheckpoint",
        'checkpoint.versions_seen["node"].versions["a"].number',
        None,
        lambda c: c.put_request(checkpoint=seen("a", NAN)),
    ),
    ("PutCheckpoint", "values[0].version", None, lambda c: c.put_request(values=[channel_value(c, version=None)])),
    (
        "PutCheckpoint",
        "values[0].version",
        None,
        lambda c: c.put_request(values=[channel_value(c, version=NO_VERSION)]),
    ),
    (
        "PutCheckpoint",
        "values[0].version.number",
        None,
        lambda c: c.put_request(values=[channel_value(c, version=NAN)]),
    ),
    (
        "PutCheckpoint",
        "values[2].channel",
        None,
        lambda c: c.put_request(
            values=[channel_value(c), channel_value(c, channel="other"), channel_value(c, version=NO_VERSION)]
        ),
    ),
    ("PutCheckpoint", "writer", 32, lambda c: c.put_request(writer=b"w" * 33)),
    ("PutCheckpoint", "request_id", 32, lambda c: c.put_request(request_id=b"r" * 33)),
    (
        "PutCheckpoint",
        "precondition.if_version_match",
        None,
        lambda c: c.put_request(precondition=values.Precondition(if_version_match=-1)),
    ),
    (
        "PutCheckpoint",
        "precondition.if_last_writer",
        32,
        lambda c: c.put_request(precondition=values.Precondition(if_last_writer=b"w" * 33)),
    ),
    (
        "PutWrites",
        "precondition.if_version_match",
        None,
        lambda c: c.writes_request(precondition=values.Precondition(if_version_match=-1)),
    ),
    (
        "PutWrites",
        "precondition.if_last_writer",
        32,
        lambda c: c.writes_request(precondition=values.Precondition(if_last_writer=b"w" * 33)),
    ),
    ("PutWrites", "writes[0].value", None, lambda c: c.writes_request(writes=[task_write(c, value=None)])),
    ("PutWrites", "writes[0].task_id", None, lambda c: c.writes_request(writes=[task_write(c, task_id="task")])),
    ("PutWrites", "writes[0].task_path", None, lambda c: c.writes_request(writes=[task_write(c, task_path="path")])),
    ("ListCheckpoints", "view", None, lambda c: pb.ListCheckpointsRequest.FromString(b"\x30\x63")),
    ("ListCheckpoints", "page_size", None, lambda c: pb.ListCheckpointsRequest(page_size=-1)),
    ("ListCheckpoints", "page_size", 1000, lambda c: pb.ListCheckpointsRequest(page_size=1001)),
    ("ListCheckpoints", "page_token", None, lambda c: pb.ListCheckpointsRequest(page_token="nonsense")),
    ("ListCheckpoints", "filter", None, lambda c: pb.ListCheckpointsRequest(filter=b"\xc1")),
    ("ListCheckpoints", "filter", None, lambda c: pb.ListCheckpointsRequest(filter=msgpack.packb(["a"]))),
    (
        "ListCheckpoints",
        "filter",
        65536,
        lambda c: pb.ListCheckpointsRequest(filter=msgpack.packb({"k": "x" * 65536})),
    ),
    ("ListCheckpoints", "filter", 32, lambda c: pb.ListCheckpointsRequest(filter=b"\x81\xa1k" * 32 + b"\x80")),
    (
        "GetDeltaChannelHistory",
        "channels",
        1000,
        lambda c: pb.GetDeltaChannelHistoryRequest(thread_id="t", channels=many(1001)),
    ),
    ("DeleteRuns", "run_ids", 1000, lambda c: thread_service_pb2.DeleteRunsRequest(run_ids=many(1001))),
    ("PruneThreads", "thread_ids", 1000, lambda c: thread_service_pb2.PruneThreadsRequest(thread_ids=many(1001))),
    ("PruneThreads", "strategy", None, lambda c: thread_service_pb2.PruneThreadsRequest.FromString(b"\x10\x63")),
    ("CopyThread", "target_thread_id", None, lambda c: copy(source_thread_id="t")),
    ("PutWrites", "request_id", 32, lambda c: c.writes_request(request_id=b"r" * 33)),
    ("CopyThread", "request_id", 32, lambda c: copy(request_id=b"r" * 33)),
    ("PutCheckpoint", "lease_token", None, lambda c: c.put_request(lease_token=-1)),
    ("PutWrites", "lease_token", None, lambda c: c.writes_request(lease_token=-1)),
    ("CopyThread", "lease_token", None, lambda c: copy(lease_token=-1)),
    (
        "DeleteThread",
        "lease_token",
        None,
        lambda c: thread_service_pb2.DeleteThreadRequest(thread_id="t", lease_token=-1),
    ),
]


@pytest.mark.parametrize(
    ("method", "field", "limit", "make"), OTHERS, ids=[f"{i}-{m}-{f}" for i, (m, f, _, _) in enumerate(OTHERS)]
)
async def test_other_unusable_arguments_are_refused(
    client: Any, method: str, field: str, limit: int | None, make: Make
) -> None:
    refusal = await client.refused(send(client, method, make(client)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    expected = {"field": field} if limit is None else {"field": field, "limit": str(limit)}
    assert refusal.metadata == expected
    assert refusal.message.startswith(f"{field}: ")
    await assert_nothing_stored(client)


@pytest.mark.parametrize(
    ("method", "make"),
    [
        ("PutCheckpoint", lambda c: c.put_request(writer=b"w" * 32, request_id=b"r" * 32)),
        ("PutWrites", lambda c: c.writes_request(request_id=b"r" * 32)),
        ("ListCheckpoints", lambda c: pb.ListCheckpointsRequest(page_size=1000)),
        ("ListCheckpoints", lambda c: pb.ListCheckpointsRequest(filter=b"\x81\xa1k" * 31 + b"\x80")),
        ("GetDeltaChannelHistory", lambda c: pb.GetDeltaChannelHistoryRequest(thread_id="t", channels=many(1000))),
        ("DeleteRuns", lambda c: thread_service_pb2.DeleteRunsRequest(run_ids=many(1000))),
        ("PruneThreads", lambda c: thread_service_pb2.PruneThreadsRequest(thread_ids=many(1000))),
    ],
)
async def test_what_just_keeps_the_limits_is_taken(client: Any, method: str, make: Make) -> None:
    await send(client, method, make(client))


class TestGarbage:
    """Bytes that are no request at all."""

    @pytest.mark.parametrize(
        "method",
        [
            f"{service.name}/{method.name}"
            for file in (pb.DESCRIPTOR, thread_service_pb2.DESCRIPTOR, lease_service_pb2.DESCRIPTOR)
            for service in file.services_by_name.values()
            for method in service.methods
        ],
    )
    async def test_bytes_that_are_not_the_message_are_refused(self, client: Any, method: str) -> None:
        invalid_utf8 = b"\x0a\x02\xff\xfe"
        if method.endswith("/StreamBatches"):
            invalid_utf8 = b"\x1a\x06\x0a\x04" + invalid_utf8  # the thread_id of a put, in an operation
        for garbage in (b"\xff\xff\xff", b"\x0a\x7f", invalid_utf8, b"\x00" * 50):
            refusal = await client.refused(client.raw(method, garbage))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
            assert refusal.metadata["field"] == "request"
        await client.checkpoints.PutCheckpoint(client.put_request())

    @pytest.mark.parametrize("method", ["CheckpointService/DropTables", "NoService/PutCheckpoint"])
    async def test_an_unknown_method_is_unimplemented(self, client: Any, method: str) -> None:
        refusal = await client.refused(client.raw(method, b""))
        assert refusal.code == grpc.StatusCode.UNIMPLEMENTED

    async def test_fields_of_a_newer_protocol_are_no_error(self, client: Any) -> None:
        request = pb.GetCheckpointRequest(thread_id="t").SerializeToString() + b"\xfa\x3f\x03new"
        answer = await client.raw("CheckpointService/GetCheckpoint", request)
        assert pb.GetCheckpointResponse.FromString(answer).version == 0
