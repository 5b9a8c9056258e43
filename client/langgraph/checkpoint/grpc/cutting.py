"""Cutting a value's bytes where its content says so, so that its next version falls into mostly the same pieces.

Whether there is a cut at a place is decided by the bytes just before it: what is inserted or removed elsewhere moves
the cut along, and changes none but the pieces that it lies in.

Looking at every byte would take too long in Python. So the bytes are mapped to two classes, and a short pattern of
classes tells the places to look at, one in some hundred bytes; both are single calls into C. A checksum of the 64 bytes
before such a place decides. Where none says so for long, the place with the least checksum is taken. Constant runs, in
which there is no place to look at, are cut at fixed distances, which makes equal pieces.

Pieces grow with their distance from the beginning, as its root does: a change costs a piece or two and the list of all
pieces, and so both stay small, and a value that grows keeps the pieces that it has. Two places are cut finer, because
they change most often: the first bytes, where serializers write how long a list is, and what comes after the last cut,
where lists grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from zlib import crc32

Met = Callable[[bytes, int], "tuple[int, bytes] | None"]
"""Tells what piece begins at a place: its size and its name."""

SMALLEST_BITS = 11
"""Pieces have 2 KiB on average at the least, but for those at the ends."""
LARGEST_BITS = 17
"""Pieces have 128 KiB on average at the most."""
HEAD_BYTES = 64
"""How long the first piece is."""
TAIL_BITS = 10
"""At the end, pieces have 1 KiB on average at the least."""
TAIL_FINER_BITS = 3
"""At the end, pieces are smaller by so many powers of two."""

_GROWTH = 256
"""Pieces at n bytes from the beginning have about the root of n times this."""
_CLASSES = bytes((value * 0x9E3779B1 >> 13 ^ value >> 1 ^ value >> 4) & 1 for value in range(256))
_PATTERN = bytes((0, 1, 1, 0, 1, 0, 0, 1, 1, 1))
"""Where it begins there may be a cut. Its first seven classes come up every 128 bytes in random ones, all ten every
1024: large pieces need fewer places to look at."""
_FEWEST_CLASSES = 7
_LAST_RESORT = bytes((0, 1))
"""What is looked for where the pattern isn't found at all."""
_SEEN_BYTES = 64
"""How many bytes before a place decide on it; also how far apart the places are at the least."""
_WINDOW_BYTES = 4 * 1024 * 1024
"""How much of a value is mapped at once, at the least."""


def piece_bits(start: int) -> int:
    """Returns the k for which pieces that begin `start` bytes from the beginning have about 2**k bytes."""
    return min(max((start * _GROWTH).bit_length() // 2, SMALLEST_BITS), LARGEST_BITS)


def cut(data: bytes, met: Met = lambda data, start: None) -> Iterator[tuple[memoryview, bytes | None]]:
    """Yields the pieces of a value in order; none is copied.

    Args:
        data: The value.
        met: Tells whether a piece that was met before begins at a place of the value: its size and its name. To compare
            is much faster than to look for cuts, and mostly finds what would have been found.

    Yields:
        A piece, and its name if it was met before.
    """
    view = memoryview(data)
    places = _Places(data)
    if data:
        yield view[:HEAD_BYTES], None
    start = HEAD_BYTES
    while start < len(data):
        bits = piece_bits(start)
        known = met(data, start)
        # Pieces from what was the value's end are too small to be kept elsewhere.
        if known is not None and (1 << (bits - 1)) <= known[0] <= (4 << bits):
            size, name = known
            yield view[start : start + size], name
            start += size
            continue
        end = places.next_cut(start, bits)
        if end == len(data):
            break
        yield view[start:end], None
        start = end
    bits = max(piece_bits(start) - TAIL_FINER_BITS, TAIL_BITS)
    while start < len(data):
        known = met(data, start)
        if known is not None and known[0] <= (4 << bits):
            size, name = known
            yield view[start : start + size], name
            start += size
            continue
        end = places.next_cut(start, bits)
        yield view[start:end], None
        start = end


class _Places:
    """The places of a value where there may be a cut."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._classes = b""
        self._offset = 0
        """Where in the value the classes begin, that of its bytes which are mapped now."""

    def next_cut(self, start: int, bits: int) -> int:
        """Returns where a piece ends that begins at `start` and has about 2**bits bytes."""
        data, shortest, longest = self._data, 1 << (bits - 1), 4 << bits
        if not self._offset <= start <= start + longest <= self._offset + len(self._classes):
            self._offset = start
            self._classes = data[start : start + max(_WINDOW_BYTES, longest)].translate(_CLASSES)
        offset, find = self._offset, self._classes.find
        begin, end = start + shortest - offset, min(start + longest - offset, len(self._classes))
        pattern_bits = min(max(bits - 4, _FEWEST_CLASSES), len(_PATTERN))
        # Half of a piece is skipped, the other half is left to chance.
        mask = (1 << (bits - 1 - pattern_bits)) - 1
        # The value's end is a cut as good as any: nothing need be chosen there for want of a better one.
        least = -1 if end + offset == len(data) else 1 << 32
        cut_at = end
        for pattern in (_PATTERN[:pattern_bits], _LAST_RESORT):
            found = find(pattern, begin, end)
            looked = found >= 0
            while found >= 0:
                checksum = crc32(data[offset + found - _SEEN_BYTES : offset + found])
                if not checksum & mask:
                    return offset + found
                # The last of equal ones: where the same thing comes over and over, large pieces will do.
                if checksum <= least:
                    least, cut_at = checksum, found
                found = find(pattern, found + _SEEN_BYTES, end)
            if looked:
                break
        return offset + cut_at
