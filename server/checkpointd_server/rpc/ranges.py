"""Ranges of large values, assembled for those who didn't ask for patches.

A value of moderate size is made whole, checked by its checksum, and cut. Of a larger one only the range is made: it is
followed from patch to patch down to the whole value that they rest on, of which no more is read than it takes.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from zlib import crc32

from checkpointd_server.domain.checkpoints import Namespace
from checkpointd_server.domain.errors import BrokenPatch, SealedValue
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.patches import NO_VERSION, Assembler, Budget, Segment, resolve_segments
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.values import ChannelValueKey, TaskWriteKey, TypedValue, ValueRange
from checkpointd_server.rpc.executor import BoundedExecutor

WHOLE_BYTES = 16 * 1024 * 1024
"""Up to how many bytes values are made whole."""
READ_BYTES = 4 * 1024 * 1024
"""How much is read from the store at once."""
AT_ONCE = 2
"""How many values are assembled at once, each within the memory that its message and WHOLE_BYTES take."""
MAX_SEGMENTS = 65_536
MAX_SPANS = 64
"""In how many bits a range may be made of what it builds on, and of how many reads. What is beyond is left for the next
call."""
GAP_BYTES = 64 * 1024
"""What is read rather than left out between two ranges."""


class AssembledRange(NamedTuple):
    """A range of a value."""

    data: bytes
    size: int
    """How many bytes the value has."""
    crc32: int
    """The checksum of all of them; 0: it isn't known, for nothing was assembled."""


class _Gone(Exception):
    """What a patch builds on isn't there."""


class RangeReader:
    """Reads ranges of values.

    Args:
        store: Where they are.
        limits: What they are held to.
        executor: Where they are assembled.
    """

    def __init__(self, store: CheckpointStore, limits: Limits, executor: BoundedExecutor) -> None:
        self._store = store
        self._limits = limits
        self._executor = executor
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
        """Returns a range of a value or a task write, whole, maybe shorter than asked for; None: it is not there.

        Raises:
            SealedValue: Only the client can apply its patches.
            BrokenPatch: Its patches don't make what they say.
        """
        reading = _Reading(self._store, namespace, timeout)
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
                    return None  # deleted or replaced meanwhile
                raise BrokenPatch(f"channel {key.channel!r}, version {key.version!r}: its base is missing") from None
        if len(data) == patch.size and crc32(data) != patch.crc32:
            raise BrokenPatch(f"channel {key.channel!r}, version {key.version!r}: the checksum is another one")
        return AssembledRange(data, patch.size, patch.crc32)

    async def _whole(self, reading: _Reading, key: ChannelValueKey, start: int, stop: int) -> bytes | None:
        """Returns a range of a value that is made whole; None: that would take too much."""
        rows: dict[ChannelValueKey, TypedValue] = {}
        at = key
        while at not in rows:
            row = await reading.row(at, WHOLE_BYTES)
            if row is None or (row.patch is not None and row.patch.size > WHOLE_BYTES):
                return None
            rows[at] = row
            if row.patch is None:
                break
            at = ChannelValueKey(key.channel, row.patch.base_version)
        budget = Budget((self._limits.max_chain + 1) * WHOLE_BYTES)
        assembler = Assembler(rows, largest=WHOLE_BYTES, budget=budget)
        data = await self._executor.run(assembler.make, key, rows[key])
        return None if data is None else data[start:stop]

    async def _range(self, reading: _Reading, key: ChannelValueKey, start: int, stop: int) -> bytes:
        """Returns a range of a value, made of ranges of what it builds on."""
        segments: list[Segment] = [(start, stop)]
        for _ in range(self._limits.max_chain + 1):
            row = await reading.row(key, self._limits.max_message_bytes, only_patches=True)
            if row is None:
                return await self._fill(reading, key, segments)
            patch = row.patch
            assert patch is not None
            segments = await self._executor.run(resolve_segments, row.data, segments, MAX_SEGMENTS)
            key = ChannelValueKey(key.channel, patch.base_version)
        raise BrokenPatch(f"channel {key.channel!r}: more patches follow one another than may")

    async def _fill(self, reading: _Reading, key: ChannelValueKey, segments: list[Segment]) -> bytes:
        """Returns what segments hold whose ranges are those of a whole value."""
        spans: dict[int, bytes] = {}
        parts: list[bytes] = []
        places: list[tuple[int, int, int]] = []
        for begin, end in _spans(segments):
            spans[begin] = await reading.read_bytes(key, begin, end)
            places.append((begin, end, begin))
        for segment in segments:
            if isinstance(segment, bytes):
                parts.append(segment)
                continue
            start, stop = segment
            span = next((begin for begin, end, _ in places if begin <= start and stop <= end), None)
            if span is None:
                break  # not read: the rest is for the next call
            parts.append(spans[span][start - span : stop - span])
        return b"".join(parts)


def _spans(segments: list[Segment]) -> list[tuple[int, int]]:
    """Returns what to read for ranges, few and in order; where it would be many, for the first of them."""
    ranges = [segment for segment in segments if not isinstance(segment, bytes)]
    while True:
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            if spans and start - spans[-1][1] <= GAP_BYTES:
                spans[-1] = (spans[-1][0], max(spans[-1][1], stop))
            else:
                spans.append((start, stop))
        if len(spans) <= MAX_SPANS or len(ranges) == 1:
            return spans
        ranges = ranges[: max(len(ranges) // 2, 1)]


class _Reading:
    """What one call reads.

    Args:
        store: Where from.
        namespace: Where the value is.
        timeout: How long it may take in all, in seconds.
    """

    def __init__(self, store: CheckpointStore, namespace: Namespace, timeout: float | None) -> None:
        self._store = store
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._names: dict[ChannelValueKey, TaskWriteKey] = {}

    def name_write(self, key: TaskWriteKey, channel: str) -> ChannelValueKey:
        """Returns a name for a task write among the values of the channel that it was written to."""
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
        """Reads a row; None: it has more bytes, or isn't a patch and is not wanted. Raises SealedValue, _Gone."""
        found = await self.get(key, 0, READ_BYTES)
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
        """Reads a range of stored bytes, all of it. Raises _Gone."""
        parts: list[bytes] = []
        while start < stop:
            found = await self.get(key, start, min(stop - start, READ_BYTES))
            if found is None or not found.data:
                raise _Gone
            parts.append(found.data)
            start += len(found.data)
        return b"".join(parts)
