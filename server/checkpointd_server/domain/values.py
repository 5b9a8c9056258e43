"""Serialized values, whole or as patches on earlier versions of their channel.

The store never interprets values, except patches: their instructions are applied for clients that want whole values,
and checked when they are stored, so everything accepted can be read.
"""

from __future__ import annotations

from typing import NamedTuple


class Patch(NamedTuple):
    """A value as instructions that turn an earlier version of the same channel into it. They are in the value's data.

    A task write may be a patch, too, on a version of its channel.
    """

    base_version: str
    """The version of the channel that the instructions copy from, as tagged text."""
    size: int
    """The size of the value with the patch applied, in bytes."""
    crc32: int
    """The CRC-32 of the value; for a sealed patch, of its instructions. 0: unknown."""
    sealed: bool
    """True if the instructions are encrypted by the client."""
    reach: int = 0
    """The minimum size of the base: a shorter one is the wrong base. Set when it is stored; 0 when read, and for sealed
    patches."""
    base_crc32: int = 0
    """The base's CRC-32: a base with another one is the wrong base. 0: not compared, and when read."""


class Parts(NamedTuple):
    """Separate bytes: an upload in a request, or left-out bytes in a read."""

    upload_id: bytes
    """The upload, 16 bytes; empty in what was read."""
    size: int
    """How many bytes there are."""


class TypedValue(NamedTuple):
    """A serialized value: the serializer's tag and the bytes, or the instructions of a patch."""

    type: str
    data: bytes
    patch: Patch | None = None
    """Not None: `data` holds instructions."""
    parts: Parts | None = None
    """Not None: `data` is empty, and the bytes or instructions are separate."""
    crc32: int = 0
    """The CRC-32 of a channel's whole value. 0: unknown."""


class ChannelValue(NamedTuple):
    """A channel's value at a version. None: the channel is empty at this version."""

    channel: str
    version: str
    value: TypedValue | None


class StoredValue(NamedTuple):
    """A row of a channel's value, as it was stored."""

    position: int
    """The index of a checkpoint in the same answer that has its thread and namespace."""
    channel: str
    version: str
    value: TypedValue


class ChannelValueKey(NamedTuple):
    """Names a channel's value."""

    channel: str
    version: str


class KnownValue(NamedTuple):
    """A channel's value that the caller has."""

    channel: str
    version: str
    crc32: int = 0
    """The CRC-32 of the value, or of its patch. 0: unknown. Values with different checksums differ."""


class TaskWriteKey(NamedTuple):
    """Names a task write within its namespace."""

    checkpoint_id: str
    task_id: str
    idx: int


class ValueRange(NamedTuple):
    """A range of a stored value's bytes, or of a patch's instructions."""

    data: bytes
    size: int
    """How many bytes there are in all."""
    channel: str
    """The channel that has it, or that was written to."""
    value: TypedValue
    """Its type and patch attributes, without the bytes."""
