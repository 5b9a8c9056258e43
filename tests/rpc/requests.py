"""Requests for tests of refusals."""

from __future__ import annotations

import random
from typing import Any
from zlib import crc32

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2
from checkpointd.v1 import values_pb2 as values

VERSION = "i1"


def channel_value(client: Any, **fields: Any) -> values.ChannelValue:
    return values.ChannelValue(**{"channel": "channel", "version": VERSION, "value": client.value(b""), **fields})


def channels(client: Any, version: str, **data: bytes | values.TypedValue | None) -> dict[str, Any]:
    """Returns the fields of a put with these channels and values, all at one version. A value of None is empty."""
    typed = {name: client.value(value) if isinstance(value, bytes) else value for name, value in data.items()}
    return {
        "channels": list(data),
        "channel_versions": [version] * len(data),
        "values": [values.ChannelValue(channel=name, version=version, value=value) for name, value in typed.items()],
    }


def task_write(client: Any, **fields: Any) -> values.TaskWrite:
    return values.TaskWrite(**{"channel": "channel", "value": client.value(b""), **fields})


def copy(**fields: Any) -> thread_service_pb2.CopyThreadRequest:
    return thread_service_pb2.CopyThreadRequest(**{"source_thread_id": "s", "target_thread_id": "t", **fields})


def send(client: Any, method: str, request: Any) -> Any:
    services = (client.threads, client.values, client.checkpoints)
    service = next(service for service in services if hasattr(service, method))
    return getattr(service, method)(request, timeout=20)


async def assert_nothing_stored(client: Any) -> None:
    page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())
    assert not page.tuples


def put_of(client: Any, size: int, checkpoint_id: str = "checkpoint-1") -> pb.PutCheckpointRequest:
    """Returns a put whose message has exactly `size` bytes."""
    request: pb.PutCheckpointRequest = client.put_request(
        checkpoint_id=checkpoint_id, **channels(client, f"s{checkpoint_id}", channel=b"")
    )
    value = request.values[0].value
    value.data = b"x" * (size // 2)
    value.data += b"x" * (size - request.ByteSize())
    value.data = value.data[: len(value.data) - (request.ByteSize() - size)]
    assert request.ByteSize() == size
    return request


def patch(base_version: str, base: bytes, new: bytes) -> values.TypedValue:
    """Returns a new value as a patch that copies the prefix that it shares with its base."""
    common = next((i for i, (a, b) in enumerate(zip(base, new, strict=False)) if a != b), min(len(base), len(new)))
    instructions = (_number(common << 1 | 1) + _number(0) if common else b"") + (
        _number(len(new) - common << 1) + new[common:] if len(new) > common else b""
    )
    described = values.Patch(base_version=base_version, size=len(new), crc32=crc32(new))
    return values.TypedValue(type="msgpack", data=instructions, patch=described)


async def put_chain(client: Any, *wholes: bytes, checkpoint_ns: str = "") -> None:
    """Stores a checkpoint for each value: the first whole, later ones as patches. Versions: "s0", "s1" and so on."""
    before = b""
    for number, whole in enumerate(wholes):
        value = patch(f"s{number - 1}", before, whole) if number else client.value(whole)
        put = client.put_request(
            checkpoint_ns=checkpoint_ns, checkpoint_id=f"{number:04}", **channels(client, f"s{number}", channel=value)
        )
        await client.checkpoints.PutCheckpoint(put)
        before = whole


async def get(client: Any, **fields: Any) -> pb.GetCheckpointResponse:
    answer: pb.GetCheckpointResponse = await client.checkpoints.GetCheckpoint(
        pb.GetCheckpointRequest(thread_id="thread-1", **fields)
    )
    return answer


def growing(count: int, step: int) -> list[bytes]:
    rng = random.Random(count)
    found = [rng.randbytes(step)]
    for _ in range(count - 1):
        found.append(found[-1] + rng.randbytes(step))
    return found


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
