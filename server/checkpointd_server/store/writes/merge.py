"""Groups: writes of one namespace that build on each other, so one check decides on all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from checkpointd_server.domain.checkpoints import PendingWrite, Precondition, PutCheckpoint, PutWrites
from checkpointd_server.domain.serializers import SerializerFamily
from checkpointd_server.domain.values import TypedValue

NO_PRECONDITION = Precondition()


class Base(NamedTuple):
    """A value of the group, as the base of a later patch in the group."""

    outside: str | None
    """The older version that the value's chain of patches begins with. None: the chain begins in the group."""
    hops: int
    """The number of the group's patches up to the value."""
    size: int
    """The size of the value, in bytes."""
    crc32: int
    """The CRC-32 of the value, or of its patch. 0: unknown."""


class Group:
    """Puts and task writes of a commit in one namespace, in order: stored as a whole or not at all.

    If it is refused, each write is tried separately.
    """

    def __init__(self, first: PendingWrite, request_id: bytes = b"") -> None:
        self.namespace = first.write.namespace
        self.lease_token = first.write.lease_token
        self.precondition = first.write.precondition or NO_PRECONDITION
        """The first write's, which decides for all."""
        self.serializer: SerializerFamily | None = None
        """The serializer family of its writes, as far as it is known."""
        self.entries: list[PendingWrite] = []
        self.request_ids: list[bytes] = []
        """The request id of each entry. Entries without one get one, to recognize a retry after a lost answer."""
        self.last_put: PutCheckpoint | None = None
        self.puts = 0
        """How many it has."""
        self._bases: dict[tuple[str, str], Base] = {}
        self._changed: set[tuple[str, str]] = set()
        """The values that it stores, and those that it empties."""
        self._written_on: set[tuple[str, str]] = set()
        """The older values that its task writes are patches on."""
        self._checkpoint_ids: set[str] = set()
        self._places: set[tuple[str, str, int]] = set()
        self.add(first, request_id)

    def admits(self, pending: PendingWrite) -> bool:
        """Returns whether a later write of the namespace may join: whether it is accepted whenever the others are."""
        write = pending.write
        if write.lease_token != self.lease_token or not self._implies(write.precondition):
            return False
        if write.request_id and write.request_id in self.request_ids:
            return False
        if isinstance(write, PutWrites):
            # One statement can't write a row twice. The first of several regular writes stays anyway.
            return self._places.isdisjoint(_special_places(write)) and all(
                self._has_base(entry.channel, entry.value) for entry in write.writes
            )
        return (
            write.checkpoint_id not in self._checkpoint_ids
            and all((channel, version) not in self._changed for channel, version, _ in write.values)
            # Task writes are stored after all values, so they would find another base.
            and (not self._written_on or all((channel, at) not in self._written_on for channel, at, _ in write.values))
            and all(self._has_base(channel, value) for channel, _, value in write.values if value is not None)
        )

    def _implies(self, precondition: Precondition | None) -> bool:
        """Returns whether a precondition holds after the group, provided that the group's holds before it."""
        if precondition is None or is_unconditional(precondition):
            return True
        put = self.last_put
        if put is None:
            return precondition == self.precondition
        return precondition.if_last_writer == put.writer != b"" and precondition.if_last_checkpoint_id in (
            "",
            put.checkpoint_id,
        )

    def _has_base(self, channel: str, value: TypedValue) -> bool:
        """Returns whether a patch on a value of the group fits. If not, it is tried separately, and gets the error."""
        if value.patch is None:
            return True
        key = (channel, value.patch.base_version)
        base = self._bases.get(key)
        if base is None:
            return key not in self._changed
        return value.patch.reach <= base.size and value.patch.base_crc32 in (0, base.crc32)

    def add(self, pending: PendingWrite, request_id: bytes = b"") -> None:
        """Adds a write that `admits` accepts. `request_id`: the id that it was given before, if it has none itself."""
        write = pending.write
        self.serializer = self.serializer or write.serializer
        self.entries.append(pending)
        self.request_ids.append(write.request_id or request_id or os.urandom(16))
        if isinstance(write, PutWrites):
            self._places.update(_special_places(write))
            for task_write in write.writes:
                patch = task_write.value.patch
                if patch is not None and (task_write.channel, patch.base_version) not in self._bases:
                    self._written_on.add((task_write.channel, patch.base_version))
            return
        self.last_put = write
        self.puts += 1
        self._checkpoint_ids.add(write.checkpoint_id)
        for channel, version, value in write.values:
            self._changed.add((channel, version))
            if value is not None:
                self._bases[channel, version] = self.patched(channel, value)

    def patched(self, channel: str, value: TypedValue) -> Base:
        """Returns how a patch on a channel's value comes about: by one of the group's, or a task write."""
        if value.patch is None:
            return Base(None, 0, value_size(value), value.crc32)
        base = self._bases.get((channel, value.patch.base_version))
        if base is None:
            return Base(value.patch.base_version, 1, value.patch.size, value.patch.crc32)
        return Base(base.outside, base.hops + 1, value.patch.size, value.patch.crc32)

    def base_of(self, channel: str, version: str) -> Base:
        """Returns how a value of the group came about."""
        return self._bases[channel, version]

    def least_parent(self) -> str | None:
        """The bytewise least parent id of the group's puts that is outside the group."""
        parents = [
            write.parent_checkpoint_id
            for write in self.writes()
            if isinstance(write, PutCheckpoint) and write.parent_checkpoint_id is not None
        ]
        # Python orders text by code points, which is also the order of the UTF-8 bytes.
        return min((parent for parent in parents if parent not in self._checkpoint_ids), default=None)

    def writes(self) -> Iterator[PutCheckpoint | PutWrites]:
        """Yields what is to be stored, in order."""
        return (entry.write for entry in self.entries)

    @property
    def may_be_first(self) -> bool:
        """True if it is accepted in an empty namespace."""
        return is_unconditional(self.precondition) or self.precondition.if_version_match == 0


def is_unconditional(precondition: Precondition) -> bool:
    """Returns whether a precondition always holds."""
    return precondition.if_version_match is None and not precondition.if_last_writer


def value_size(value: TypedValue) -> int:
    """Returns the size of a value with its patch applied, in bytes."""
    if value.patch is not None:
        return value.patch.size
    return len(value.data) if value.parts is None else value.parts.size


def _special_places(put: PutWrites) -> set[tuple[str, str, int]]:
    return {(put.checkpoint_id, write.task_id, write.idx) for write in put.writes if write.idx < 0}


def uploads_of(write: PutCheckpoint | PutWrites) -> list[bytes]:
    """Returns the uploads that a write names."""
    if isinstance(write, PutCheckpoint):
        return [value.parts.upload_id for _, _, value in write.values if value is not None and value.parts is not None]
    return [value.parts.upload_id for *_, value in write.writes if value.parts is not None]
