"""Whole values for clients that don't accept patches, assembled from rows within the limits of an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from checkpointd_server.domain.checkpoints import StoredCheckpoint, TaskWrite
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.patches import Assembler, Budget, left_out
from checkpointd_server.domain.values import ChannelValue, ChannelValueKey, StoredValue, TypedValue
from checkpointd_server.rpc.conversion.checkpoints import keys_of

MADE_FOR_INLINE = 16
"""Maximum size of intermediate values, as a multiple of an answer's limit."""
QUICK_PATCHES = 64
QUICK_BYTES = 64 * 1024
"""Up to this many patches, with this many bytes of instructions, are applied faster than a thread starts."""


class WholeValues:
    """Assembles the values and task writes of checkpoints that were read together.

    Values beyond `max_inline_bytes` for one checkpoint are left out.

    Args:
        checkpoints: The checkpoints.
        rows: The rows of their values.
        limits: The limits of answers.
    """

    def __init__(self, checkpoints: Sequence[StoredCheckpoint], rows: Sequence[StoredValue], limits: Limits) -> None:
        self._largest = limits.max_inline_bytes
        by_namespace: dict[tuple[str, str], dict[ChannelValueKey, TypedValue]] = defaultdict(dict)
        patches = size = 0
        for position, channel, version, value in rows:
            stored = checkpoints[position]
            by_namespace[stored.thread_id, stored.checkpoint_ns][ChannelValueKey(channel, version)] = value
            if value.patch is not None:
                patches += 1
                size += len(value.data)
        for stored in checkpoints:
            for write in stored.pending_writes:
                if write.value.patch is not None:
                    patches += 1
                    size += len(write.value.data)
        self.takes_long = patches > QUICK_PATCHES or size > QUICK_BYTES
        """True if it should run in a thread."""
        budget = Budget(MADE_FOR_INLINE * self._largest)
        self._assemblers = {
            namespace: Assembler(values, largest=self._largest, budget=budget)
            for namespace, values in by_namespace.items()
        }
        self._without_rows = Assembler({}, largest=self._largest, budget=budget)

    def of(self, stored: StoredCheckpoint) -> tuple[list[ChannelValue], list[TaskWrite]]:
        """Returns the values of a checkpoint's channels that aren't empty, and its task writes."""
        assembler = self._assemblers.get((stored.thread_id, stored.checkpoint_ns), self._without_rows)
        found: list[ChannelValue] = []
        room = self._largest
        for key in keys_of(stored):
            value = assembler.value(key)
            if value is not None:
                value, room = within(value, room)
                found.append(ChannelValue(key.channel, key.version, value))
        writes = stored.pending_writes
        if any(write.value.patch is not None for write in writes):
            writes = []
            for write in stored.pending_writes:
                if write.value.patch is not None:
                    value, room = within(assembler.write(write.channel, write.value), room)
                    write = write._replace(value=value)
                writes.append(write)
        return found, writes


def within(value: TypedValue, room: int) -> tuple[TypedValue, int]:
    """Returns a value, whole or left out depending on the room, and the remaining room."""
    size = len(value.data)
    return (value, room - size) if size <= room else (left_out(value), room)
