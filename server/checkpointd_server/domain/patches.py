"""Patches: instructions that make a value from an earlier one; checking, applying and following chains of them.

The instructions are a sequence of operations (see Patch in values.proto). Each begins with an unsigned LEB128 number n:
its lowest bit is the operation, n >> 1 is a length. 0 inserts the bytes that follow; 1 copies from the base, from an
offset that follows as another LEB128 number.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from zlib import crc32

from checkpointd_server.domain.errors import BrokenPatch
from checkpointd_server.domain.values import ChannelValueKey, Parts, TypedValue

NO_VERSION = ""
"""The version of a task write, which isn't a version of its channel. Channel versions aren't empty."""
_MAX_NUMBER_BYTES = 7
"""Maximum length of a number: 49 bits, more than the size of any value."""


class PatchForm(NamedTuple):
    """Properties of a patch's instructions, known without the base."""

    operations: int
    """How many there are."""
    reach: int
    """How many bytes the base must have."""


def read_operations(instructions: bytes) -> Iterator[tuple[bool, int, int]]:
    """Yields each operation: whether it copies, its length, and its offset.

    The offset is in the instructions for an insert, and in the base for a copy. Raises BrokenPatch.
    """
    position, end = 0, len(instructions)
    while position < end:
        number = instructions[position]
        position += 1
        if number > 127:
            number, position = _read_long_number(instructions, position - 1)
        length = number >> 1
        if not length:
            raise BrokenPatch("an operation makes no bytes")
        if number & 1:
            if position == end:
                raise BrokenPatch("the instructions end within an operation")
            offset = instructions[position]
            position += 1
            if offset > 127:
                offset, position = _read_long_number(instructions, position - 1)
            yield True, length, offset
        else:
            if length > end - position:
                raise BrokenPatch("the instructions end within an operation")
            yield False, length, position
            position += length


def _read_long_number(instructions: bytes, start: int) -> tuple[int, int]:
    """Returns the number at an offset, and the offset after it."""
    number = 0
    for place, byte in enumerate(instructions[start : start + _MAX_NUMBER_BYTES]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, start + place + 1
    raise BrokenPatch("a number is too large, or the instructions end within it")


def check_instructions(instructions: bytes, size: int, *, max_operations: int) -> PatchForm:
    """Checks instructions without the base.

    Args:
        instructions: The instructions.
        size: The size of the value that they make, in bytes.
        max_operations: The most operations.

    Returns:
        How many operations there are, and how far into the base they reach.

    Raises:
        BrokenPatch: They can't be read, are too many, or make a value of another size.
    """
    operations = made = reach = 0
    for copies, length, offset in read_operations(instructions):
        operations += 1
        if operations > max_operations:
            raise BrokenPatch(f"there are more than {max_operations} operations")
        made += length
        if copies and offset + length > reach:
            reach = offset + length
    if made != size:
        raise BrokenPatch(f"the operations make {made} bytes, the patch says {size}")
    return PatchForm(operations, reach)


def apply_patch(base: bytes, instructions: bytes, *, size: int, checksum: int) -> bytes:
    """Returns what instructions make of a base.

    Args:
        base: The value that the patch builds on.
        instructions: The instructions.
        size: The size of the value that they make, in bytes.
        checksum: Its CRC-32.

    Raises:
        BrokenPatch: They can't be read or applied, or the value isn't the one announced.
    """
    source, literals, room, limit = memoryview(base), memoryview(instructions), size, len(base)
    parts: list[memoryview] = []
    for copies, length, offset in read_operations(instructions):
        room -= length
        if room < 0:
            raise BrokenPatch(f"the operations make more than the {size} bytes that the patch says")
        if copies:
            if offset + length > limit:
                raise BrokenPatch(f"an operation copies up to byte {offset + length} of a base of {limit} bytes")
            parts.append(source[offset : offset + length])
        else:
            parts.append(literals[offset : offset + length])
    if room:
        raise BrokenPatch(f"the operations make {size - room} bytes, the patch says {size}")
    value = b"".join(parts)
    if crc32(value) != checksum:
        raise BrokenPatch("the value's checksum is not the one that the patch says")
    return value


Segment = bytes | tuple[int, int]
"""A segment of a value: its bytes, or a range of another value (from, to)."""


def resolve_segments(instructions: bytes, segments: list[Segment], most: int) -> list[Segment]:
    """Returns the segments of ranges of a patched value: bytes, and ranges of the base.

    Args:
        instructions: The patch's.
        segments: Bits of a value, of which the ranges are those of the patched value.
        most: The maximum number of segments. The rest is left out, so the result is shorter.

    Raises:
        BrokenPatch: The instructions are invalid, or make fewer bytes than requested.
    """
    starts: list[int] = []
    operations: list[tuple[bool, int, int]] = []
    made = 0
    for operation in read_operations(instructions):
        starts.append(made)
        operations.append(operation)
        made += operation[1]
    resolved: list[Segment] = []
    for segment in segments:
        if len(resolved) >= most:
            break
        if isinstance(segment, bytes):
            resolved.append(segment)
            continue
        start, stop = segment
        if stop > made:
            raise BrokenPatch(f"the operations make {made} bytes, which end before byte {stop}")
        place = bisect_right(starts, start) - 1
        while start < stop and len(resolved) < most:
            copies, length, offset = operations[place]
            skipped = start - starts[place]
            taken = min(length - skipped, stop - start)
            begin = offset + skipped
            resolved.append((begin, begin + taken) if copies else instructions[begin : begin + taken])
            start += taken
            place += 1
    return resolved


class Budget:
    """A budget of bytes.

    Args:
        size: How many at first.
    """

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Takes bytes, and returns whether there were enough."""
        if size > self._left:
            return False
        self._left -= size
        return True


class Assembler:
    """Assembles whole values from stored rows, for clients that don't accept patches.

    Large values are left out (`parts`, with their size), and so are those that can't be assembled: if their chain has a
    sealed patch, bytes that were left out, or a broken patch. A client that requests such a value alone gets the
    reason. Assembled values are kept for those that build on them.

    Args:
        rows: The rows of one namespace.
        largest: The maximum size of a value, and of its intermediate values, in bytes.
        budget: The total size of all values of an answer, including intermediate ones.
    """

    def __init__(self, rows: Mapping[ChannelValueKey, TypedValue], *, largest: int, budget: Budget) -> None:
        self._rows = rows
        self._largest = largest
        self._budget = budget
        self._made: dict[ChannelValueKey, bytes] = {}

    def value(self, key: ChannelValueKey) -> TypedValue | None:
        """Returns a channel's value at a version, whole or left out. None: the channel is empty."""
        row = self._rows.get(key)
        if row is None or row.patch is None:
            return row
        return self._made_or_left_out(key, row)

    def write(self, channel: str, row: TypedValue) -> TypedValue:
        """Returns what a task has written to a channel, whole or left out."""
        if row.patch is None:
            return row
        key = ChannelValueKey(channel, NO_VERSION)
        # Each write is a value of its own.
        self._made.pop(key, None)
        return self._made_or_left_out(key, row)

    def _made_or_left_out(self, key: ChannelValueKey, row: TypedValue) -> TypedValue:
        try:
            made = self.make(key, row)
        except BrokenPatch:
            made = None
        return TypedValue(row.type, made) if made is not None else left_out(row)

    def make(self, key: ChannelValueKey, row: TypedValue) -> bytes | None:
        """Returns the bytes of a patched value. None: too large, or can't be assembled.

        Raises:
            BrokenPatch: The rows don't produce the stated value.
        """
        chain: list[tuple[ChannelValueKey, TypedValue]] = []
        while (made := self._made.get(key)) is None:
            if row.parts is not None:
                return None
            patch = row.patch
            if patch is None:
                made = row.data
                break
            if patch.sealed or patch.size > self._largest:
                return None
            if len(chain) > len(self._rows):
                raise BrokenPatch(f"channel {key.channel!r}: patches go round in a circle")
            chain.append((key, row))
            key = ChannelValueKey(key.channel, patch.base_version)
            base = self._rows.get(key)
            if base is None:
                raise BrokenPatch(f"channel {key.channel!r}: the base of a patch is missing, version {key.version!r}")
            row = base
        for step, patched in reversed(chain):
            patch = patched.patch
            assert patch is not None
            if not self._budget.take(patch.size):
                return None
            try:
                made = apply_patch(made, patched.data, size=patch.size, checksum=patch.crc32)
            except BrokenPatch as error:
                raise BrokenPatch(f"channel {step.channel!r}, version {step.version!r}: {error}") from None
            self._made[step] = made
        return made


def left_out(row: TypedValue) -> TypedValue:
    """Returns a left-out row for clients that want whole values: its type and size."""
    if row.patch is not None:
        size = row.patch.size
    elif row.parts is not None:
        size = row.parts.size
    else:
        size = len(row.data)
    return TypedValue(row.type, b"", None, Parts(b"", size))
