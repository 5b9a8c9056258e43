"""Groups as arguments of `commit_group` and `commit_writes` (row types: migrations/0001_core/03_writes.sql)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from checkpointd_server.domain.checkpoints import PutCheckpoint, PutWrites
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.threads import NO_LABELS, SIGNALS, thread_key
from checkpointd_server.domain.values import Patch
from checkpointd_server.store.writes.merge import Base, Group, value_size

_NO_BASE: tuple[object, ...] = (None,) * 6
_NO_PATCH: tuple[object, ...] = (None,) * 8
_NO_UPLOAD: tuple[object, ...] = (None, None)
_BASES_BYTES = 16_384
"""Approximate maximum size of the names of the values that a task write builds on, in bytes."""
_NO_PUT: tuple[object, ...] = (None,) * 13
_LOOK_EVERY_BYTES = 65_536
"""Approximate size of task writes after which the total of their checkpoint is checked, in bytes."""


class Rows:
    """The contents of groups, as arrays of rows. Each group has a different namespace.

    Args:
        groups: The groups.
        limits: The limits of writes.
    """

    def __init__(self, groups: Sequence[Group], limits: Limits) -> None:
        self._limits = limits
        self._groups: list[tuple[object, ...]] = []
        self._puts: list[tuple[object, ...]] = []
        self._values: list[tuple[object, ...]] = []
        self._emptied: list[tuple[object, ...]] = []
        self._writes: list[tuple[object, ...]] = []
        self._written = 0
        """The size of the task writes without their data, in bytes."""
        self._has_patches = self._has_patched_writes = False
        self._has_uploads = False
        self._bytes = 0
        """The size of the current group's rows, in bytes."""
        for group in groups:
            self._add_group(group)
        # A write of so many bytes is the one in which the next look falls due.
        self._looks = self._written > time.perf_counter_ns() % _LOOK_EVERY_BYTES

    @property
    def are_plain(self) -> bool:
        """True if `commit_group` can store them: one group, without uploads, and no check is due."""
        return len(self._groups) == 1 and not (self._has_uploads or self._has_patched_writes or self._looks)

    def as_group(self) -> tuple[object, ...]:
        """Returns the arguments of `commit_group` after the tenant, if `are_plain`."""
        _, thread, thread_id, ns, lease, version, writer, last, may_be_first, _, *of_last = self._groups[0]
        *earlier, (_, _, _, parent, _, *columns) = self._puts or [_NO_PUT]
        return (
            self._limits.max_chain,
            *(thread, thread_id, ns, lease, version, writer, last, may_be_first),
            *of_last,
            parent,
            *columns,
            earlier or None,
            self._values or None,
            self._emptied or None,
            self._writes or None,
        )

    def as_commit(self, *, waits: bool) -> tuple[object, ...]:
        """Returns the arguments of `commit_writes` after the tenant.

        Args:
            waits: Whether to wait for the thread, if all groups are of one.
        """
        return (
            waits,
            self._limits.max_chain,
            self._limits.max_written_bytes if self._looks else None,
            self._has_patches,
            self._has_patched_writes,
            self._has_uploads,
            self._groups,
            self._puts,
            self._values,
            self._emptied,
            self._writes,
        )

    def _add_group(self, group: Group) -> None:
        number, following = len(self._groups) + 1, group.puts
        first_request_id = last_request_id = None
        is_root = not group.namespace.checkpoint_ns
        signal: int | None = None
        self._bytes = 0
        for pending, request_id in zip(group.entries, group.request_ids, strict=True):
            write = pending.write
            if isinstance(write, PutCheckpoint):
                following -= 1
                last_request_id = request_id
                first_request_id = first_request_id or request_id
                signal = None
                self._add_put(group, number, following, write, request_id)
            else:
                found = self._add_writes(group, number, write, request_id)
                signal = found if found and is_root else signal
        namespace, precondition, put = group.namespace, group.precondition, group.last_put
        self._groups.append(
            (
                number,
                thread_key(namespace.tenant, namespace.thread_id),
                namespace.thread_id,
                namespace.checkpoint_ns,
                group.lease_token,
                precondition.if_version_match,
                precondition.if_last_writer or None,
                precondition.if_last_checkpoint_id or None,
                group.may_be_first,
                len(group.entries) == 1,
                group.puts,
                None if put is None else put.checkpoint_id,
                None if put is None else put.writer or None,
                last_request_id,
                None if put is None else group.least_parent(),
                self._bytes,
                signal,
                _fingerprint(group) if is_root else None,
                first_request_id,
                group.serializer,
            )
        )

    def _add_put(self, group: Group, number: int, following: int, put: PutCheckpoint, request_id: bytes) -> None:
        names = sum(map(len, put.channels)) + sum(map(len, put.channel_versions))
        size = len(put.body) + len(put.metadata.data) + names
        self._bytes += size
        self._puts.append(
            (
                number,
                following,
                put.checkpoint_id,
                put.parent_checkpoint_id,
                request_id,
                put.body,
                put.channels,
                put.channel_versions,
                put.metadata.type,
                put.metadata.data,
                put.metadata_index,
                put.run_id,
                size,
            )
        )
        for channel, version, value in put.values:
            if value is None:
                self._emptied.append((number, channel, version))
                continue
            crc32, based, upload = value.crc32, _NO_BASE, _NO_UPLOAD
            if value.patch is not None:
                self._has_patches = True
                crc32 = value.patch.crc32
                based = _based(value.patch, group.base_of(channel, version))
            if value.parts is not None:
                self._has_uploads = True
                upload = value.parts
                self._bytes += value.parts.size
            self._bytes += len(value.data)
            row = (number, channel, version, value.type, value.data, value_size(value), crc32 or None)
            self._values.append((*row, *based, *upload))

    def _add_writes(self, group: Group, number: int, put: PutWrites, request_id: bytes) -> int | None:
        """Adds task writes, and returns their signal, if any."""
        signal = None
        for task_id, task_path, idx, channel, value in put.writes:
            upload, patched, patch = _NO_UPLOAD, _NO_PATCH, value.patch
            if value.parts is not None:
                self._has_uploads = True
                upload = value.parts
                self._bytes += value.parts.size
            if patch is not None:
                self._has_patches = self._has_patched_writes = True
                self._written += _BASES_BYTES
                base_version, sealed, *based = _based(patch, group.patched(channel, value))
                patched = (base_version, patch.size, patch.crc32 or None, sealed, *based)
            if idx < 0:
                signal = SIGNALS.get(channel, signal)
            self._bytes += len(value.data)
            self._written += len(task_id) + len(task_path) + len(channel) + len(value.type) + 64
            row = (number, put.checkpoint_id, task_id, idx, task_path, channel, value.type, value.data, request_id)
            self._writes.append((*row, *upload, *patched))
        return signal


def _based(patch: Patch, base: Base) -> tuple[object, ...]:
    """Returns what is told of a patch's base, the base and its chain being as they are in the group."""
    # A base in the group has been checked before.
    reach, base_crc32 = (patch.reach, patch.base_crc32) if base.outside == patch.base_version else (0, 0)
    return patch.base_version, patch.sealed, base.outside, base.hops, reach, base_crc32 or None


def _fingerprint(group: Group) -> int | None:
    """Returns the last put's fingerprint of its metadata, or 0 if no put has labels. None: there is no put."""
    put = group.last_put
    if put is None or put.fingerprint != NO_LABELS:
        return None if put is None else put.fingerprint
    # The labels are those of the latest checkpoint, which may be another put's.
    puts = (write for write in group.writes() if isinstance(write, PutCheckpoint))
    return 0 if all(write.fingerprint == NO_LABELS for write in puts) else put.fingerprint
