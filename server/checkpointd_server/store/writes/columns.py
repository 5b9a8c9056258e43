"""Groups as the arrays that `commit_writes` takes (migrations/0001_core/03_writes.sql)."""

from __future__ import annotations

from collections.abc import Sequence

from checkpointd_server.domain.checkpoints import PutCheckpoint, PutWrites
from checkpointd_server.domain.threads import thread_key
from checkpointd_server.store.writes.merge import Group, value_size


def commit_arguments(groups: Sequence[Group], max_chain: int) -> list[object]:
    """Returns the arguments behind the tenant, for groups that each have a namespace of their own."""
    columns = _Columns()
    for group in groups:
        columns.add_group(group)
    return columns.arguments(groups[0].namespace.tenant, max_chain)


class _Columns:
    """The arrays, as they fill. Positions count from 1, as PostgreSQL does."""

    def __init__(self) -> None:
        self._threads: dict[str, bool] = {}
        self._groups: list[tuple[object, ...]] = []
        self._puts: list[tuple[object, ...]] = []
        self._channels: list[str] = []
        self._versions: list[str] = []
        self._values: list[tuple[object, ...]] = []
        self._patches: list[tuple[object, ...]] = []
        self._emptied: list[tuple[object, ...]] = []
        self._writes: list[tuple[object, ...]] = []
        self._has_patches = False
        self._has_uploads = False

    def add_group(self, group: Group) -> None:
        """Adds a group, and all that it holds."""
        thread_id = group.namespace.thread_id
        self._threads[thread_id] = self._threads.get(thread_id, False) or group.may_be_first
        precondition, put = group.precondition, group.last_put
        number, first_put = len(self._groups) + 1, len(self._puts) + 1
        request_id = None
        for write, request_id_ in zip(group.writes(), group.request_ids, strict=True):
            if isinstance(write, PutCheckpoint):
                request_id = request_id_
                self._add_put(group, number, len(self._puts) + 1 - first_put, write, request_id_)
            else:
                self._add_writes(number, write, request_id_)
        puts = len(self._puts) + 1 - first_put
        self._groups.append(
            (
                thread_key(group.namespace.tenant, thread_id),
                group.namespace.checkpoint_ns,
                group.lease_token,
                precondition.if_version_match,
                precondition.if_last_writer or None,
                precondition.if_last_checkpoint_id or None,
                group.least_parent() if puts else None,
                first_put,
                puts,
                put and put.checkpoint_id,
                (put and put.writer) or None,
                request_id,
                not puts and len(group.entries) == 1,
            )
        )

    def _add_put(self, group: Group, number: int, place: int, put: PutCheckpoint, request_id: bytes) -> None:
        self._channels += put.channels
        self._versions += put.channel_versions
        self._puts.append(
            (
                number,
                place,
                put.checkpoint_id,
                put.parent_checkpoint_id,
                request_id,
                put.body,
                put.metadata.type,
                put.metadata.data,
                put.metadata_index,
                put.run_id,
                len(put.body)
                + len(put.metadata.data)
                + sum(map(len, put.channels))
                + sum(map(len, put.channel_versions)),
                len(self._channels),
            )
        )
        for channel, version, value in put.values:
            if value is None:
                self._emptied.append((number, channel, version))
                continue
            self._values.append((number, channel, version, value.type, value.data, value_size(value)))
            patch, parts = value.patch, value.parts
            if patch is None and parts is None:
                self._patches.append(_NO_PATCH)
                continue
            self._has_uploads |= parts is not None
            upload = (None, None) if parts is None else parts
            if patch is None:
                self._patches.append((None, None, None, None, None, None, *upload))
                continue
            self._has_patches = True
            base = group.base_of(channel, version)
            reach = patch.reach if base.outside == patch.base_version else 0
            crc32 = None if patch.sealed else patch.crc32
            self._patches.append((patch.base_version, crc32, patch.sealed, base.outside, base.hops, reach, *upload))

    def _add_writes(self, number: int, put: PutWrites, request_id: bytes) -> None:
        for task_id, task_path, idx, channel, value in put.writes:
            self._has_uploads |= value.parts is not None
            upload = (None, None) if value.parts is None else value.parts
            self._writes.append(
                (
                    number,
                    put.checkpoint_id,
                    task_id,
                    idx,
                    task_path,
                    channel,
                    value.type,
                    value.data,
                    request_id,
                    *upload,
                )
            )

    def arguments(self, tenant: str, max_chain: int) -> list[object]:
        """Returns all of it, in the order of the function's parameters."""
        patches = self._patches if self._has_patches or self._has_uploads else []
        return [
            max_chain,
            self._has_patches,
            self._has_uploads,
            [thread_key(tenant, thread_id) for thread_id in self._threads],
            list(self._threads),
            list(self._threads.values()),
            *_transposed(self._groups, 13),
            *_transposed(self._puts, 12),
            self._channels,
            self._versions,
            *_transposed(self._values, 6),
            *_transposed(patches, 8),
            *_transposed(self._emptied, 3),
            *_transposed(self._writes, 11),
        ]


_NO_PATCH = (None,) * 8
_EMPTY: tuple[()] = ()


def _transposed(rows: list[tuple[object, ...]], width: int) -> list[Sequence[object]]:
    return list(zip(*rows, strict=True)) if rows else [_EMPTY] * width
