"""Metadata and filters as google.protobuf.Struct, for generic tools that read and write JSON but not msgpack."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgpack
from google.protobuf.struct_pb2 import Struct, Value

from checkpointd.v1 import values_pb2 as values_pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.values import TypedValue
from checkpointd_server.rpc.conversion.metadata_index import project_metadata

MAX_DEPTH = 24
"""Maximum nesting of entries. Each level takes three of a message's levels, and parsers accept a hundred."""

_LARGEST_INTEGER = 2**53
"""Up to this, a float without a fraction is taken for an integer."""


def pack_struct(struct: Struct) -> bytes:
    """Returns a Struct as a msgpack map."""
    packed: bytes = msgpack.packb(_plain(struct))
    return packed


def value_of_struct(struct: Struct) -> TypedValue:
    """Returns a Struct as a value of type "json". Raises InvalidArgument."""
    try:
        text = json.dumps(_plain(struct), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise InvalidArgument("metadata.struct", "holds a number that JSON has not, infinity or NaN") from None
    return TypedValue("json", text.encode())


def _plain(struct: Struct) -> dict[str, Any]:
    # The parser has limited the depth.
    return {name: _plain_value(value) for name, value in struct.fields.items()}


def _plain_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain(value.struct_value)
        case "list_value":
            return [_plain_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _LARGEST_INTEGER else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def write_struct(metadata: TypedValue, message: values_pb.Metadata, limits: Limits) -> None:
    """Fills in metadata as JSON, as filters see it; leaves it unset if filters can't see it."""
    bounded = replace(limits, max_filter_depth=min(limits.max_filter_depth, MAX_DEPTH))
    try:
        projected = project_metadata(metadata, b"", bounded).json
    except InvalidArgument:
        return
    # Unset and empty differ.
    message.struct.SetInParent()
    message.struct.update(json.loads(projected))
