"""Requests that tests of refusals are made of."""

from __future__ import annotations

from typing import Any

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2
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


def send(client: Any, method: str, request: Any) -> Any:
    service = client.threads if hasattr(client.threads, method) else client.checkpoints
    return getattr(service, method)(request, timeout=20)


async def assert_nothing_stored(client: Any) -> None:
    page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())
    assert not page.tuples


def operation(request: Any) -> pb.BatchOperation:
    kinds = {
        pb.PutCheckpointRequest: "put_checkpoint",
        pb.PutWritesRequest: "put_writes",
        pb.GetCheckpointRequest: "get_checkpoint",
    }
    return pb.BatchOperation(**{kinds[type(request)]: request})


def put_of(client: Any, size: int, checkpoint_id: str = "checkpoint-1") -> pb.PutCheckpointRequest:
    """Returns a put whose message has exactly `size` bytes."""
    version = values.ChannelVersion(text=checkpoint_id)
    request: pb.PutCheckpointRequest = client.put_request(
        checkpoint_id=checkpoint_id,
        checkpoint=values.Checkpoint(channel_versions=values.ChannelVersions(versions={"channel": version})),
    )
    value = request.values.add(channel="channel", version=version, value=client.value(b"")).value
    value.data = b"x" * (size // 2)
    value.data += b"x" * (size - request.ByteSize())
    value.data = value.data[: len(value.data) - (request.ByteSize() - size)]
    assert request.ByteSize() == size
    return request
