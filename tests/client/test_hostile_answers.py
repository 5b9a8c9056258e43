"""A server may answer anything: what comes of it is a value or an error of ours, in bounded time and memory."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc import CheckpointdError, CorruptValueError, Encryption
from langgraph.checkpoint.grpc._convert import encode
from langgraph.checkpoint.grpc._convert.reads import Reader
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.thread_copy import EncryptedThreadCopy
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._values.cache import CachedValue, ValueCache
from langgraph.checkpoint.grpc._values.patches import MAX_VALUE_BYTES
from langgraph.checkpoint.grpc._values.transfer import LeftOut, ValueGoneError, fetch
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as value_service
from checkpointd.v1 import values_pb2 as values

PLAIN = ValueSerde(serde=JsonPlusSerializer())
LENIENT = ValueSerde(
    serde=JsonPlusSerializer(), encryption=Encryption(keys={"a": bytes(32)}, current="a", required=False)
)
CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
VERSION = f"s{1:032}.{2:017}"
NEXT_VERSION = f"s{2:032}.{3:017}"

ODD: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_STRING: [
        "",
        "a",
        "t",
        "s",
        "i",
        "ix",
        "fx",
        "f1",
        "i1",
        VERSION,
        NEXT_VERSION,
        "\0",
        "9" * 5000,
    ],
    FieldDescriptor.TYPE_BYTES: [
        *(
            b"",
            b"\x80",
            b"\xc1",
            b"\xdf\xff\xff\xff\xff",
            b"\x91" * 5000,
            b"\x81\xa5extra\x92\xa1a\x01",
            b"\x81\x01\x02",
        ),
        *(b"\x81\xa5extra\xc0", b"\x81\xa5extra\x92\xa7msgpack\xc4\x01\x93", b"\x81\xa1v\x03", b"\x81\xa1v\xa11"),
        *(b"\x15\x00", b"\x03\xff\xff\xff\xff\x7f", b"\xff" * 12, b"\xc7\x05\x00" + bytes(5), bytes(3000)),
    ],
    FieldDescriptor.TYPE_INT64: [0, 1, -1, 7, 1000, MAX_VALUE_BYTES, 2**40, 2**63 - 1, -(2**63)],
    FieldDescriptor.TYPE_INT32: [0, 1, -1, 2**31 - 1],
    FieldDescriptor.TYPE_UINT32: [0, 1, 5, 2**32 - 1],
    FieldDescriptor.TYPE_FIXED32: [0, 1, 2**32 - 1],
    FieldDescriptor.TYPE_BOOL: [True, False],
}


def parts_of(message: Message) -> list[Message]:
    """A message and all that are in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                found += parts_of(part)
    return found


def spoil(message: Message, dice: random.Random) -> None:
    """Changes a message somewhere."""
    part = dice.choice(parts_of(message))
    field: Any = dice.choice(list(part.DESCRIPTOR.fields))
    if field.is_repeated:
        entries = getattr(part, field.name)
        match dice.randrange(4):
            case 0 if len(entries):
                del entries[dice.randrange(len(entries))]
            case 1 if len(entries):
                entries.extend([entries[dice.randrange(len(entries))]] * dice.randrange(1, 4))
            case _ if field.message_type is not None:
                spoil(entries.add(), dice)
            case _:
                entries.append(dice.choice(ODD[field.type]))
    elif field.message_type is not None:
        if dice.random() < 0.3:
            part.ClearField(field.name)
        else:
            spoil(getattr(part, field.name), dice)
            getattr(part, field.name).SetInParent()
    elif field.type in ODD:
        setattr(part, field.name, dice.choice(ODD[field.type]))


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
    """Answers everything, more or less well."""

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


def reader(serde: ValueSerde = PLAIN) -> Reader:
    cache = ValueCache(10**6)
    cache.put(("t", ""), "a", CachedValue(VERSION, "bytes", "bytes", 1, b"z" * 1000))
    return Reader(serde=serde, cache=cache, first_version=lambda: "1")


READS: dict[str, Callable[[ValueSerde, Server], Any]] = {
    "get": lambda serde, server: flows.run(reader(serde).get(encode.get(CONFIG)), server),
    "list": lambda serde, server: list(
        flows.iterate(
            reader(serde).pages(encode.list_checkpoints(serde, CONFIG, filter=None, before=None, limit=None), None),
            server,
        )
    ),
    "history": lambda serde, server: flows.run(
        reader(serde).delta_history(encode.delta_history(CONFIG, ["a"])), server
    ),
    "copy": lambda serde, server: flows.run(
        EncryptedThreadCopy(serde=LENIENT, attach_lease=lambda request: request).copy("t", "u", None), server
    ),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("serde", [PLAIN, LENIENT], ids=["plain", "encrypted"])
@given(seed=st.integers(0, 2**64))
@settings(max_examples=250, deadline=None)
def test_whatever_it_answers(serde: ValueSerde, read: str, seed: int) -> None:
    dice = random.Random(seed)
    server = Server(dice, dice.choice([0.1, 0.5, 1]))
    with contextlib.suppress(CheckpointdError):
        READS[read](serde, server)
    assert server.calls < 2000


@pytest.mark.parametrize("read", ["get", "list", "history"])
def test_a_sound_answer_is_read(read: str) -> None:
    """Otherwise the test above would look at nothing."""
    found = READS[read](PLAIN, Server(random.Random(1), 0))
    match read:
        case "get":
            assert found.checkpoint["channel_values"]["b"] == 1
            assert found.pending_writes == [("task", "a", "\0" * 6)]
        case "list":
            assert len(found) == 8
        case _:
            assert found["a"]["writes"] == [("t", "a", None)] * 4


class TestEndlessAnswers:
    def endless(self, answer: Callable[[Any, int], Any], read: str) -> int:
        calls = 0

        def server(request: Any) -> Any:
            nonlocal calls
            calls += 1
            assert calls < 5000, "it doesn't end"
            return answer(request, calls)

        with pytest.raises(CheckpointdError):
            READS[read](PLAIN, server)  # type: ignore[arg-type]
        return calls

    def test_empty_pages(self) -> None:
        assert self.endless(lambda _, call: pb.ListCheckpointsResponse(next_page_token=str(call)), "list") < 200
        assert self.endless(lambda _, call: pb.ListCheckpointsResponse(next_page_token="1"), "list") < 5
        page = pb.GetDeltaChannelHistoryResponse
        assert self.endless(lambda _, call: page(next_page_token=str(call)), "history") < 200
        assert self.endless(lambda _, call: page(next_page_token="1"), "history") < 5
        assert self.endless(lambda _, call: pb.ListCheckpointsResponse(next_page_token=str(call)), "copy") < 5

    @pytest.mark.parametrize(
        "value",
        [
            value_service.GetValueResponse(),
            value_service.GetValueResponse(found=True, size=1000),
            value_service.GetValueResponse(found=True, size=1000, data=b"x"),
            value_service.GetValueResponse(found=True, size=1000, data=bytes(2000)),
            value_service.GetValueResponse(found=True, size=2000, data=bytes(1000)),
        ],
        ids=["is gone", "has no bytes", "comes by the byte", "has too many bytes", "has another size"],
    )
    def test_a_value_that_never_comes(self, value: value_service.GetValueResponse) -> None:
        sound = Server(random.Random(1), 0)

        def answer(request: Any, call: int) -> Any:
            return value if isinstance(request, value_service.GetValueRequest) else sound(request)

        assert self.endless(answer, "get") < 100


class TestMemory:
    def peak(self, flow: flows.Flow[Any], server: Callable[[Any], Any]) -> int:
        tracemalloc.start()
        try:
            with pytest.raises((CheckpointdError, ValueGoneError)):
                flows.run(flow, server)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_a_size_that_is_a_lie_takes_none(self) -> None:
        for size in (-1, MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1, 2**62):
            wanted = [LeftOut(value_service.GetValueRequest(), size)]
            assert self.peak(fetch(wanted), lambda _: value_service.GetValueResponse()) < 4_000_000

    def test_a_patch_makes_no_more_than_it_may(self) -> None:
        def server(request: Any) -> Any:
            answer = pb.GetCheckpointResponse(tuple=sound_tuple())
            del answer.tuple.pending_writes[:]
            sound_rows(answer.stored_values)
            base, patched, _ = answer.stored_values
            base.value.ClearField("parts")
            base.value.data = bytes(1_000_000)
            patched.value.patch.size = 2**40
            patched.value.data = b"\x81\x89\x7a\x00" * 100_000
            return answer

        assert self.peak(reader().get(encode.get(CONFIG)), server) < 40_000_000

    def test_patches_in_a_circle(self) -> None:
        def server(request: Any) -> Any:
            answer = pb.GetCheckpointResponse(tuple=sound_tuple())
            del answer.tuple.pending_writes[:]
            sound_rows(answer.stored_values)
            base, _, _ = answer.stored_values
            base.value.patch.base_version = NEXT_VERSION
            return answer

        with pytest.raises(CorruptValueError, match="without an end"):
            flows.run(Reader(serde=PLAIN, cache=ValueCache(0), first_version=str).get(encode.get(CONFIG)), server)


def test_a_copy_that_breaks_off_is_deleted_again() -> None:
    made: list[Any] = []
    sound = Server(random.Random(1), 0)

    def server(request: Any) -> Any:
        made.append(type(request))
        if isinstance(request, pb.PutWritesRequest):
            raise CheckpointdError("no")
        at_target = isinstance(request, pb.ListCheckpointsRequest) and request.thread_id == "u"
        return pb.ListCheckpointsResponse() if at_target else sound(request)

    with pytest.raises(CheckpointdError, match="no"):
        READS["copy"](LENIENT, server)  # type: ignore[arg-type]
    assert made[-3:] == [pb.PutCheckpointRequest, pb.PutWritesRequest, threads_pb.DeleteThreadRequest]
