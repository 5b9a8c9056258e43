"""Conversion between the stock savers' checkpoints and ours. Values aren't decoded, and no class is instantiated.

The PostgreSQL saver stores a checkpoint as JSON that contains texts, numbers and booleans, and all other values
separately; the SQLite saver stores it as one msgpack map, out of which the bytes of each value are cut.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from zlib import crc32

import msgpack

from checkpointd.v1.values_pb2 import CheckpointTuple, TypedValue
from checkpointd_server.moving.content import MoveError

_PLAIN = ("v", "ts", "versions_seen", "updated_channels")
"""Keys of a checkpoint that its body has unchanged. The others are in `extra`."""
_ELSEWHERE = ("id", "channel_versions", "channel_values")


class Place(NamedTuple):
    """Names a checkpoint in a stock table."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None

    def __str__(self) -> str:
        where = f" of namespace {self.checkpoint_ns!r}" if self.checkpoint_ns else ""
        return f"thread {self.thread_id!r}, checkpoint {self.checkpoint_id!r}{where}"


class StockCheckpoint(NamedTuple):
    """A stock saver's checkpoint, in parts."""

    fields: dict[str, bytes]
    """Everything but its id, versions and values, each as msgpack."""
    versions: dict[str, Any]
    """Its channels' versions."""
    values: dict[str, TypedValue]
    """The values that are stored within it."""


def from_json(text: str, place: Place) -> StockCheckpoint:
    """Parses a checkpoint in JSON. Raises MoveError."""
    found = json.loads(text)
    fields = {name: _packed(value, place) for name, value in found.items() if name not in _ELSEWHERE}
    values = {name: _typed(value, place) for name, value in (found.get("channel_values") or {}).items()}
    return StockCheckpoint(fields, found.get("channel_versions") or {}, values)


def from_serialized(type: str | None, data: bytes, place: Place) -> StockCheckpoint:
    """Parses a checkpoint that was serialized as a whole. Raises MoveError."""
    if type == "json":
        return from_json(data.decode(), place)
    if type != "msgpack":
        raise MoveError(f"{place} is of type {type!r}, which only the saver that wrote it can read")
    fields: dict[str, bytes] = {}
    values: dict[str, TypedValue] = {}
    versions: dict[str, Any] = {}
    try:
        for name, (start, stop) in _entries(data):
            part = data[start:stop]
            if name == "channel_values":
                values = {channel: _whole("msgpack", part[begin:end]) for channel, (begin, end) in _entries(part)}
            elif name == "channel_versions":
                versions = msgpack.unpackb(part)
            elif name != "id":
                fields[name] = part
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise MoveError(f"{place} can't be read: its msgpack is not a checkpoint") from error
    return StockCheckpoint(fields, versions, values)


def _entries(data: bytes) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yields the keys of a msgpack map, and the start and end of their values."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) or 1, strict_map_key=True)
    unpacker.feed(data)
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        start = unpacker.tell()
        unpacker.skip()
        yield name, (start, unpacker.tell())


def build(place: Place, stock: StockCheckpoint, metadata: str) -> CheckpointTuple:
    """Returns a checkpoint in our form, without its values and task writes. Raises MoveError.

    Args:
        place: Its key.
        stock: The checkpoint.
        metadata: Its metadata, as JSON.
    """
    body = {name: stock.fields[name] for name in _PLAIN if name in stock.fields and _is_plain(stock.fields[name])}
    extra = {name: data for name, data in stock.fields.items() if name not in body}
    if extra:
        body["extra"] = msgpack.packb(["msgpack", _map(extra)])
    made = CheckpointTuple(
        thread_id=place.thread_id,
        checkpoint_ns=place.checkpoint_ns,
        checkpoint_id=place.checkpoint_id,
        parent_checkpoint_id=place.parent_checkpoint_id or "",
        body=_map(body),
        channels=list(stock.versions),
        channel_versions=[tag_of(version, place) for version in stock.versions.values()],
    )
    made.metadata.value.type = "msgpack"
    made.metadata.value.data = _packed(json.loads(metadata), place)
    return made


def _map(entries: Mapping[str, bytes]) -> bytes:
    """Returns a msgpack map of encoded values."""
    packer = msgpack.Packer()
    return bytes(packer.pack_map_header(len(entries))) + b"".join(
        msgpack.packb(name) + data for name, data in entries.items()
    )


def _is_plain(data: bytes) -> bool:
    """Returns whether every language can read a value."""
    try:
        msgpack.unpackb(data, strict_map_key=False, ext_hook=_refuse)
    except ValueError:
        return False
    return True


def _refuse(code: int, data: bytes) -> None:
    raise ValueError


def _packed(value: Any, place: Place) -> bytes:
    try:
        return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))
    except (OverflowError, ValueError) as error:
        raise MoveError(f"{place} holds what msgpack has no room for: {error}") from error


def _typed(value: Any, place: Place) -> TypedValue:
    """Returns a value from JSON in the form of LangGraph's serializer."""
    return _whole("null", b"") if value is None else _whole("msgpack", _packed(value, place))


def _whole(type: str, data: bytes) -> TypedValue:
    return TypedValue(type=type, data=data, crc32=crc32(data))


def whole_value(type: str, data: bytes | None) -> TypedValue:
    """Returns a value of a stock table."""
    return _whole(type, data or b"")


def tag_of(version: Any, place: Place) -> str:
    """Returns a channel's version as tagged text. Raises MoveError."""
    if isinstance(version, str):
        return "s" + version
    if isinstance(version, int) and not isinstance(version, bool):
        return f"i{version}"
    if isinstance(version, float):
        return f"f{version!r}"
    raise MoveError(f"{place} has a channel whose version is no text and no number")


def version_of(tag: str) -> str | int | float:
    """Returns the version of a tagged text."""
    kind, text = tag[:1], tag[1:]
    return text if kind == "s" else int(text) if kind == "i" else float(text)


def to_json(checkpoint: CheckpointTuple, place: Place) -> tuple[str, str]:
    """Returns a checkpoint without values, and its metadata, in the PostgreSQL saver's JSON.

    Raises:
        MoveError: It contains something that JSON can't represent.
    """
    try:
        body = msgpack.unpackb(checkpoint.body, ext_hook=_refuse, strict_map_key=False)
        if "extra" in body:
            type, data = body.pop("extra")
            if type != "msgpack":
                raise ValueError
            body |= msgpack.unpackb(data, ext_hook=_refuse, strict_map_key=False)
        versions = zip(checkpoint.channels, map(version_of, checkpoint.channel_versions), strict=True)
        made = {**body, "id": checkpoint.checkpoint_id, "channel_versions": dict(versions), "channel_values": {}}
        metadata = checkpoint.metadata.value
        if metadata.type == "json":
            return _json(made), _json(json.loads(metadata.data))
        if metadata.type != "msgpack":
            raise ValueError
        return _json(made), _json(msgpack.unpackb(metadata.data, ext_hook=_refuse, strict_map_key=False))
    except (ValueError, TypeError, struct.error, msgpack.exceptions.UnpackException) as error:
        raise MoveError(
            f"{place} has metadata, or fields of its own, that the stock saver can't keep: it has JSON for them, "
            "without objects, bytes, NUL, NaN and encryption"
        ) from error


def _json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=True)
    if "\\u0000" in text or json.loads(text) != value:
        raise ValueError
    return text
