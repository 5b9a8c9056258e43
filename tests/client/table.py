"""Rows and uploads as a server stores them, for puts and reads without a server."""

from __future__ import annotations

import copy
import os
import threading
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.grpc import Encryption
from langgraph.checkpoint.grpc._convert import encode
from langgraph.checkpoint.grpc._convert.reads import Reader
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.outgoing import OutgoingCheckpoint, OutgoingWrites
from langgraph.checkpoint.grpc._values.rows import KEPT_BYTES
from langgraph.checkpoint.grpc.errors import BaseMissingError
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values

SERDE = JsonPlusSerializer()
PLAIN = ValueSerde(serde=SERDE)
SEALED = ValueSerde(serde=SERDE, encryption=Encryption(keys={"a": bytes(32), "b": bytes(31) + b"b"}, current="a"))
OTHER_KEY = ValueSerde(serde=SERDE, encryption=Encryption(keys={"a": bytes(32), "b": bytes(31) + b"b"}, current="b"))
KEY = ("thread", "")

numbers = iter(range(1, 10**9))


def version() -> str:
    """A version as savers make them."""
    return f"{next(numbers):032}.{int.from_bytes(os.urandom(7)):017}"


def put_of(
    serde: ValueSerde, cache: ValueCache, channel_values: dict[str, Any], new: dict[str, Any] | None = None, **more: Any
) -> OutgoingCheckpoint:
    """A put of these values, at versions of their own."""
    new = {channel: version() for channel in channel_values} if new is None else new
    saved = empty_checkpoint() | {"channel_values": channel_values, "channel_versions": more.pop("versions", new)}
    config: Any = {"configurable": {"thread_id": KEY[0], "checkpoint_ns": KEY[1]}}
    return encode.put(serde, cache, config, saved | more, {"source": "loop", "step": 1, "parents": {}}, new)


def writes_of(
    serde: ValueSerde, cache: ValueCache, written: list[tuple[str, Any]], *, beside: str = "1", task: str = "task"
) -> OutgoingWrites:
    """The writes of a task."""
    config: Any = {"configurable": {"thread_id": KEY[0], "checkpoint_ns": KEY[1], "checkpoint_id": beside}}
    return encode.put_writes(serde, cache, config, written, task, "")


def checksum_of(value: values.TypedValue) -> int:
    return value.patch.crc32 or value.crc32


class Table:
    """Rows and uploads, as a server stores them; answers the requests of flows."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], values.TypedValue] = {}
        self.uploads: dict[bytes, dict[int, bytes]] = {}
        self.puts: dict[str, pb.PutCheckpointRequest] = {}
        self.writes: dict[tuple[str, str, int], values.TaskWrite] = {}
        self.largest = 0
        self.latest = ""
        self.left_out_from = 10**9
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> Any:
        with self._lock:
            self.largest = max(self.largest, request.ByteSize())
            match request:
                case values_pb.PutPartRequest():
                    self.uploads.setdefault(request.upload_id, {})[request.offset] = request.data
                    return values_pb.PutPartResponse()
                case pb.PutCheckpointRequest():
                    return self._put(request)
                case pb.PutWritesRequest():
                    return self._put_writes(request)
                case pb.GetCheckpointRequest():
                    return self._get(request)
                case values_pb.GetValueRequest():
                    assert request.patches
                    if request.HasField("task_write"):
                        written = request.task_write
                        data = self.writes[written.checkpoint_id, written.task_id, written.idx].value.data
                    else:
                        data = self.rows[request.channel_value.channel, request.channel_value.version].data
                    part = data[request.offset : request.offset + min(request.max_bytes, 300_000)]
                    return values_pb.GetValueResponse(data=part, size=len(data), found=True)
        raise AssertionError(request)

    def _put(self, request: pb.PutCheckpointRequest) -> pb.PutCheckpointResponse:
        for entry in request.values:
            self.rows[entry.channel, entry.version] = self._stored(entry.channel, entry.value)
        self.puts[request.checkpoint_id] = request
        self.latest = max(self.latest, request.checkpoint_id)
        return pb.PutCheckpointResponse(version=1)

    def _put_writes(self, request: pb.PutWritesRequest) -> pb.PutWritesResponse:
        stored = [self._stored(write.channel, write.value) for write in request.writes]
        for write, value in zip(request.writes, stored, strict=True):
            kept = values.TaskWrite(task_id=request.task_id, idx=write.idx, channel=write.channel, value=value)
            self.writes[request.checkpoint_id, request.task_id, write.idx] = kept
        return pb.PutWritesResponse(version=1)

    def _stored(self, channel: str, given: values.TypedValue) -> values.TypedValue:
        value = copy.deepcopy(given)
        base = self.rows.get((channel, value.patch.base_version))
        if value.HasField("patch") and (base is None or checksum_of(base) != value.patch.base_crc32):
            raise BaseMissingError(thread_id=KEY[0], channel=channel)
        if value.HasField("parts"):
            parts = self.uploads.pop(value.parts.upload_id)
            value.data = b"".join([parts[offset] for offset in sorted(parts)])
            assert len(value.data) == value.parts.size
            value.ClearField("parts")
        return value

    def _get(self, request: pb.GetCheckpointRequest) -> pb.GetCheckpointResponse:
        put = self.puts[request.checkpoint_id or self.latest]
        found = values.CheckpointTuple(thread_id=put.thread_id, checkpoint_id=put.checkpoint_id, body=put.body)
        found.parent_checkpoint_id = put.parent_checkpoint_id
        found.channels.extend(put.channels)
        found.channel_versions.extend(put.channel_versions)
        found.metadata.value.CopyFrom(put.metadata.value)
        versions = list(zip(put.channels, put.channel_versions, strict=True))
        for (beside, _, _), write in sorted(self.writes.items()):
            if beside == put.checkpoint_id:
                found.pending_writes.add().CopyFrom(write)
                if write.value.HasField("patch"):
                    versions.append((write.channel, write.value.patch.base_version))
        answer = pb.GetCheckpointResponse(tuple=found, version=1)
        known = {(value.channel, value.version, value.crc32) for value in request.known}
        sent: set[tuple[str, str]] = set()
        for channel, at in versions:
            while (stored := self.rows.get((channel, at))) and (channel, at, checksum_of(stored)) not in known:
                if (channel, at) in sent:
                    break
                sent.add((channel, at))
                row = answer.stored_values.add(channel=channel, version=at)
                row.value.CopyFrom(stored)
                at = row.value.patch.base_version
                if not row.value.HasField("patch"):
                    break
        for value in [*(row.value for row in answer.stored_values), *(w.value for w in answer.tuple.pending_writes)]:
            if len(value.data) >= self.left_out_from:
                value.parts.size = len(value.data)
                value.data = b""
        return answer


def read(
    table: Table, serde: ValueSerde, cache: ValueCache, checkpoint_id: str = "", *, kept_bytes: int = KEPT_BYTES
) -> Any:
    reader = Reader(serde=serde, cache=cache, first_version=str, kept_bytes=kept_bytes)
    config: Any = {"configurable": {"thread_id": KEY[0], "checkpoint_id": checkpoint_id}}
    return flows.run(reader.get(encode.get(config)), table)
