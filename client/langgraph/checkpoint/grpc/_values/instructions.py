"""Instructions of patches: read, applied, and put together without the bytes that they are made on.

The format is described in values.proto (Patch).
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from langgraph.checkpoint.grpc._transport.operation import varint
from langgraph.checkpoint.grpc.errors import CorruptValueError

MAX_VALUE_BYTES = 1024 * 1024 * 1024
"""The maximum size of a value from a server, in bytes."""
_MOST_COMPOSED = 2048
"""The most instructions that are put together into one patch, and that come of them: an event loop waits for it."""


def apply(base: bytes, instructions: bytes, size: int, crc32: int) -> bytes:
    """Applies instructions to a base. Raises CorruptValueError unless the result matches the patch."""
    view, source = memoryview(base), memoryview(instructions)
    parts: list[memoryview] = []
    made = at = 0
    try:
        while at < len(instructions):
            number, at = _read_number(instructions, at)
            length = number >> 1
            made += length
            if made > size:
                break
            if number & 1:
                offset, at = _read_number(instructions, at)
                part = view[offset : offset + length]
            else:
                part = source[at : at + length]
                at += length
            if len(part) != length:
                raise CorruptValueError("a patch copies or inserts bytes that are not there")
            parts.append(part)
    except IndexError:
        raise CorruptValueError("a patch is cut off") from None
    if made != size:
        raise CorruptValueError(f"a patch doesn't make the {size} bytes that were stored")
    new = b"".join(parts)
    if zlib.crc32(new) != crc32:
        raise CorruptValueError("a patched value isn't what was stored: its checksum differs")
    return new


def compose(patches: Iterable[bytes], most: int) -> bytes | None:
    """Composes consecutive patches into one, without needing the bytes of the base.

    Args:
        patches: Their instructions, each on what the one before makes.
        most: The maximum size of the instructions, in bytes.

    Returns:
        The instructions, or None if they would be too large or would take long.

    Raises:
        CorruptValueError: A patch is cut off, or copies what the one before doesn't make.
    """
    try:
        return _compose([_pieces(instructions) for instructions in patches], most)
    except IndexError:
        raise CorruptValueError("a patch is cut off, or copies bytes that are not there") from None


def _compose(chain: list[list[_Piece]], most: int) -> bytes | None:
    if sum(map(len, chain)) > _MOST_COMPOSED:
        return None
    # Neighbours first, and those again: one after the other would go through what has come together again and again.
    while len(chain) > 1:
        last = chain[-1:] if len(chain) % 2 else []
        chain = [_composed(first, then) for first, then in zip(chain[::2], chain[1::2], strict=False)] + last
        if sum(map(len, chain)) > _MOST_COMPOSED:
            return None
    parts: list[bytes] = []
    for piece in chain[0] if chain else ():
        if piece.inserted is None:
            parts.append(varint(piece.size << 1 | 1) + varint(piece.base))
        else:
            parts.append(varint(piece.size << 1))
            parts.append(piece.inserted)
    return b"".join(parts) if sum(map(len, parts)) <= most else None


class _Piece(NamedTuple):
    """An instruction: a range of the base, or bytes to insert."""

    size: int
    base: int
    inserted: bytes | None

    def cut(self, start: int, end: int) -> _Piece:
        """Returns the part of it between two offsets."""
        if self.inserted is None:
            return _Piece(end - start, self.base + start, None)
        return _Piece(end - start, 0, self.inserted[start:end])


def _pieces(instructions: bytes) -> list[_Piece]:
    pieces: list[_Piece] = []
    at = 0
    while at < len(instructions):
        number, at = _read_number(instructions, at)
        size = number >> 1
        if number & 1:
            base, at = _read_number(instructions, at)
            pieces.append(_Piece(size, base, None))
        else:
            pieces.append(_Piece(size, 0, instructions[at : at + size]))
            at += size
    if at > len(instructions):
        raise IndexError
    return pieces


def _composed(first: list[_Piece], then: list[_Piece]) -> list[_Piece]:
    """Returns the pieces that make of the first's base what `then` makes of what the first make, or too many to go on.

    Raises IndexError if they don't make it.
    """
    starts = [0]
    for piece in first:
        starts.append(starts[-1] + piece.size)
    made: list[_Piece] = []
    for piece in then:
        if len(made) > _MOST_COMPOSED:
            break
        if piece.inserted is not None:
            _append(made, piece)
            continue
        start, end = piece.base, piece.base + piece.size
        number = bisect_right(starts, start) - 1
        while start < end:
            cut = min(end, starts[number + 1])
            _append(made, first[number].cut(start - starts[number], cut - starts[number]))
            start = cut
            number += 1
    return made


def _append(pieces: list[_Piece], piece: _Piece) -> None:
    """Appends a piece, merging it with the last one if they are adjacent."""
    if not piece.size:
        return
    last = pieces[-1] if pieces else None
    if last is not None and last.inserted is not None and piece.inserted is not None:
        pieces[-1] = _Piece(last.size + piece.size, 0, last.inserted + piece.inserted)
    elif last is not None and last.inserted is piece.inserted and last.base + last.size == piece.base:
        pieces[-1] = _Piece(last.size + piece.size, last.base, None)
    else:
        pieces.append(piece)


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number, and where what follows it begins. Raises IndexError, CorruptValueError."""
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value, shift = byte & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 56:
            raise CorruptValueError("a patch holds a number that is too large")
