"""Requests that can't be used: each names its field and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import msgpack
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import lease_service_pb2, thread_service_pb2
from checkpointd.v1 import values_pb2 as values

VERSION = values.ChannelVersion(integer=1)


def checkpoint(**fields: Any) -> values.Checkpoint:
    return values.Checkpoint(**fields)


def versions(**by_channel: values.ChannelVersion) -> values.ChannelVersions:
    return values.ChannelVersions(versions=by_channel)


def seen(channel: str, version: values.ChannelVersion = VERSION, node: str = "node") -> values.Checkpoint:
    return values.Checkpoint(versions_seen={node: values.ChannelVersions(versions={channel: version})})


def channel_value(client: Any, **fields: Any) -> values.ChannelValue:
    return values.ChannelValue(**{"channel": "channel", "version": VERSION, "value": client.value(b""), **fields})


def task_write(client: Any, **fields: Any) -> values.TaskWrite:
    return values.TaskWrite(**{"channel": "channel", "value": client.value(b""), **fields})


def copy(**fields: Any) -> thread_service_pb2.CopyThreadRequest:
    return thread_service_pb2.CopyThreadRequest(**{"source_thread_id": "s", "target_thread_id": "t", **fields})


@dataclass(frozen=True)
class Text:
    """A text field of a request."""

    method: str
    field: str
    limit: int
    """In bytes; 0: the protocol has none."""
    required: bool
    request: Callable[[Any, str], Any]
    """Makes an otherwise valid request with this text in the field."""


TEXTS = [
    Text("PutCheckpoint", "thread_id", 512, True, lambda c, x: c.put_request(thread_id=x)),
    Text("PutCheckpoint", "checkpoint_ns", 1024, False, lambda c, x: c.put_request(checkpoint_ns=x)),
    Text("PutCheckpoint", "checkpoint_id", 128, True, lambda c, x: c.put_request(checkpoint_id=x)),
    Text("PutCheckpoint", "parent_checkpoint_id", 128, False, lambda c, x: c.put_request(parent_checkpoint_id=x)),
    Text("PutCheckpoint", "checkpoint.ts", 0, False, lambda c, x: c.put_request(checkpoint=checkpoint(ts=x))),
    Text(
        "PutCheckpoint",
        "checkpoint.channel_versions.versions",
        256,
        True,
        lambda c, x: c.put_request(checkpoint=checkpoint(channel_versions=versions(**{x: VERSION}))),
    ),
    Text(
        "PutCheckpoint",
        'checkpoint.channel_versions.versions["a"].text',
        128,
        False,
        lambda c, x: c.put_request(checkpoint=checkpoint(channel_versions=versions(a=values.ChannelVersion(text=x)))),
    ),
    Text(
        "PutCheckpoint",
        "checkpoint.versions_seen",
        0,
        False,
        lambda c, x: c.put_request(checkpoint=seen("channel", node=x)),
    ),
    Text(
        "PutCheckpoint",
        'checkpoint.versions_seen["node"].versions',
        256,
        True,
        lambda c, x: c.put_request(checkpoint=seen(x)),
    ),
    Text(
        "PutCheckpoint",
        'checkpoint.versions_seen["node"].versions["a"].text',
        128,
        False,
        lambda c, x: c.put_request(checkpoint=seen("a", values.ChannelVersion(text=x))),
    ),
    Text(
        "PutCheckpoint",
        "checkpoint.updated_channels.names[1]",
        256,
        True,
        lambda c, x: c.put_request(checkpoint=checkpoint(updated_channels=values.ChannelNames(names=["a", x]))),
    ),
    Text(
        "PutCheckpoint",
        "checkpoint.extra.type",
        128,
        True,
        lambda c, x: c.put_request(checkpoint=checkpoint(extra=c.value(b"", x))),
    ),
    Text(
        "PutCheckpoint",
        "values[1].channel",
        256,
        True,
        lambda c, x: c.put_request(values=[channel_value(c), channel_value(c, channel=x)]),
    ),
    Text(
        "PutCheckpoint",
        "values[0].version.text",
        128,
        False,
        lambda c, x: c.put_request(values=[channel_value(c, version=values.ChannelVersion(text=x))]),
    ),
    Text(
        "PutCheckpoint",
        "values[1].value.type",
        128,
        True,
        lambda c, x: c.put_request(
            values=[channel_value(c, value=None), channel_value(c, channel="b", value=c.value(b"", x))]
        ),
    ),
    Text(
        "PutCheckpoint",
        "metadata.value.type",
        128,
        True,
        lambda c, x: c.put_request(metadata=values.Metadata(value=c.value(b"", x), index=b"\x80")),
    ),
    Text("PutWrites", "thread_id", 512, True, lambda c, x: c.writes_request(thread_id=x)),
    Text("PutWrites", "checkpoint_ns", 1024, False, lambda c, x: c.writes_request(checkpoint_ns=x)),
    Text("PutWrites", "checkpoint_id", 128, True, lambda c, x: c.writes_request(checkpoint_id=x)),
    Text("PutWrites", "task_id", 128, True, lambda c, x: c.writes_request(task_id=x)),
    Text("PutWrites", "task_path", 4096, False, lambda c, x: c.writes_request(task_path=x)),
    Text(
        "PutWrites",
        "writes[1].channel",
        256,
        True,
        lambda c, x: c.writes_request(writes=[task_write(c), task_write(c, idx=1, channel=x)]),
    ),
    Text(
        "PutWrites",
        "writes[0].value.type",
        128,
        True,
        lambda c, x: c.writes_request(writes=[task_write(c, value=c.value(b"", x))]),
    ),
    Text("GetCheckpoint", "thread_id", 512, True, lambda c, x: pb.GetCheckpointRequest(thread_id=x)),
    Text(
        "GetCheckpoint",
        "checkpoint_ns",
        1024,
        False,
        lambda c, x: pb.GetCheckpointRequest(thread_id="t", checkpoint_ns=x),
    ),
    Text(
        "GetCheckpoint",
        "checkpoint_id",
        128,
        False,
        lambda c, x: pb.GetCheckpointRequest(thread_id="t", checkpoint_id=x),
    ),
    Text("ListCheckpoints", "thread_id", 512, True, lambda c, x: pb.ListCheckpointsRequest(thread_id=x)),
    Text("ListCheckpoints", "checkpoint_ns", 1024, False, lambda c, x: pb.ListCheckpointsRequest(checkpoint_ns=x)),
    Text("ListCheckpoints", "checkpoint_id", 128, False, lambda c, x: pb.ListCheckpointsRequest(checkpoint_id=x)),
    Text(
        "ListCheckpoints",
        "before_checkpoint_id",
        128,
        False,
        lambda c, x: pb.ListCheckpointsRequest(before_checkpoint_id=x),
    ),
    Text(
        "GetDeltaChannelHistory",
        "thread_id",
        512,
        True,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id=x, channels=["a"]),
    ),
    Text(
        "GetDeltaChannelHistory",
        "checkpoint_ns",
        1024,
        False,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id="t", checkpoint_ns=x, channels=["a"]),
    ),
    Text(
        "GetDeltaChannelHistory",
        "checkpoint_id",
        128,
        False,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id="t", checkpoint_id=x, channels=["a"]),
    ),
    Text(
        "GetDeltaChannelHistory",
        "channels[1]",
        256,
        True,
        lambda c, x: pb.GetDeltaChannelHistoryRequest(thread_id="t", channels=["a", x]),
    ),
    Text("DeleteThread", "thread_id", 512, True, lambda c, x: thread_service_pb2.DeleteThreadRequest(thread_id=x)),
    Text("DeleteRuns", "run_ids[1]", 512, True, lambda c, x: thread_service_pb2.DeleteRunsRequest(run_ids=["a", x])),
    Text("CopyThread", "source_thread_id", 512, True, lambda c, x: copy(source_thread_id=x)),
    Text("CopyThread", "target_thread_id", 512, True, lambda c, x: copy(target_thread_id=x)),
    Text("CopyThread", "checkpoint_id", 128, False, lambda c, x: copy(checkpoint_id=x)),
    Text(
        "PruneThreads",
        "thread_ids[0]",
        512,
        True,
        lambda c, x: thread_service_pb2.PruneThreadsRequest(thread_ids=[x]),
    ),
]


def send(client: Any, method: str, request: Any) -> Any:
    service = client.threads if hasattr(client.threads, method) else client.checkpoints
    return getattr(service, method)(request, timeout=20)


async def assert_nothing_stored(client: Any) -> None:
    page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())
    assert not page.tuples


def name(text: Text) -> str:
    return f"{text.method}-{text.field}"


def text_fields(message: Any, prefix: str = "", depth: int = 0) -> set[str]:
    """Returns the paths of all text fields of a message, without positions and keys."""
    found = set()
    for field in message.fields:
        path = f"{prefix}{field.name}"
        nested = field.message_type
        if field.type == field.TYPE_STRING:
            found.add(path)
        elif nested is not None and nested.GetOptions().map_entry:
            found.add(path)  # the key
            if depth < 6:
                found |= text_fields(nested.fields_by_name["value"].message_type, f"{path}.", depth + 1)
        elif nested is not None and depth < 6:
            found |= text_fields(nested, f"{path}.", depth + 1)
    return found


def test_every_text_field_of_every_request_is_tried() -> None:
    covered: dict[str, set[str]] = {}
    for text in TEXTS:
        parts = [part.split("[")[0] for part in text.field.split(".")]
        covered.setdefault(text.method, set()).add(".".join(parts))
    elsewhere = {
        "PutWrites": {"writes.task_id", "writes.task_path"},  # must be unset
        "ListCheckpoints": {"page_token"},  # refused unless it's ours
        # Refused unless the lease is there: see test_leases.py, where LeaseService is too.
        "DeleteRuns": {"leases.thread_id"},
        "PruneThreads": {"leases.thread_id"},
    }
    for service in (pb.DESCRIPTOR, thread_service_pb2.DESCRIPTOR):
        for descriptor in service.services_by_name.values():
            for method in descriptor.methods:
                if method.name == "Batch":
                    continue  # the same requests, and the same checks: see test_batches.py
                expected = text_fields(method.input_type) - elsewhere.get(method.name, set())
                assert covered.get(method.name, set()) == expected, method.name


@pytest.mark.parametrize("text", TEXTS, ids=name)
async def test_text_fields_are_held_to_their_limits(client: Any, text: Text) -> None:
    if text.limit:
        for character in ("x", "é"):
            too_long = character * (text.limit // len(character.encode())) + "x"
            refusal = await client.refused(send(client, text.method, text.request(client, too_long)))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
            assert refusal.metadata == {"field": text.field, "limit": str(text.limit)}
            assert text.field in refusal.message
            assert str(text.limit) in refusal.message
    refusal = await client.refused(send(client, text.method, text.request(client, "a\0b")))
    assert (refusal.code, refusal.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": text.field})
    assert "NUL" in refusal.message
    if text.required:
        refusal = await client.refused(send(client, text.method, text.request(client, "")))
        assert (refusal.code, refusal.metadata) == (grpc.StatusCode.INVALID_ARGUMENT, {"field": text.field})
    await assert_nothing_stored(client)
    for character in ("x", "é"):
        longest = character * ((text.limit or 5000) // len(character.encode()))
        await send(client, text.method, text.request(client, longest))
    if not text.required:
        await send(client, text.method, text.request(client, ""))


async def test_all_keys_may_have_their_full_length_at_once(client: Any) -> None:
    keys = {"thread_id": "t" * 512, "checkpoint_ns": "n" * 1024, "checkpoint_id": "c" * 128}
    version = values.ChannelVersion(text="v" * 128)
    put = client.put_request(**keys, values=[channel_value(client, channel="c" * 256, version=version)])
    put.checkpoint.channel_versions.versions["c" * 256].CopyFrom(version)
    await client.checkpoints.PutCheckpoint(put)
    writes = client.writes_request(**keys, task_id="i" * 128, task_path="p" * 4096)
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
