"""Patches: a value's bytes as copy and insert instructions on the bytes of an earlier version.

Values mostly grow at their end, or change in a few places. So the beginning and the end that both have in common are
looked for first, by comparing memory. At a difference, what comes a little later in the new bytes is looked for nearby
in the base: that finds back after an edit, or after the header of a list whose count grew by some bytes. What isn't
found so, because much changed or moved, is found by content: places marked by the bytes before them, which are the same
in both versions whatever was inserted elsewhere, are the keys of an index of the base. All of it is `startswith`,
`find` and `translate`, single calls into C.

The format is described in values.proto (Patch); instructions.py applies it.
"""

from __future__ import annotations

from typing import NamedTuple

from langgraph.checkpoint.grpc._transport.operation import varint

MAX_INSTRUCTIONS = 4096
"""The maximum number of instructions in a patch made here."""
_SHORTEST_COPY = 16
"""Shorter pieces are inserted, because a copy instruction has up to 10 bytes."""
_FIRST_COMPARED = 64
_NEARBY = ((8, 1 << 20), (64, 1 << 16), (512, 1 << 16), (4096, 1 << 16), (32_768, 1 << 17))
"""How far behind a difference is looked for common bytes, and how far ahead in the base."""
_NEARBY_TRIES = 256
_PROBE_BYTES = 32
"""The number of bytes to find."""
_CONVINCING_BYTES = 512
"""From how many common bytes on a place is believed: things of one kind have much in common at their beginnings."""
_WORTH_SKIPPING = 8
"""How many times as many equal bytes must follow as were skipped."""
_SAMPLES = 10
_SMALL_BYTES = 2048
"""A change of this few bytes isn't examined further."""

_CLASSES = bytes((value * 0x9E3779B1 >> 13 ^ value >> 1 ^ value >> 4) & 1 for value in range(256))
_PATTERN = bytes((0, 1, 1, 0, 1, 0, 0, 1, 1, 1))
"""Where these classes of bytes follow one another, an index has its places. Its first seven come up every 128 bytes
in random ones, all ten every 1024."""
_FEWEST_CLASSES = 7
_PLACES = 4096
"""The approximate number of places in an index of random bytes."""


_HEADER_BYTES = bytes({0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}.get(first, 1) for first in range(256))
"""How long the header of a msgpack list or map is that begins with this byte."""


class _Match(NamedTuple):
    """Common bytes: where they begin in the base and in the new bytes, and how many there are."""

    base: int
    new: int
    size: int


def diff(base: bytes, new: bytes, most: int | None = None) -> bytes | None:
    """Returns the instructions that make `new` from `base`.

    Args:
        base: The earlier version.
        new: The version to make.
        most: The maximum size of the instructions, in bytes. Default: half of the new bytes.

    Returns:
        The instructions, or None if they would be too large.
    """
    most = len(new) // 2 if most is None else most
    view = memoryview(base)
    if base and new:
        header, new_header = _HEADER_BYTES[base[0]], _HEADER_BYTES[new[0]]
        kept = len(base) - header
        if kept >= _SHORTEST_COPY and new.startswith(view[header:], new_header):
            return _grown(new, new_header, header, kept, most)
    patch = _Writer(new)
    start = _common(view, 0, new, 0, min(len(base), len(new)))
    if start >= _SHORTEST_COPY:
        patch.copy(_Match(0, 0, start))
    left = min(len(base), len(new)) - start
    end = _common_back(view, len(base), new, len(new), left)
    if end < _SHORTEST_COPY:
        end = 0
    if len(new) - end - start > _PROBE_BYTES:
        _fill(patch, _Search(base, view, len(base) - end, new, len(new) - end), start, most)
    if patch.inserted + (len(new) - end - patch.done) > most:
        return None
    if end:
        patch.copy(_Match(len(base) - end, len(new) - end, end))
    patch.finish()
    return patch.instructions(most)


def _grown(new: bytes, new_header: int, header: int, kept: int, most: int) -> bytes | None:
    """Returns the instructions for a list or a map that has grown at its end, as most do: another header, and more.

    Args:
        new: The version to make.
        new_header: The size of its header, in bytes.
        header: The size of the base's header.
        kept: The number of bytes after that, all of which come again.
        most: The maximum size of the instructions, in bytes.
    """
    begin = varint(new_header << 1) + new[:new_header]
    copy = varint(kept << 1 | 1) + varint(header)
    more = new[new_header + kept :]
    instructions = b"".join((begin, copy, varint(len(more) << 1), more) if more else (begin, copy))
    return instructions if len(instructions) <= most else None


class _Writer:
    """A builder of instructions."""

    def __init__(self, new: bytes) -> None:
        self._new = new
        self._parts: list[bytes] = []
        self._last = _Match(0, 0, 0)
        self.done = 0
        """The number of new bytes that the instructions make."""
        self.inserted = 0
        """The number of bytes that they insert."""

    def copy(self, match: _Match) -> None:
        """Copies bytes from the base, and inserts what comes before them."""
        last = self._last
        if match.new == self.done and match.base == last.base + last.size and last.size:
            self._parts.pop()
            match = _Match(last.base, last.new, last.size + match.size)
        else:
            self._insert(match.new)
        self._parts.append(varint(match.size << 1 | 1) + varint(match.base))
        self._last = match
        self.done = match.new + match.size

    def finish(self) -> None:
        """Inserts the rest."""
        self._insert(len(self._new))

    def instructions(self, most: int) -> bytes | None:
        """Returns the instructions, or None if they are too large or too many."""
        if len(self._parts) > MAX_INSTRUCTIONS or sum(map(len, self._parts)) > most:
            return None
        return b"".join(self._parts)

    def _insert(self, end: int) -> None:
        if end > self.done:
            self._parts.append(varint(end - self.done << 1))
            self._parts.append(self._new[self.done : end])
            self.inserted += end - self.done
            self.done = end


class _Search:
    """Finds common bytes of two versions between their common ends."""

    def __init__(self, base: bytes, view: memoryview, base_end: int, new: bytes, new_end: int) -> None:
        self._base = base
        self._view = view
        self._base_end = base_end
        self._new = new
        self.new_end = new_end
        self._tries = _NEARBY_TRIES
        self._index: dict[bytes, int] | None = None
        self._classes = b""
        self._pattern = b""

    def nearby(self, base: int, new: int) -> _Match | None:
        """Returns common bytes a little after two places."""
        for behind, window in _NEARBY:
            at = new + behind
            if at + _PROBE_BYTES > self.new_end or self._tries <= 0:
                return None
            self._tries -= 1
            probe = self._new[at : at + _PROBE_BYTES]
            found = self._base.find(probe, base, min(base + window, self._base_end))
            if found >= 0:
                match = self._extended(found, at, base, new)
                # The skipped bytes may be elsewhere.
                worth = max(_CONVINCING_BYTES, _WORTH_SKIPPING * (match.new - new))
                if match.size >= worth or match.new + match.size == self.new_end:
                    return match
        return None

    def anywhere(self, new: int, most: int) -> _Match | None:
        """Returns common bytes within a distance after a place, wherever they are in the base."""
        if self._index is None:
            self._index = self._indexed() if self._has_common_bytes(new) else {}
        if not self._index:
            return None
        find, pattern, index, data = self._classes.find, self._pattern, self._index, self._new
        end = min(self.new_end, new + most)
        at = find(pattern, new, end)
        while at >= 0:
            found = index.get(data[at : at + _PROBE_BYTES])
            if found is not None:
                match = self._extended(found, at, 0, new)
                if match.size >= 2 * _PROBE_BYTES:
                    return match
            at = find(pattern, at + _PROBE_BYTES, end)
        return None

    def _has_common_bytes(self, new: int) -> bool:
        """Returns whether the base probably has half of the bytes after a place: building an index takes time."""
        step = max((self.new_end - new) // _SAMPLES, _PROBE_BYTES)
        return any(self._new[at : at + _PROBE_BYTES] in self._base for at in range(new, self.new_end, step))

    def _indexed(self) -> dict[bytes, int]:
        """Returns places of the base by the bytes that follow them, without ambiguous ones."""
        base, size = self._base, len(self._base)
        classes = min(max((size // _PLACES).bit_length(), _FEWEST_CLASSES), len(_PATTERN))
        self._pattern = pattern = _PATTERN[:classes]
        self._classes = self._new.translate(_CLASSES)
        found_classes = base.translate(_CLASSES)
        index: dict[bytes, int] = {}
        several: set[bytes] = set()
        at = found_classes.find(pattern)
        while at >= 0:
            key = base[at : at + _PROBE_BYTES]
            if index.setdefault(key, at) != at:
                several.add(key)
            at = found_classes.find(pattern, at + _PROBE_BYTES)
        for key in several:
            del index[key]
        return index

    def _extended(self, base: int, new: int, first_base: int, first_new: int) -> _Match:
        """Returns the common bytes around two places that have some."""
        before = _common_back(self._view, base, self._new, new, min(base - first_base, new - first_new))
        most = min(len(self._base) - base, self.new_end - new)
        after = _common(self._view, base, self._new, new, most)
        return _Match(base - before, new - before, before + after)


def _fill(patch: _Writer, search: _Search, start: int, most: int) -> None:
    """Writes copies of the common bytes between the ends."""
    base = new = start
    while search.new_end - new > _PROBE_BYTES and patch.inserted <= most:
        match = search.nearby(base, new)
        if match is None:
            if search.new_end - new <= _SMALL_BYTES:
                return
            match = search.anywhere(new, most - patch.inserted)
            if match is None:
                return
        patch.copy(match)
        base, new = match.base + match.size, match.new + match.size


def _common(base: memoryview, at: int, new: bytes, new_at: int, most: int) -> int:
    """Returns how many bytes are equal from two places on, up to a maximum."""
    if new.startswith(base[at : at + most], new_at):
        return most
    same, step = 0, _FIRST_COMPARED
    while same + step <= most and new.startswith(base[at + same : at + same + step], new_at + same):
        same += step
        step *= 2
    step = min(step, most - same)
    while step > 1:
        half = step // 2
        if new.startswith(base[at + same : at + same + half], new_at + same):
            same += half
            step -= half
        else:
            step = half
    return same


def _common_back(base: memoryview, at: int, new: bytes, new_at: int, most: int) -> int:
    """Returns how many bytes are equal before two places, up to a maximum."""
    if new.endswith(base[at - most : at], 0, new_at):
        return most
    same, step = 0, _FIRST_COMPARED
    while same + step <= most and new.endswith(base[at - same - step : at - same], 0, new_at - same):
        same += step
        step *= 2
    step = min(step, most - same)
    while step > 1:
        half = step // 2
        if new.endswith(base[at - same - half : at - same], 0, new_at - same):
            same += half
            step -= half
        else:
            step = half
    return same
