"""A server that answers as no real server would: valid messages, corrupted at random."""

from __future__ import annotations

import random
import zlib
from typing import Any

from langgraph.checkpoint.grpc import Encryption
from langgraph.checkpoint.grpc._convert import encode
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as value_service
from checkpointd.v1 import values_pb2 as values
from tests.support.spoiling import NEXT_VERSION, VERSION, spoil

PLAIN = ValueSerde(serde=JsonPlusSerializer())
LENIENT = ValueSerde(
    serde=JsonPlusSerializer(), encryption=Encryption(keys={"a": bytes(32)}, current="a", required=False)
)
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def sound_tuple() -> values.CheckpointTuple:
    """A checkpoint with values, parent and writes, as a saver would have stored it."""
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "0"}}
    saved: Any = {"v": 3, "id": "1", "ts": "", "channel_values": {"a": "x" * 1000, "b": 1}, "versions_seen": {}}
    saved |= {"channel_versions": {"a": NEXT_VERSION[1:], "b": 1}, "updated_channels": None, "more": {1: 2}}
    put = encode.put(PLAIN, ValueCache(0), config, saved, {"source": "loop"}, {}).request
    found = values.CheckpointTuple(thread_id="t", checkpoint_id="1", parent_checkpoint_id="0", body=put.body, version=1)
    found.channels.extend(put.channels)
    found.channel_versions.extend(put.channel_versions)
    found.metadata.CopyFrom(put.metadata)
    write = found.pending_writes.add(task_id="task", idx=0, channel="a")
    write.value.type, write.value.parts.size = "msgpack", 7
    return found


def sound_rows(rows: Any) -> None:
    base, patched = rows.add(channel="a", version=VERSION), rows.add(channel="a", version=NEXT_VERSION)
    base.value.type, base.value.parts.size = "bytes", 1000
    patched.value.type, patched.value.data = "bytes", b"\x03\x00\x04ab"
    patched.value.patch.base_version, patched.value.patch.size = VERSION, 3
    patched.value.patch.crc32 = zlib.crc32(b"zab")
    rows.add(channel="b", version="i1", value=values.TypedValue(type="msgpack", data=b"\x01"))


class Server:
    """Answers every request, more or less correctly."""

    def __init__(self, dice: random.Random, rate: float) -> None:
        self._dice = dice
        self._rate = rate
        self.calls = self.pages = 0

    def __call__(self, request: Any) -> Any:
        self.calls += 1
        answer: Any
        match request:
            case pb.GetCheckpointRequest():
                answer = pb.GetCheckpointResponse(tuple=sound_tuple(), version=1)
                sound_rows(answer.stored_values)
            case pb.ListCheckpointsRequest():
                answer = pb.ListCheckpointsResponse(tuples=[sound_tuple(), sound_tuple()], version=1)
                sound_rows(answer.stored_values)
                answer.next_page_token = self._next_page()
            case pb.GetDeltaChannelHistoryRequest():
                answer = pb.GetDeltaChannelHistoryResponse(version=1)
                history = answer.channels.add(channel="a", seed_version=NEXT_VERSION)
                history.writes.add(checkpoint_id="1", task_id="t", channel="a").value.type = "null"
                sound_rows(answer.stored_values)
                answer.next_page_token = self._next_page()
            case value_service.GetValueRequest():
                stored = b"z" * 1000 if request.HasField("channel_value") else b"\xa6" + bytes(6)
                data = stored[request.offset :][: request.max_bytes]
                answer = value_service.GetValueResponse(data=data, size=len(stored), found=True)
            case _:
                answer = pb.PutCheckpointResponse(version=1)
        if self._dice.random() < self._rate:
            for _ in range(self._dice.randrange(1, 4)):
                spoil(answer, self._dice)
        return answer

    def _next_page(self) -> str:
        self.pages += 1
        return str(self.pages) if self.pages < 4 else ""
