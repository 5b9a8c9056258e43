"""The threads of a server, read through its RPCs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import grpc

from checkpointd.v1.checkpoint_service_pb2 import (
    CHECKPOINT_VIEW_METADATA,
    GetCheckpointRequest,
    GetCheckpointResponse,
    ListCheckpointsRequest,
)
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.export_pb2 import ExportedThread
from checkpointd.v1.thread_service_pb2 import GetThreadRequest, ListThreadsRequest, Thread, ThreadFilter
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
from checkpointd.v1.value_service_pb2 import GetValueRequest, KnownChannelValue, KnownTaskWrite
from checkpointd.v1.value_service_pb2_grpc import ValueServiceStub
from checkpointd.v1.values_pb2 import ChannelValue, CheckpointTuple, KnownValue, TaskWrite, TypedValue
from checkpointd_server.moving.content import Checkpoints, MoveError, ThreadChanged
from checkpointd_server.remote.refusals import Refusal

PAGE_SIZE = 1000
"""Number of checkpoints listed per call."""
MAX_KNOWN = 1000
"""Maximum number of known values in a read."""
MAX_INDEX_BYTES = 64 * 1024
"""Maximum size of a put's metadata index, in bytes."""


class _Key(NamedTuple):
    """The key of a checkpoint, and its namespace's version."""

    checkpoint_id: str
    checkpoint_ns: str
    version: int


class RemoteThreads:
    """The threads of a server's tenant.

    Args:
        channel: To the server.
        timeout: How long each call may take, in seconds.
    """

    def __init__(self, channel: grpc.Channel, *, timeout: float) -> None:
        self._checkpoints: Any = CheckpointServiceStub(channel)
        self._values: Any = ValueServiceStub(channel)
        self._threads: Any = ThreadServiceStub(channel)
        self._timeout = timeout

    def thread_ids(self) -> Iterator[str]:
        """Yields the id of every thread that has checkpoints, archived ones too."""
        seen: set[str] = set()
        for archived in (False, True):
            # Threads that are written to move to the front: so repeat until a list has nothing new.
            more = True
            while more:
                more = False
                for thread in self._list_threads(archived=archived):
                    if thread.checkpoints and thread.thread_id not in seen:
                        seen.add(thread.thread_id)
                        more = True
                        yield thread.thread_id

    def _list_threads(self, *, archived: bool) -> Iterator[Thread]:
        request = ListThreadsRequest(filter=ThreadFilter(archived=archived), page_size=PAGE_SIZE)
        while True:
            response = self._threads.ListThreads(request, timeout=self._timeout)
            yield from response.threads
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def stamps(self) -> dict[str, str]:
        """Returns the stamp of every thread that has checkpoints, archived ones too."""
        return {
            thread.thread_id: _stamp(thread)
            for archived in (False, True)
            for thread in self._list_threads(archived=archived)
            if thread.checkpoints
        }

    def stamp(self, thread_id: str) -> str:
        """Returns a stamp that changes with the thread. Empty: there is no such thread."""
        found = self._find(thread_id)
        return _stamp(found) if found is not None and found.checkpoints else ""

    def _find(self, thread_id: str) -> Thread | None:
        request = GetThreadRequest(thread_id=thread_id)
        try:
            found: Thread = self._threads.GetThread(request, timeout=self._timeout).thread
        except grpc.RpcError as error:
            if Refusal.of_call(error).reason == "THREAD_NOT_FOUND":
                return None
            raise
        return found

    def describe(self, thread_id: str) -> ExportedThread:
        """Returns a thread's tags, pin and time to live. Raises ThreadChanged if it is gone."""
        found = self._find(thread_id)
        if found is None:
            raise ThreadChanged(f"thread {thread_id!r} was deleted while it was read")
        return ExportedThread(
            thread_id=thread_id,
            stamp=bytes.fromhex(_stamp(found)),
            tags=found.tags,
            pinned=found.pinned,
            ttl_seconds=found.ttl_seconds,
            archived=found.HasField("archived_at"),
        )

    def holds(self, thread_id: str) -> bool:
        """Returns whether a thread has checkpoints."""
        request = ListCheckpointsRequest(
            thread_id=thread_id, all_namespaces=True, view=CHECKPOINT_VIEW_METADATA, page_size=1
        )
        response = self._checkpoints.ListCheckpoints(request, timeout=self._timeout)
        return bool(response.tuples)

    def _list(self, request: ListCheckpointsRequest) -> Iterator[CheckpointTuple]:
        request.page_size = PAGE_SIZE
        while True:
            response = self._checkpoints.ListCheckpoints(request, timeout=self._timeout)
            yield from response.tuples
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def _keys(self, thread_id: str) -> list[_Key]:
        request = ListCheckpointsRequest(thread_id=thread_id, all_namespaces=True, view=CHECKPOINT_VIEW_METADATA)
        found = [_Key(one.checkpoint_id, one.checkpoint_ns, one.version) for one in self._list(request)]
        return sorted(found, key=lambda key: (key.checkpoint_id.encode(), key.checkpoint_ns.encode()))

    def read(self, thread_id: str) -> Checkpoints:
        """Yields a thread's checkpoints in order. Raises ThreadChanged, MoveError, grpc.RpcError."""
        reader = _ThreadReader(self._checkpoints, self._values, thread_id, self._timeout)
        stamp = self.stamp(thread_id)
        keys = self._keys(thread_id)
        for key in keys:
            yield reader.read(key.checkpoint_ns, key.checkpoint_id)
        if self.stamp(thread_id) != stamp or self._keys(thread_id) != keys:
            raise ThreadChanged(f"thread {thread_id!r} was changed while it was read")


class _ThreadReader:
    """Reads the checkpoints of a thread one by one, each with the values that no earlier one had."""

    def __init__(self, checkpoints: Any, values: Any, thread_id: str, timeout: float) -> None:
        self._checkpoints = checkpoints
        self._values = values
        self._thread_id = thread_id
        self._timeout = timeout
        self._given: set[tuple[str, str, str]] = set()
        """The values yielded so far: (namespace, channel, version)."""
        self._latest: dict[str, dict[str, KnownValue]] = {}
        """The last of them for each namespace and channel."""

    def read(self, checkpoint_ns: str, checkpoint_id: str) -> CheckpointTuple:
        """Returns a checkpoint. Raises ThreadChanged if it is gone."""
        latest = self._latest.setdefault(checkpoint_ns, {})
        request = GetCheckpointRequest(
            thread_id=self._thread_id,
            checkpoint_ns=checkpoint_ns,
            checkpoint_id=checkpoint_id,
            patches=True,
            metadata_index=True,
        )
        request.known.extend(list(latest.values())[:MAX_KNOWN])
        response: GetCheckpointResponse = self._checkpoints.GetCheckpoint(request, timeout=self._timeout)
        if not response.HasField("tuple"):
            raise ThreadChanged(f"thread {self._thread_id!r} was changed while it was read")
        found = response.tuple
        rows = {(row.channel, row.version): row.value for row in response.stored_values}
        for channel, version in zip(found.channels, found.channel_versions, strict=True):
            if (row := rows.get((channel, version))) is not None:
                self._give(found, channel, version, rows)
                latest[channel] = KnownValue(channel=channel, version=version, crc32=_checksum(row))
        for write in found.pending_writes:
            stored = TypedValue()
            stored.CopyFrom(write.value)
            write.ClearField("value")
            if stored.HasField("patch") and stored.patch.sealed:
                self._give(found, write.channel, stored.patch.base_version, rows)
            self._fill(write.value, stored, found, write.channel, GetValueRequest(task_write=_beside(found, write)))
        found.ClearField("version")
        if found.metadata.value.type == "msgpack" and len(found.metadata.index) > MAX_INDEX_BYTES:
            found.metadata.ClearField("index")  # a server computes the same one from the metadata
        return found

    def _give(
        self, found: CheckpointTuple, channel: str, version: str, rows: Mapping[tuple[str, str], TypedValue]
    ) -> None:
        """Adds a value to a checkpoint, unless an earlier one had it, and before it any base that is needed.

        That is the base of an encrypted patch, if the checkpoints that had it were pruned.
        """
        chain: list[tuple[str, TypedValue]] = []
        row = rows.get((channel, version))
        while row is not None and (found.checkpoint_ns, channel, version) not in self._given:
            chain.append((version, row))
            if not (row.HasField("patch") and row.patch.sealed):
                break
            version = row.patch.base_version
            row = rows.get((channel, version))
        for version, row in reversed(chain):
            value = found.values.add(channel=channel, version=version)
            self._fill(value.value, row, found, channel, GetValueRequest(channel_value=_named(value)))
            self._given.add((found.checkpoint_ns, channel, version))

    def _fill(
        self, value: TypedValue, row: TypedValue, found: CheckpointTuple, channel: str, request: GetValueRequest
    ) -> None:
        """Adds a value's bytes: a patch if its base was yielded before, else the whole."""
        base = (found.checkpoint_ns, channel, row.patch.base_version)
        as_patch = row.HasField("patch") and base in self._given
        if not row.HasField("parts") and (as_patch or not row.HasField("patch")):
            value.CopyFrom(row)
            return
        request.thread_id, request.checkpoint_ns = self._thread_id, found.checkpoint_ns
        request.patches = as_patch
        value.type = row.type
        if as_patch:
            value.patch.CopyFrom(row.patch)
        value.data = self._bytes(request)
        if not as_patch and row.crc32:
            value.crc32 = row.crc32

    def _bytes(self, request: GetValueRequest) -> bytes:
        """Reads a single value."""
        made = bytearray()
        while True:
            request.offset = len(made)
            try:
                part = self._values.GetValue(request, timeout=self._timeout)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    raise MoveError(
                        f"thread {self._thread_id!r} has an encrypted patch whose base is gone: only the saver that "
                        "has the key can copy it"
                    ) from error
                raise
            if not part.found:
                raise ThreadChanged(f"thread {self._thread_id!r} was changed while it was read")
            made += part.data
            if len(made) >= part.size or not part.data:
                return bytes(made)


def _named(value: ChannelValue) -> KnownChannelValue:
    return KnownChannelValue(channel=value.channel, version=value.version)


def _beside(found: CheckpointTuple, write: TaskWrite) -> KnownTaskWrite:
    return KnownTaskWrite(checkpoint_id=found.checkpoint_id, task_id=write.task_id, idx=write.idx)


def _checksum(row: TypedValue) -> int:
    return row.patch.crc32 if row.HasField("patch") else row.crc32


def _stamp(thread: Thread) -> str:
    """Returns a stamp that changes with every write to a thread, as hexadecimal digits."""
    known = Thread(
        created_at=thread.created_at,
        active_at=thread.active_at,
        checkpoints=thread.checkpoints,
        bytes=thread.bytes,
        checkpoint_id=thread.checkpoint_id,
        tags=thread.tags,
        pinned=thread.pinned,
        ttl_seconds=thread.ttl_seconds,
    )
    if thread.HasField("archived_at"):
        known.archived_at.CopyFrom(thread.archived_at)
    return sha256(known.SerializeToString(deterministic=True)).hexdigest()
