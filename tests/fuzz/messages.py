"""Hostile messages of any type, made from its descriptor: the type allows their fields, but requests rarely do."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

DEPTH = 4
"""The depth to which messages are nested field by field."""

TEXTS = [
    *("thread-1", "thread-2", "checkpoint-1", "task-1", "channel", "msgpack", "run"),
    *("\0", "a\0b", "é", "\U0010ffff" * 40, "\u202e", "\ud7ff", "\ufffe", "a" * 127, "a" * 513, "a" * 5000, " ", "\n"),
    *("'; DROP TABLE checkpoints; --", "$1", "%s", "{0}", '"', "\\", "../../etc/passwd", "__schema__", "__tenant__"),
    *("AAAA", "=", "-_", "e30", '["a"]', "null", "NaN", "1e999"),
]
"""Ids that other requests use too, and texts that aren't ids."""


class Evil:
    """An object that runs code when its pickle is loaded."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return (__import__, ("antigravity",))


BYTES = [
    *(b"\x80", b"\x81\xa3run\xa3run", b"\xc1", b"\xff" * 32, bytes(33), b"\xdf\xff\xff\xff\xff", b"\x91" * 5000),
    *(b"\xc7\xff\x00", b"\xca\x7f\xc0\x00\x00", b"\xcb\x7f\xf8" + bytes(6), b"\x81\xa1a\x81" * 200),
    *(zlib.compress(bytes(50_000_000)), pickle.dumps(Evil()), b"[" * 8000, b"{}", b"null", b"1" * 5000),
    *(
        b"\x02x",
        b"\x03\x00",
        b"\x03\x00" * 3000,
        b"\xff\xff\xff\xff\x7f\x00",
        b"\x03\xff\xff\xff\xff\x7f",
        b"\x80" * 50,
    ),
]
"""Metadata, instructions of patches, tokens, and bytes that are none of these."""

THREADS = ["thread-1", "thread-2"]
CHECKPOINTS = ["checkpoint-1", "checkpoint-2"]
SANE: dict[str, list[Any]] = {
    "thread_id": THREADS,
    "thread_ids": THREADS,
    "source_thread_id": THREADS,
    "target_thread_id": ["thread-3", "thread-1"],
    "checkpoint_ns": ["", "ns"],
    "checkpoint_id": CHECKPOINTS,
    "before_checkpoint_id": CHECKPOINTS,
    "after_checkpoint_id": CHECKPOINTS,
    "parent_checkpoint_id": CHECKPOINTS,
    "type": ["msgpack", "bytes"],
    "data": [b"\x80", b"\x81\xa3run\xa3run", b"written"],
    "body": [b"\x80", b"\x81\xa1v\x04"],
    "channels": ["channel", "other"],
    "channel_versions": ["s1", "i1", "f1.5"],
    "version": ["s1", "i1"],
    "base_version": ["s1", "i1"],
    "seed_version": ["s1"],
    "upload_id": [b"u" * 16],
    "offset": [0],
    "max_bytes": [0, 1, 100],
    "timeout_ms": [0],
    "index": [b"", b"\x81\xa3run\xa3run"],
    "filter": [b"", b"\x81\xa3run\xa3run"],
    "metadata": [b"", b"\x81\xa3run\xa3run"],
    "page_token": [""],
    "page_size": [0, 1, 2],
    "size": [1, 2, 7],
    "wait_ms": [0, 10],
    "ttl_ms": [0, 1000],
    "lease_token": [0],
    "if_version_match": [0],
    "filter_json": ["", '{"run": "run"}', '{"n": {"$gt": 1, "$nin": [2]}}', '{"a": {"b": [null, {"c": true}]}}'],
    "language": ["", "english"],
}
"""Ordinary values of fields for which those of their type (`ORDINARY`) don't fit."""

SELDOM = {
    "checkpointd.v1.TypedValue.patch",
    "checkpointd.v1.TypedValue.parts",
    "checkpointd.v1.TaskWrite.task_id",
    "checkpointd.v1.TaskWrite.task_path",
    "checkpointd.v1.TaskWrite.checkpoint_id",
    "checkpointd.v1.GetCheckpointRequest.known",
    "checkpointd.v1.Precondition.if_last_checkpoint_id",
    "checkpointd.v1.Metadata.struct",
    "checkpointd.v1.ListCheckpointsRequest.filter_struct",
    "checkpointd.v1.ListCheckpointsRequest.all_namespaces",
    "checkpointd.v1.ThreadFilter.metadata_struct",
    "checkpointd.v1.SearchItemsRequest.filter_json",
    "checkpointd.v1.CountItemsRequest.filter_json",
}
"""Fields that make most requests fail for the same reason, and are therefore rarely set."""

ORDINARY: dict[int, list[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: ["channel", "task-1", "1"],
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
    FieldDescriptor.CPPTYPE_DOUBLE: [1.0, 2.5],
    FieldDescriptor.CPPTYPE_FLOAT: [1.0, 2.5],
    FieldDescriptor.CPPTYPE_INT32: [0, 1],
    FieldDescriptor.CPPTYPE_INT64: [1, 2],
    FieldDescriptor.CPPTYPE_UINT32: [0, 1],
    FieldDescriptor.CPPTYPE_UINT64: [1, 2],
}

INTEGERS = [
    0,
    1,
    2,
    -1,
    32,
    1000,
    1001,
    65_537,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
]
DOUBLES = [0.0, -0.0, 1.0, 1.5e308, 5e-324, float("inf"), float("-inf"), float("nan")]

_BITS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}


def integers(kind: int) -> st.SearchStrategy[int]:
    """Numbers for a field of this type."""
    least, most = _BITS[kind]
    return st.sampled_from([number for number in INTEGERS if least <= number <= most])


def texts() -> st.SearchStrategy[str]:
    """Texts. The mutations of bytes add invalid UTF-8."""
    return st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def values(draw: st.DrawFn, field: FieldDescriptor, hostility: int) -> Any:
    """Values of a field that isn't a message: odd ones `hostility` times out of 20."""
    if draw(st.integers(1, 20)) > 20 - hostility:
        return draw(odd(field.type))
    kind = {FieldDescriptor.TYPE_STRING: str, FieldDescriptor.TYPE_BYTES: bytes}.get(field.type, int)
    if sane := [value for value in SANE.get(field.name, ()) if isinstance(value, kind)]:
        return draw(st.sampled_from(sane))
    if kind is bytes:
        return draw(st.sampled_from([b"me", b"written"]))
    if field.enum_type is not None:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    return draw(st.sampled_from(ORDINARY[field.cpp_type]))


@cache
def odd(kind: int) -> st.SearchStrategy[Any]:
    """Edge cases for a field of this type."""
    if kind == FieldDescriptor.TYPE_STRING:
        return texts()
    if kind == FieldDescriptor.TYPE_BYTES:
        return st.sampled_from(BYTES) | st.binary(max_size=40)
    if kind == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return st.sampled_from(DOUBLES) | st.floats()
    if kind == FieldDescriptor.TYPE_FLOAT:
        return st.sampled_from([0.0, -0.0, 1.0, float("inf"), float("nan")]) | st.floats(width=32)
    return integers(kind)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = DEPTH, hostility: int | None = None) -> Any:
    """Messages of a type. Some are odd all over, others in one place only, so that no other error hides it."""
    made: Any = GetMessageClass(descriptor)()
    if hostility is None:
        hostility = draw(st.sampled_from([0, 1, 1, 2, 4, 10]))
    # A field with presence is in a oneof of its own.
    chosen = {
        oneof.name: draw(st.sampled_from([*oneof.fields, None] if len(oneof.fields) == 1 else list(oneof.fields)))
        for oneof in descriptor.oneofs
    }
    for field in descriptor.fields:
        # A field is left out now and then.
        if draw(st.integers(1, 40)) > 40 - hostility or (not depth and field.message_type is not None):
            continue
        if field.full_name in SELDOM and draw(st.integers(1, 12)) < 12:
            continue
        if field.containing_oneof is not None and field is not chosen[field.containing_oneof.name]:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(draw, made, field, depth, hostility)
        elif field.message_type is not None and field.is_repeated:
            for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
                getattr(made, field.name).append(draw(messages(field.message_type, depth - 1, hostility)))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(draw(messages(field.message_type, depth - 1, hostility)))
        elif field.is_repeated:
            some = draw(st.lists(values(field, hostility), max_size=3))
            times = draw(st.sampled_from([1, 500])) if hostility > 2 else 1
            getattr(made, field.name).extend(some * times)
        else:
            setattr(made, field.name, draw(values(field, hostility)))
    if descriptor.name == "PutCheckpointRequest" and draw(st.integers(1, 20)) > hostility:
        # Otherwise duplicate or unversioned channels would make most of these requests fail.
        channels = list(dict.fromkeys(made.channels))
        del made.channels[:], made.channel_versions[len(channels) :]
        made.channels.extend(channels)
        made.channel_versions.extend(["s1"] * (len(channels) - len(made.channel_versions)))
    return made


def _fill_map(draw: st.DrawFn, made: Any, field: FieldDescriptor, depth: int, hostility: int) -> None:
    assert field.message_type is not None
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for name in draw(st.lists(values(key, hostility), max_size=2)):
        if value.message_type is None:
            getattr(made, field.name)[name] = draw(values(value, hostility))
        else:
            getattr(made, field.name)[name].CopyFrom(draw(messages(value.message_type, depth - 1, hostility)))


@st.composite
def broken(draw: st.DrawFn, descriptor: Descriptor) -> bytes:
    """Bytes that are nearly a message, or not at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200) | st.sampled_from(NESTED))
    data = bytearray(draw(messages(descriptor, 2)).SerializeToString()[:20_000])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat", "utf-8"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 50))]
            case "insert":
                data[at:at] = draw(st.sampled_from(VARINTS) | st.binary(min_size=1, max_size=8))
            case "repeat":
                data[at:at] = data[at : at + 30] * draw(st.integers(1, 20))
            case "utf-8":
                field = draw(st.integers(1, 12))
                data += bytes([field << 3 | 2, 2]) + draw(st.sampled_from([b"\xff\xfe", b"\xc0\x80", b"a\x80"]))
    return bytes(data)


VARINTS = [b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\xff\xff\xff\xff\x0f", b"\x80" * 9 + b"\x00", b"\xff\xff\xff\x7f"]
"""Lengths and numbers at the limit and beyond it."""


def _nested(field: int, depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        size, length = len(data), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        data = bytes([field << 3 | 2]) + length + bytes([size]) + data
    return data


NESTED = [
    *(_nested(field, depth) for field in range(1, 13) for depth in (99, 3000)),
    *(bytes([field << 3 | 3]) * 5000 for field in (1, 5, 15)),  # groups that never end
]
"""Messages nested deeper than allowed."""
