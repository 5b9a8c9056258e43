"""Parsing of messages, with a cost bounded by their size.

Parsing can't be interrupted, and its time grows with the number of fields: a message of 64 MiB of empty fields would
block the server for 12 seconds. So the fields of a large message are counted before it is parsed.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from checkpointd_server.domain.errors import InvalidArgument

RequestT = TypeVar("RequestT", bound=Message)

SMALL_BYTES = 256 * 1024
"""Size up to which messages are parsed without counting, in bytes: that takes at most some 50 ms."""
MAX_FIELDS = 163_840
"""Maximum number of fields of a message, including nested ones. The largest possible put has 130,000."""

FIELDS_AT_ONCE = 32_768
"""Number of fields that are counted before yielding to other calls."""

_Schema = dict[int, "_Schema"]
"""The fields of a message type that are messages."""


async def parse(request_type: type[RequestT], raw: bytes) -> RequestT:
    """Parses a message. Raises InvalidArgument."""
    if len(raw) > SMALL_BYTES:
        await _check_fields(raw, _schema(request_type.DESCRIPTOR))
        await asyncio.sleep(0)  # counting, parsing and converting take a while: yield in between
    try:
        message = request_type.FromString(raw)
    except DecodeError:
        raise InvalidArgument("request", f"is not a {request_type.DESCRIPTOR.full_name}") from None
    if len(raw) > SMALL_BYTES:
        await asyncio.sleep(0)
    return message


@cache
def _schema(descriptor: Descriptor) -> _Schema:
    return _schema_among(descriptor, {})


def _schema_among(descriptor: Descriptor, known: dict[str, _Schema]) -> _Schema:
    """Returns the schema of a message, and stores it before it recurses: a Struct contains Structs."""
    if descriptor.full_name not in known:
        schema = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            if field.message_type is not None:
                schema[field.number] = _schema_among(field.message_type, known)
    return known[descriptor.full_name]


async def _check_fields(raw: bytes, schema: _Schema) -> None:
    """Checks the number of a message's fields. The parser checks whether they are well-formed."""
    parts = [(0, len(raw), schema)]
    count = 0
    while parts:
        position, end, schema = parts.pop()
        try:
            while position < end:
                count += 1
                if not count % FIELDS_AT_ONCE:
                    await asyncio.sleep(0)
                    if count >= MAX_FIELDS:
                        problem = f"has {MAX_FIELDS} fields or more, those of its parts included"
                        raise InvalidArgument("request", problem, limit=MAX_FIELDS)
                tag = raw[position]
                position += 1
                if tag > 127:
                    tag, position = _varint(raw, position - 1)
                kind = tag & 7
                if kind == 2:
                    length = raw[position]
                    position += 1
                    if length > 127:
                        length, position = _varint(raw, position - 1)
                    part = schema.get(tag >> 3)
                    if part is not None and length:
                        parts.append((position, min(position + length, end), part))
                    position += length
                elif kind == 0:
                    _, position = _varint(raw, position)
                elif kind == 5:
                    position += 4
                elif kind == 1:
                    position += 8
                elif kind > 4:
                    break  # malformed, as in the next line: the fields before it still count
        except (IndexError, ValueError):
            continue


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """Returns the number at an offset, and the offset after it."""
    number = 0
    for place in range(10):
        byte = raw[position + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, position + place + 1
    raise ValueError


def encode_varint(value: int) -> bytes:
    """Returns a length in protobuf's encoding."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
