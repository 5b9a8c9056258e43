"""Invalid requests: each refusal names the field, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import msgpack
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import lease_service_pb2, thread_service_pb2, value_service_pb2
from checkpointd.v1 import values_pb2 as values
from tests.rpc.requests import VERSION, assert_nothing_stored, channel_value, channels, copy, send, task_write


async def test_all_keys_may_have_their_full_length_at_once(client: Any) -> None:
    keys = {"thread_id": "t" * 512, "checkpoint_ns": "n" * 1408, "checkpoint_id": "c" * 128}
    put = client.put_request(**keys, **channels(client, "s" + "v" * 128, **{"c" * 512: b"value"}))
    await client.checkpoints.PutCheckpoint(put)
    writes = client.writes_request(**keys, task_id="i" * 128, task_path="p" * 65536)
    await client.checkpoints.PutWrites(writes)
    got = await client.checkpoints.GetCheckpoint(
        pb.GetCheckpointRequest(thread_id=keys["thread_id"], checkpoint_ns=keys["checkpoint_ns"])
    )
    assert (len(got.tuple.values), len(got.tuple.pending_writes)) == (1, 1)


def many(number: int) -> list[str]:
    return [f"n-{position}" for position in range(number)]


Make = Callable[[Any], Any]

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


def wrong_parts(make: Callable[[Any, values.TypedValue], Any], *, data: bytes = b"", **fields: Any) -> Make:
    """Returns a function that makes a request with an uploaded value whose parts are invalid."""
    parts = values.Parts(**{"upload_id": b"u" * 16, "size": 5, **fields})
    return lambda client: make(client, values.TypedValue(type="t", data=data, parts=parts))


def wrong_patch(
    make: Callable[[Any, values.TypedValue], Any],
    *,
    data: bytes = b"\x06abc",
    parts: values.Parts | None = None,
    **fields: Any,
) -> Make:
    """Returns a function that makes a request with an invalid patch."""
    patch = values.Patch(**{"base_version": "i0", "size": 3, **fields})
    value = values.TypedValue(type="t", data=data, patch=patch, parts=parts)
    return lambda client: make(client, value)


def part(**fields: Any) -> value_service_pb2.PutPartRequest:
    return value_service_pb2.PutPartRequest(
        **{"thread_id": "t", "upload_id": b"u" * 16, "offset": 0, "data": b"data", **fields}
    )


def get_value(**fields: Any) -> value_service_pb2.GetValueRequest:
    value = value_service_pb2.KnownChannelValue(channel="c", version="i1")
    return value_service_pb2.GetValueRequest(**{"thread_id": "t", "channel_value": value, **fields})


MADE: list[tuple[str, str, Callable[[Any, values.TypedValue], Any]]] = [
    ("PutCheckpoint", "values", lambda c, v: c.put_request(values=[channel_value(c, value=v)])),
    ("PutWrites", "writes", lambda c, v: c.writes_request(writes=[task_write(c, value=v)])),
]
"""Requests that contain a given value: their methods, and the value's place in them."""

OTHERS: list[tuple[str, str, int | None, Make]] = [
    ("PutCheckpoint", "body", None, lambda c: c.put_request(body=None)),
    ("PutCheckpoint", "body", 8 * MEBIBYTE, lambda c: c.put_request(body=bytes(8 * MEBIBYTE))),
    ("PutCheckpoint", "channels", 10_000, lambda c: c.put_request(channels=many(10_001))),
    ("PutCheckpoint", "channels[1]", None, lambda c: c.put_request(channels="aa", channel_versions=["i1", "i1"])),
    ("PutCheckpoint", "channel_versions", None, lambda c: c.put_request(channels=["a"])),
    ("PutCheckpoint", "channel_versions", None, lambda c: c.put_request(channel_versions=["i1"])),
    (
        "PutCheckpoint",
        "channel_versions[1]",
        None,
        lambda c: c.put_request(channels=["a", "b"], channel_versions=["i1", "1"]),
    ),
    (
        "PutCheckpoint",
        "values",
        10_000,
        lambda c: c.put_request(values=[channel_value(c, channel=name) for name in many(10_001)]),
    ),
    ("PutCheckpoint", "metadata", None, lambda c: c.put_request(metadata=None)),
    ("PutCheckpoint", "metadata.value", None, lambda c: c.put_request(metadata=values.Metadata(index=b"\x80"))),
    (
        "PutCheckpoint",
        "metadata.index",
        None,
        lambda c: c.put_request(metadata=values.Metadata(value=c.value(b"{}", "pickle"))),
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
    ("PutCheckpoint", "values[0].version", None, lambda c: c.put_request(values=[channel_value(c, version=None)])),
    ("PutCheckpoint", "values[0].version", None, lambda c: c.put_request(values=[channel_value(c, version="fnan")])),
    (
        "PutCheckpoint",
        "values[2].channel",
        None,
        lambda c: c.put_request(
            values=[channel_value(c), channel_value(c, channel="other"), channel_value(c, version="i2")]
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
    *(
        (method, f"{what}[0].value.{field}", limit, make)
        for method, what, make_value in MADE
        for field, limit, make in (
            ("parts.upload_id", None, wrong_parts(make_value, upload_id=b"u" * 15)),
            ("parts.size", GIBIBYTE, wrong_parts(make_value, size=0)),
            ("parts.size", GIBIBYTE, wrong_parts(make_value, size=GIBIBYTE + 1)),
            ("parts.size", GIBIBYTE, wrong_parts(make_value, size=-1)),
            ("data", None, wrong_parts(make_value, data=b"data")),
        )
    ),
    *(
        (method, f"{what}[0].value.{field}", limit, wrong_patch(make_value, **fields))
        for method, what, make_value in MADE
        for field, limit, fields in (
            ("patch.base_version", None, {"base_version": ""}),
            ("patch.base_version", None, {"base_version": "1"}),
            ("patch.base_version", 129, {"base_version": "s" + "x" * 129}),
            ("patch.size", GIBIBYTE, {"size": GIBIBYTE + 1}),
            ("patch.size", GIBIBYTE, {"size": -1}),
            ("data", None, {"size": 4}),
            ("data", None, {"data": b"\x07"}),
            ("data", None, {"data": b"\x02x" * 65_537, "size": 65_537}),
            ("parts", None, {"data": b"", "parts": values.Parts(upload_id=b"u" * 16, size=3)}),
        )
    ),
    (
        "PutCheckpoint",
        "values[0].value.patch.base_version",
        None,
        wrong_patch(MADE[0][2], base_version=VERSION),
    ),
    (
        "PutWrites",
        "writes[1].value.data",
        None,
        lambda c: c.writes_request(
            writes=[
                task_write(
                    c,
                    idx=idx,
                    value=values.TypedValue(
                        type="t", data=b"\x02x" * 40_000, patch=values.Patch(base_version="i0", size=40_000)
                    ),
                )
                for idx in range(2)
            ]
        ),
    ),
    (
        "PutCheckpoint",
        "metadata.value.patch",
        None,
        lambda c: c.put_request(metadata=values.Metadata(value=values.TypedValue(type="t", patch=values.Patch()))),
    ),
    (
        "PutCheckpoint",
        "metadata.value.parts",
        None,
        lambda c: c.put_request(metadata=values.Metadata(value=values.TypedValue(type="t", parts=values.Parts()))),
    ),
    (
        "PutCheckpoint",
        "precondition.if_last_checkpoint_id",
        None,
        lambda c: c.put_request(precondition=values.Precondition(if_last_checkpoint_id="c")),
    ),
    (
        "PutWrites",
        "writes",
        8 * MEBIBYTE,
        lambda c: c.writes_request(task_path="p" * 65_536, writes=[task_write(c, idx=i) for i in range(128)]),
    ),
    ("PutWrites", "writes", 10_000, lambda c: c.writes_request(writes=[task_write(c)] * 10_001)),
    (
        "PutWrites",
        "writes[0].checkpoint_id",
        None,
        lambda c: c.writes_request(writes=[task_write(c, checkpoint_id="c")]),
    ),
    (
        "GetCheckpoint",
        "known",
        None,
        lambda c: pb.GetCheckpointRequest(thread_id="t", known=[values.KnownValue(channel="c", version="i1")]),
    ),
    (
        "GetCheckpoint",
        "known",
        1000,
        lambda c: pb.GetCheckpointRequest(
            thread_id="t", patches=True, known=[values.KnownValue(channel="c", version="i1")] * 1001
        ),
    ),
    (
        "GetDeltaChannelHistory",
        "page_token",
        None,
        lambda c: pb.GetDeltaChannelHistoryRequest(thread_id="t", channels=["a"], page_token="nonsense"),
    ),
    ("PutPart", "upload_id", None, lambda c: part(upload_id=b"")),
    ("PutPart", "upload_id", None, lambda c: part(upload_id=b"u" * 17)),
    ("PutPart", "offset", GIBIBYTE, lambda c: part(offset=-1)),
    ("PutPart", "offset", GIBIBYTE, lambda c: part(offset=GIBIBYTE)),
    ("PutPart", "data", MEBIBYTE, lambda c: part(data=b"")),
    ("PutPart", "data", MEBIBYTE, lambda c: part(data=bytes(MEBIBYTE + 1))),
    ("GetValue", "value", None, lambda c: value_service_pb2.GetValueRequest(thread_id="t")),
    ("GetValue", "offset", None, lambda c: get_value(offset=-1)),
    ("GetValue", "max_bytes", None, lambda c: get_value(max_bytes=-1)),
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
        ("PutCheckpoint", lambda c: c.put_request(body=bytes(8 * MEBIBYTE - 100))),
        ("PutCheckpoint", lambda c: c.put_request(channels=many(10_000), channel_versions=["i1"] * 10_000)),
        ("PutWrites", lambda c: c.writes_request(request_id=b"r" * 32)),
        ("PutPart", lambda c: part(data=bytes(MEBIBYTE))),
        ("PutPart", lambda c: part(offset=GIBIBYTE - 4)),
        ("GetValue", lambda c: get_value(offset=2**62, max_bytes=2**62)),
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
    """Bytes that aren't a request."""

    @pytest.mark.parametrize(
        "method",
        [
            f"{service.name}/{method.name}"
            for file in (
                pb.DESCRIPTOR,
                thread_service_pb2.DESCRIPTOR,
                lease_service_pb2.DESCRIPTOR,
                value_service_pb2.DESCRIPTOR,
            )
            for service in file.services_by_name.values()
            for method in service.methods
        ],
    )
    async def test_bytes_that_are_not_the_message_are_refused(self, client: Any, method: str) -> None:
        invalid_utf8 = b"\x0a\x02\xff\xfe"
        if method.endswith("/Pipeline"):
            invalid_utf8 = b"\x0a\x06\x1a\x04" + invalid_utf8  # a put's thread_id, in an operation
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
