"""Ranges of large values, assembled for clients that don't accept patches.

A value of moderate size is assembled, checked against its checksum, and cut. Of a larger one only the range is
assembled: it is traced through the patches down to the whole value, of which only the needed bytes are read.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from checkpointd_server.domain.checkpoints import Namespace
from checkpointd_server.domain.errors import BrokenPatch, SealedValue
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.patches import NO_VERSION, Assembler, Budget, Segment, resolve_segments
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.values import ChannelValueKey, TaskWriteKey, TypedValue, ValueRange
from checkpointd_server.rpc.calls.executor import BoundedExecutor

AT_ONCE = 2
"""Number of values assembled at a time, each within the memory of its message and `whole_bytes`."""


@dataclass(frozen=True, kw_only=True)
class RangeOptions:
    """Limits of ranges of values. Sizes are in bytes."""

    whole_bytes: int = 16 * 1024 * 1024
    """Maximum size of values that are assembled as a whole."""
    read_bytes: int = 4 * 1024 * 1024
    """Size of each read from the store."""
    gap_bytes: int = 64 * 1024
    """Maximum gap between two ranges that are read as one."""
    max_segments: int = 65_536
    """Maximum number of segments of a range. The rest is left for the next call."""
    max_spans: int = 64
    """Maximum number of reads for a range, likewise."""


class AssembledRange(NamedTuple):
    """A range of a value."""

    data: bytes
    size: int
    """The size of the value, in bytes."""
    crc32: int
    """The checksum of all of them; 0: it isn't known, for nothing was assembled."""


class _Gone(Exception):
    """The base of a patch is missing."""


class RangeReader:
    """Reads ranges of values.

    Args:
        store: The store.
        limits: The limits of answers.
        executor: Runs the assembly.
        options: The limits of assembly.
    """

    def __init__(
        self, store: CheckpointStore, limits: Limits, executor: BoundedExecutor, options: RangeOptions
    ) -> None:
        self._store = store
        self._limits = limits
        self._executor = executor
        self._options = options
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def read(
        self,
        namespace: Namespace,
        key: ChannelValueKey | TaskWriteKey,
        *,
        offset: int,
        max_bytes: int,
        timeout: float | None,
    ) -> AssembledRange | None:
        """Returns a range of an assembled value or task write, perhaps shorter than requested. None: not found.

        Raises:
            SealedValue: Only the client can apply its patches.
            BrokenPatch: Its patches don't produce the stated value.
        """
        reading = _Reading(self._store, namespace, timeout, self._options.read_bytes)
        first = await reading.get(key, offset, max_bytes)
        if first is None:
            return None
        if isinstance(key, TaskWriteKey):
            key = reading.name_write(key, first.channel)
        patch = first.value.patch
        if patch is None:
            return AssembledRange(first.data, first.size, 0)
        stop = min(offset + max_bytes, patch.size)
        if offset >= stop:
            return AssembledRange(b"", patch.size, patch.crc32)
        async with self._turns:
            try:
                data = await self._whole(reading, key, offset, stop)
                if data is None:
                    data = await self._range(reading, key, offset, stop)
            except _Gone:
                again = await reading.get(key, offset, 1)
                if again is None or again.value != first.value:
                    return None  # deleted or replaced in the meantime
                raise BrokenPatch(f"channel {key.channel!r}, version {key.version!r}: its base is missing") from None
        if len(data) == patch.size and crc32(data) != patch.crc32:
            raise BrokenPatch(f"channel {key.channel!r}, version {key.version!r}: the checksum differs")
        return AssembledRange(data, patch.size, patch.crc32)

    async def _whole(self, reading: _Reading, key: ChannelValueKey, start: int, stop: int) -> bytes | None:
        """Returns a range of a value after assembling all of it. None: it is too large."""
        rows: dict[ChannelValueKey, TypedValue] = {}
        largest = self._options.whole_bytes
        at = key
        while at not in rows:
            row = await reading.row(at, largest)
            if row is None or (row.patch is not None and row.patch.size > largest):
                return None
            rows[at] = row
            if row.patch is None:
                break
            at = ChannelValueKey(key.channel, row.patch.base_version)
        budget = Budget((self._limits.max_chain + 1) * largest)
        assembler = Assembler(rows, largest=largest, budget=budget)
        data = await self._executor.run(assembler.make, key, rows[key])
        return None if data is None else data[start:stop]

    async def _range(self, reading: _Reading, key: ChannelValueKey, start: int, stop: int) -> bytes:
        """Returns a range of a value, assembled from ranges of its bases."""
        segments: list[Segment] = [(start, stop)]
        for _ in range(self._limits.max_chain + 1):
            row = await reading.row(key, self._limits.max_message_bytes, only_patches=True)
            if row is None:
                return await self._fill(reading, key, segments)
            patch = row.patch
            assert patch is not None
            segments = await self._executor.run(resolve_segments, row.data, segments, self._options.max_segments)
            key = ChannelValueKey(key.channel, patch.base_version)
        raise BrokenPatch(f"channel {key.channel!r}: its chain of patches is too long")

    async def _fill(self, reading: _Reading, key: ChannelValueKey, segments: list[Segment]) -> bytes:
        """Returns the bytes of segments whose ranges are those of a whole value."""
        spans: dict[int, bytes] = {}
        parts: list[bytes] = []
        places: list[tuple[int, int, int]] = []
        for begin, end in _spans(segments, self._options):
            spans[begin] = await reading.read_bytes(key, begin, end)
            places.append((begin, end, begin))
        for segment in segments:
            if isinstance(segment, bytes):
                parts.append(segment)
                continue
            start, stop = segment
            span = next((begin for begin, end, _ in places if begin <= start and stop <= end), None)
            if span is None:
                break  # not read: left for the next call
            parts.append(spans[span][start - span : stop - span])
        return b"".join(parts)


def _spans(segments: list[Segment], options: RangeOptions) -> list[tuple[int, int]]:
    """Returns few reads that cover the ranges, in order; if they would be many, those for the first ranges."""
    ranges = [segment for segment in segments if not isinstance(segment, bytes)]
    while True:
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            if spans and start - spans[-1][1] <= options.gap_bytes:
                spans[-1] = (spans[-1][0], max(spans[-1][1], stop))
            else:
                spans.append((start, stop))
        if len(spans) <= options.max_spans or len(ranges) == 1:
            return spans
        ranges = ranges[: max(len(ranges) // 2, 1)]


class _Reading:
    """The reads of one call.

    Args:
        store: Where from.
        namespace: Where the value is.
        timeout: How long it may take in all, in seconds.
        read_bytes: The size of each read, in bytes.
    """

    def __init__(self, store: CheckpointStore, namespace: Namespace, timeout: float | None, read_bytes: int) -> None:
        self._store = store
        self._namespace = namespace
        self._read_bytes = read_bytes
        self._loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._names: dict[ChannelValueKey, TaskWriteKey] = {}

    def name_write(self, key: TaskWriteKey, channel: str) -> ChannelValueKey:
        """Returns a version that stands for a task write among its channel's values."""
        name = ChannelValueKey(channel, NO_VERSION)
        self._names[name] = key
        return name

    async def get(self, key: ChannelValueKey | TaskWriteKey, offset: int, max_bytes: int) -> ValueRange | None:
        """Reads a range of stored bytes."""
        if isinstance(key, ChannelValueKey):
            key = self._names.get(key, key)
        timeout = None if self._deadline is None else max(self._deadline - self._loop.time(), 0)
        return await self._store.get_value(self._namespace, key, offset=offset, max_bytes=max_bytes, timeout=timeout)

    async def row(self, key: ChannelValueKey, most: int, *, only_patches: bool = False) -> TypedValue | None:
        """Reads a row. None: it is too large, or isn't a patch and not wanted. Raises SealedValue, _Gone."""
        found = await self.get(key, 0, self._read_bytes)
        if found is None:
            raise _Gone
        patch = found.value.patch
        if patch is not None and patch.sealed:
            raise SealedValue
        if (patch is None and only_patches) or found.size > most:
            return None
        data = found.data
        if len(data) < found.size:
            data += await self.read_bytes(key, len(data), found.size)
        return TypedValue(found.value.type, data, patch)

    async def read_bytes(self, key: ChannelValueKey, start: int, stop: int) -> bytes:
        """Reads an entire range of stored bytes. Raises _Gone."""
        parts: list[bytes] = []
        while start < stop:
            found = await self.get(key, start, min(stop - start, self._read_bytes))
            if found is None or not found.data:
                raise _Gone
            parts.append(found.data)
            start += len(found.data)
        return b"".join(parts)
