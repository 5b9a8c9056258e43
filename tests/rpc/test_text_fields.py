"""Every text field of every request is held to its limit, and a refused request changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2
from checkpointd.v1 import values_pb2 as values
from tests.rpc.requests import (
    VERSION,
    assert_nothing_stored,
    channel_value,
    checkpoint,
    copy,
    seen,
    send,
    task_write,
    versions,
)


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
    Text("PutCheckpoint", "checkpoint_ns", 1408, False, lambda c, x: c.put_request(checkpoint_ns=x)),
    Text("PutCheckpoint", "checkpoint_id", 128, True, lambda c, x: c.put_request(checkpoint_id=x)),
    Text("PutCheckpoint", "parent_checkpoint_id", 128, False, lambda c, x: c.put_request(parent_checkpoint_id=x)),
    Text("PutCheckpoint", "checkpoint.ts", 0, False, lambda c, x: c.put_request(checkpoint=checkpoint(ts=x))),
    Text(
        "PutCheckpoint",
        "checkpoint.channel_versions.versions",
        512,
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
        512,
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
        512,
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
        512,
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
    Text("PutWrites", "checkpoint_ns", 1408, False, lambda c, x: c.writes_request(checkpoint_ns=x)),
    Text("PutWrites", "checkpoint_id", 128, True, lambda c, x: c.writes_request(checkpoint_id=x)),
    Text("PutWrites", "task_id", 128, True, lambda c, x: c.writes_request(task_id=x)),
    Text("PutWrites", "task_path", 65536, False, lambda c, x: c.writes_request(task_path=x)),
    Text(
        "PutWrites",
        "writes[1].channel",
        512,
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
        1408,
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
    Text("ListCheckpoints", "checkpoint_ns", 1408, False, lambda c, x: pb.ListCheckpointsRequest(checkpoint_ns=x)),
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
        1408,
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
        512,
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
        "PutWrites": {"writes.task_id", "writes.task_path", "writes.checkpoint_id"},  # must be unset
        "ListCheckpoints": {"page_token"},  # refused unless it's ours
        # Refused unless the lease is there: see test_leases.py, where LeaseService is too.
        "DeleteRuns": {"leases.thread_id"},
        "PruneThreads": {"leases.thread_id"},
    }
    for service in (pb.DESCRIPTOR, thread_service_pb2.DESCRIPTOR):
        for descriptor in service.services_by_name.values():
            for method in descriptor.methods:
                if method.name in ("Batch", "StreamBatches"):
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
