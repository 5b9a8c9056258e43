"""Cutting a value's bytes where its content says so, so that its next version falls into mostly the same pieces.

Whether there is a cut at a place is decided by the bytes just before it: what is inserted or removed elsewhere moves
the cut along, and changes none but the pieces that it lies in.

Looking at every byte would take too long in Python. So the bytes are mapped to two classes, and a short pattern of
classes tells the places to look at, one in some hundred bytes; both are single calls into C. A checksum of the 64 bytes
before such a place decides. Where none says so for long, the place with the least checksum is taken. Constant runs, in
which there is no place to look at, are cut at fixed distances, which makes equal pieces.

The size of pieces grows with the root of the value's: a change costs a piece or two and the list of all pieces, and so
both stay small.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

SMALLEST_BITS = 11
"""Pieces have 2 KiB on average at the least."""
LARGEST_BITS = 17
"""Pieces have 128 KiB on average at the most."""

_NAME_BYTES = 32
_CLASSES = bytes((value * 0x9E3779B1 >> 13 ^ value >> 1 ^ value >> 4) & 1 for value in range(256))
_PATTERN_BITS = 7
_PATTERNS = (bytes((0, 1, 1, 0, 1, 0, 0)), bytes((0, 1)))
"""The first comes up every 128 bytes in random ones. The second is looked for where the first isn't found at all."""
_SEEN_BYTES = 64
"""How many bytes before a place decide on it; also how far apart the places are at the least."""
_WINDOW_BYTES = 4 * 1024 * 1024
"""How much of a value is mapped at once, at the least."""


def piece_bits(size: int) -> int:
    """Returns the number of bits k for which pieces of a value of `size` bytes have about 2**k bytes.

    A change stores a piece, and size / piece names again: the sum is least where the piece is the root of size * name.
    """
    root = (size * _NAME_BYTES).bit_length() // 2
    return min(max(root, SMALLEST_BITS), LARGEST_BITS)


def cut(data: bytes) -> Iterator[memoryview]:
    """Yields the pieces of a value in order; none is copied."""
    bits = piece_bits(len(data))
    shortest, longest = 1 << (bits - 2), 4 << bits
    # What was skipped after the last cut counts as well.
    divisor = 3 << (bits - _PATTERN_BITS - 2)
    view = memoryview(data)
    start = offset = 0
    classes = b""
    while start < len(data):
        if start + longest > offset + len(classes):
            offset = start
            classes = data[offset : offset + max(_WINDOW_BYTES, longest)].translate(_CLASSES)
        begin = start - offset
        end = _next_cut(data, offset, classes, begin + shortest, min(begin + longest, len(classes)), divisor)
        yield view[start : offset + end]
        start = offset + end


def _next_cut(data: bytes, offset: int, classes: bytes, begin: int, end: int, divisor: int) -> int:
    """Returns where the next cut is, between `begin` and `end`.

    Args:
        data: The value.
        offset: Where in it `classes` begins, which the other places are counted from.
        classes: The classes of its bytes.
        begin: The first place to look at.
        end: Where the cut is if there is no place to look at.
        divisor: One place in so many is a cut.
    """
    find, least, cut_at = classes.find, 1 << 32, end
    if end == len(classes) and offset + end == len(data):
        # The value's end is a cut as good as any: nothing need be chosen for want of a better one.
        least = -1
    for pattern in _PATTERNS:
        found = find(pattern, begin, end)
        looked = found >= 0
        while found >= 0:
            place = found + len(pattern)
            checksum = crc32(data[offset + place - _SEEN_BYTES : offset + place])
            if checksum % divisor == 0:
                return place
            # The last of equal ones: where the same thing comes over and over, large pieces are as good as small ones.
            if checksum <= least:
                least, cut_at = checksum, place
            found = find(pattern, found + _SEEN_BYTES, end)
        if looked:
            break
    return cut_at
