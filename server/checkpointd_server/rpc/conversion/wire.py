"""Bytes to messages, at a cost that their number of bytes bounds.

Parsing is done in one go, and takes the longer the more parts a message has: one of 64 MiB that is made of nothing but
empty parts would hold up the server for 12 seconds. So the parts of a large message are counted before it is parsed.
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
"""Up to how many bytes a message is parsed without a look: it takes some 50 ms, whatever they are."""
MAX_FIELDS = 163_840
"""How many fields a message has, those of its parts included. A put of as many values as may be has 130,000."""

FIELDS_AT_ONCE = 32_768
"""How many fields are counted before others get their turn."""

_Schema = dict[int, "_Schema"]
"""The fields of a message that are messages themselves."""


async def parse(request_type: type[RequestT], raw: bytes) -> RequestT:
    """Returns the message that bytes stand for. Raises InvalidArgument."""
    if len(raw) > SMALL_BYTES:
        await _check_fields(raw, _schema(request_type.DESCRIPTOR))
        await asyncio.sleep(0)  # counting, parsing and converting each take a while: others have their turn between
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
    """Returns the schema of a message, and adds it to those that are known: a Struct holds Structs."""
    if descriptor.full_name not in known:
        schema = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            if field.message_type is not None:
                schema[field.number] = _schema_among(field.message_type, known)
    return known[descriptor.full_name]


async def _check_fields(raw: bytes, schema: _Schema) -> None:
    """Checks how many fields a message has. Whether they are well-formed is left to the parser."""
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
                    break  # malformed, as what the next line catches: what came before counts all the same
        except (IndexError, ValueError):
            continue


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """Returns the number that begins at an offset, and the offset behind it."""
    number = 0
    for place in range(10):
        byte = raw[position + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, position + place + 1
    raise ValueError


def encode_varint(value: int) -> bytes:
    """Returns a length as messages have it."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
