"""Values: what a serializer made of a channel's value, whole or as a patch on an earlier version of its channel.

The store looks into no value. Patches are the one exception: their instructions are applied for clients that ask for
whole values, and checked when they are stored, so that what was accepted can be read.
"""

from __future__ import annotations

from typing import NamedTuple


class Patch(NamedTuple):
    """A value as instructions that turn an earlier version of the same channel into it. They are in the value's data.

    A task write may be one as well: on a version of the channel that it was written to.
    """

    base_version: str
    """The version of the channel that the instructions copy from, as tagged text."""
    size: int
    """How many bytes the value has once the patch is applied."""
    crc32: int
    """The CRC-32 of these bytes; of a sealed patch, that of its instructions. 0: it isn't known."""
    sealed: bool
    """True if the instructions are encrypted by the client."""
    reach: int = 0
    """How many bytes of the base the instructions need: a base that is shorter is not the one meant. Known when it is
    stored; 0 in what was read, and for a sealed patch."""
    base_crc32: int = 0
    """The base's own CRC-32: one that has another is not the one meant. 0: not compared, and in what was read."""


class Parts(NamedTuple):
    """Bytes that lie apart: in a request, an upload; in what was read, bytes that were left out."""

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
    """Not None: `data` is empty, and the bytes or instructions lie apart."""
    crc32: int = 0
    """The CRC-32 of the bytes of a channel's value that is whole; 0: it isn't known."""


class ChannelValue(NamedTuple):
    """A channel's value at a version. None: the channel is empty at this version."""

    channel: str
    version: str
    value: TypedValue | None


class StoredValue(NamedTuple):
    """A row of a channel's value, as it was stored."""

    position: int
    """The position, among the checkpoints read together, of the one that names its thread and namespace."""
    channel: str
    version: str
    value: TypedValue


class ChannelValueKey(NamedTuple):
    """Names a channel's value."""

    channel: str
    version: str


class KnownValue(NamedTuple):
    """A channel's value that a caller has."""

    channel: str
    version: str
    crc32: int = 0
    """The CRC-32 of the value, or of its patch, 0 where none is known. If it is another one, so is the value."""


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
    """Its type and, for a patch, what belongs to it; without the bytes."""
