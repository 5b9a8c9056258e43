"""Randomly corrupted messages, as no server would send them."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from langgraph.checkpoint.grpc._values.instructions import MAX_VALUE_BYTES

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
    """Returns a message and all messages in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if field.is_repeated else [value]:
                found += parts_of(part)
    return found


def spoil(message: Message, dice: random.Random) -> None:
    """Changes a random part of a message."""
    part = dice.choice(parts_of(message))
    field: Any = dice.choice(list(part.DESCRIPTOR.fields))
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(part, field.name).clear()
    elif field.is_repeated:
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
