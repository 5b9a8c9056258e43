"""Data at a limit can be read in every way; data beyond it is refused, and nothing is stored.

The limits are those that the server reports (`Limits` of the protocol). For a new one, add a write here or a reason why
there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from zlib import crc32

import grpc
import pytest
from hypothesis import strategies as st

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
from checkpointd.v1.value_service_pb2_grpc import ValueServiceStub
from checkpointd_server.domain.limits import Limits
from tests.rpc.drafts import AGAINST_ANOTHER, NOT_WRITTEN, OF_READS, UNREFUSED, WRITES, Draft, numbers
from tests.support.cluster import PostgresCluster
from tests.support.local_server import LocalServer
from tests.support.properties import given

KIBIBYTE = 1024
SMALL = Limits(
    max_message_bytes=512 * KIBIBYTE,
    max_value_bytes=1024 * KIBIBYTE,
    max_task_path_bytes=4096,
    max_filter_bytes=2048,
    max_page_size=3,
    max_chain=5,
    max_patch_operations=500,
    max_known=20,
    max_channels=300,
    max_values=200,
    max_batch=10,
    max_pipeline_operations=20,
).fitting()
"""Small enough to bring a server to all limits at once quickly."""


def test_every_limit_that_the_server_tells_is_here() -> None:
    told = {field.name for field in info.Limits.DESCRIPTOR.fields}
    assert told == WRITES.keys() | NOT_WRITTEN.keys()
    assert not WRITES.keys() & NOT_WRITTEN.keys()


REFUSALS = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)


class Refused(Exception):
    """A write was refused; the message is the server's."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turns refusals by the server into Refused. Other errors are raised unchanged."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() not in REFUSALS:
            raise
        raise Refused(error.details()) from error


class Place:
    """A server with its limits, to which drafts are written."""

    def __init__(self, target: str, limits: Limits) -> None:
        # The client accepts messages as large as the server may send, and no larger.
        size = ("grpc.max_receive_message_length", limits.max_message_bytes)
        self.channel = grpc.insecure_channel(target, [size, ("grpc.max_send_message_length", -1)])
        self.limits = limits
        self._most = limits.max_message_bytes
        self.checkpoints: Any = CheckpointServiceStub(self.channel)
        self.values: Any = ValueServiceStub(self.channel)
        self.threads: Any = ThreadServiceStub(self.channel)

    # Writing.

    def write(self, draft: Draft) -> None:
        """Writes all of a draft. Raises Refused."""
        with refusals():
            if draft.chain:
                self._write_chain(draft)
            self._send(draft, self._put(draft), self._writes(draft))

    def _put(self, draft: Draft, **fields: Any) -> pb.PutCheckpointRequest:
        request = pb.PutCheckpointRequest(
            thread_id=draft.thread_id,
            checkpoint_ns=draft.checkpoint_ns,
            checkpoint_id=draft.checkpoint_id,
            body=draft.body,
            channels=draft.channels,
            channel_versions=[draft.version] * len(draft.channels),
            metadata=values.Metadata(value=values.TypedValue(type="msgpack", data=draft.metadata), index=draft.index),
        )
        for channel, data in draft.data.items():
            value = values.TypedValue(type=draft.type, data=data)
            if draft.parts and channel == draft.first:
                value = values.TypedValue(type=draft.type, parts=self._send_parts(draft, data))
            request.values.add(channel=channel, version=draft.version, value=value)
        if draft.operations:
            self._make_patch(draft, request)
        if draft.message_bytes:
            self._fill(draft, request, draft.message_bytes)
        return request

    def _make_patch(self, draft: Draft, request: pb.PutCheckpointRequest) -> None:
        """Makes the first value a patch with this many instructions, each of which copies the base's first byte."""
        new = self._base(draft)[:1] * draft.operations
        draft.data[draft.first] = new
        patch = values.Patch(base_version=_base_version(draft, draft.chain), size=len(new), crc32=crc32(new))
        value = values.TypedValue(type=draft.type, data=b"\x03\x00" * draft.operations, patch=patch)
        request.values[0].value.CopyFrom(value)

    @staticmethod
    def _base(draft: Draft) -> bytes:
        return b"base of a chain"

    def _write_chain(self, draft: Draft) -> None:
        """Puts earlier checkpoints: a whole value and a chain of patches on it, each of which makes the base again."""
        base = self._base(draft)
        patches = draft.chain if not draft.operations else draft.chain - 1
        for number in range(patches + 1):
            bare = replace(draft, operations=0, parts=0, message_bytes=0, data={}, body=b"\x80", index=b"")
            request = self._put(bare)
            request.checkpoint_id = f"b{number:04}"
            del request.channels[1:], request.channel_versions[1:]
            version = request.channel_versions[0] = _base_version(draft, number + 1)
            value = values.TypedValue(type=draft.type, data=base)
            if number:
                patch = values.Patch(base_version=_base_version(draft, number), size=len(base), crc32=crc32(base))
                value = values.TypedValue(type=draft.type, data=bytes([len(base) << 1 | 1, 0]), patch=patch)
            request.values.add(channel=draft.first, version=version, value=value)
            self.checkpoints.PutCheckpoint(request, timeout=60)
            got = self.checkpoints.GetCheckpoint(
                pb.GetCheckpointRequest(
                    thread_id=draft.thread_id, checkpoint_ns=draft.checkpoint_ns, checkpoint_id=request.checkpoint_id
                )
            )
            assert self._value(draft, got.tuple.values[0]) == base

    def _fill(self, draft: Draft, request: pb.PutCheckpointRequest, size: int) -> None:
        """Enlarges the first value until the message has this size."""
        value = request.values[0].value
        value.data = b""
        left = size - request.ByteSize()
        while left > 0:
            value.data += b"f" * left
            left = size - request.ByteSize()
        value.data = value.data[: len(value.data) + left]
        draft.data[draft.first] = value.data

    def _send_parts(self, draft: Draft, data: bytes) -> values.Parts:
        upload_id = f"{next(numbers):016}".encode()
        for offset in range(0, len(data), draft.parts):
            part = data[offset : offset + draft.parts]
            request = values_pb.PutPartRequest(thread_id=draft.thread_id, upload_id=upload_id, offset=offset, data=part)
            self.values.PutPart(request, timeout=60)
        return values.Parts(upload_id=upload_id, size=len(data))

    def _writes(self, draft: Draft) -> pb.PutWritesRequest:
        request = pb.PutWritesRequest(
            thread_id=draft.thread_id,
            checkpoint_ns=draft.checkpoint_ns,
            checkpoint_id=draft.checkpoint_id,
            task_id=draft.task_id,
            task_path=draft.task_path,
        )
        for number in range(draft.writes):
            request.writes.add(
                idx=number, channel=draft.first, value=values.TypedValue(type=draft.type, data=b"%d" % number)
            )
        return request

    def _send(self, draft: Draft, put: pb.PutCheckpointRequest, writes: pb.PutWritesRequest) -> None:
        if not draft.together and not draft.pipeline_bytes:
            # Tests expect that no checkpoint is there if one of the two is refused.
            self.checkpoints.PutWrites(writes, timeout=60)
            self.checkpoints.PutCheckpoint(put, timeout=60)
            return
        operations = [pb.Operation(id=1, put_checkpoint=put), pb.Operation(id=2, put_writes=writes)]
        get = pb.GetCheckpointRequest(thread_id="nothing")
        operations += [pb.Operation(id=3 + n, get_checkpoint=get) for n in range(draft.together - 2)]
        message = pb.PipelineRequest(operations=operations)
        if draft.pipeline_bytes:
            while (left := draft.pipeline_bytes - message.ByteSize()) != 0:
                size = max(put.ByteSize() + left, 1)
                self._fill(draft, message.operations[0].put_checkpoint, size)
                put.CopyFrom(message.operations[0].put_checkpoint)
        answers = self.checkpoints.Pipeline(iter([message]), timeout=60)
        results = [result for answer in answers for result in answer.results]
        assert len(results) == len(operations)
        for result in results:
            if result.HasField("failure"):
                assert result.failure.reason in ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE", "PREDECESSOR_MISSING")
                raise Refused(result.failure.message)

    # Reading.

    def read_back(self, draft: Draft) -> None:
        """Reads a draft in every way, and compares."""
        named: dict[str, Any] = {"thread_id": draft.thread_id, "checkpoint_ns": draft.checkpoint_ns}
        known = [values.KnownValue(channel=draft.first, version=f"s{number}") for number in range(draft.known)]
        for patches in (False, True):
            request = pb.GetCheckpointRequest(**named, checkpoint_id=draft.checkpoint_id, patches=patches)
            if patches:  # only clients that apply patches may name known values
                request.known.extend(known)
            found = self.checkpoints.GetCheckpoint(request, timeout=60)
            self._compare(draft, found.tuple, patches)
            operation = pb.Operation(id=1, get_checkpoint=request)
            (answer,) = self.checkpoints.Pipeline(iter([pb.PipelineRequest(operations=[operation])]), timeout=60)
            self._compare(draft, answer.results[0].get_checkpoint.tuple, patches)
            everywhere = {"thread_id": draft.thread_id, "all_namespaces": True}
            for wanted in (named, everywhere, {**named, "filter": draft.index}):
                (listed,) = self._list(draft, patches=patches, **wanted)
                self._compare(draft, listed, patches)
            self._read_history(draft, patches)
        copy = f"copy {draft.thread_id[9:]}" if len(draft.thread_id) > 9 else f"copy {draft.thread_id}"
        copied = threads_pb.CopyThreadRequest(source_thread_id=draft.thread_id, target_thread_id=copy)
        assert self.threads.CopyThread(copied, timeout=60).copied_checkpoints
        request = pb.GetCheckpointRequest(
            thread_id=copy, checkpoint_ns=draft.checkpoint_ns, checkpoint_id=draft.checkpoint_id
        )
        self._compare(replace(draft, thread_id=copy), self.checkpoints.GetCheckpoint(request, timeout=60).tuple, False)
        pruned = threads_pb.PruneThreadsRequest(thread_ids=[copy], strategy=threads_pb.PRUNE_STRATEGY_KEEP_LATEST)
        self.threads.PruneThreads(pruned, timeout=60)
        self._compare(replace(draft, thread_id=copy), self.checkpoints.GetCheckpoint(request, timeout=60).tuple, False)
        self.threads.DeleteThread(threads_pb.DeleteThreadRequest(thread_id=copy), timeout=60)

    def _list(self, draft: Draft, **wanted: Any) -> list[values.CheckpointTuple]:
        found: list[values.CheckpointTuple] = []
        token = ""
        while True:
            request = pb.ListCheckpointsRequest(page_size=draft.page_size, page_token=token, **wanted)
            page = self.checkpoints.ListCheckpoints(request, timeout=60)
            found += page.tuples
            token = page.next_page_token
            if not token:
                return [one for one in found if one.checkpoint_id == draft.checkpoint_id]

    def _read_history(self, draft: Draft, patches: bool) -> None:
        channels = [draft.first, *(f"missing {number}" for number in range(draft.batch - 1))]
        token = ""
        while True:
            request = pb.GetDeltaChannelHistoryRequest(
                thread_id=draft.thread_id,
                checkpoint_ns=draft.checkpoint_ns,
                checkpoint_id=draft.checkpoint_id,
                channels=channels,
                patches=patches,
                page_token=token,
            )
            answer = self.checkpoints.GetDeltaChannelHistory(request, timeout=60)
            token = answer.next_page_token
            if not token:
                return

    def _compare(self, draft: Draft, found: values.CheckpointTuple, patches: bool) -> None:
        assert (found.thread_id, found.checkpoint_ns) == (draft.thread_id, draft.checkpoint_ns)
        assert (found.checkpoint_id, found.body) == (draft.checkpoint_id, draft.body)
        assert list(found.channels) == draft.channels
        assert set(found.channel_versions) == {draft.version}
        assert found.metadata.value.data == draft.metadata
        if not patches:
            got = {entry.channel: self._value(draft, entry, found.thread_id) for entry in found.values}
            assert {channel: got[channel] for channel in draft.data} == draft.data
        writes = found.pending_writes
        assert [(write.task_id, write.task_path, write.idx, write.channel) for write in writes] == [
            (draft.task_id, draft.task_path, number, draft.first) for number in range(draft.writes)
        ]
        for write in writes:
            data = write.value.data
            if write.value.HasField("parts"):
                key = values_pb.KnownTaskWrite(checkpoint_id=draft.checkpoint_id, task_id=write.task_id, idx=write.idx)
                data = self._apart(draft, found.thread_id, write.value.parts.size, task_write=key)
            assert data == b"%d" % write.idx

    def _value(self, draft: Draft, entry: values.ChannelValue, thread_id: str = "") -> bytes:
        assert entry.value.type in (draft.type, "")
        if not entry.value.HasField("parts"):
            return bytes(entry.value.data)
        key = values_pb.KnownChannelValue(channel=entry.channel, version=entry.version)
        return self._apart(draft, thread_id or draft.thread_id, entry.value.parts.size, channel_value=key)

    def _apart(self, draft: Draft, thread_id: str, size: int, **wanted: Any) -> bytes:
        data = b""
        while len(data) < size:
            request = values_pb.GetValueRequest(
                thread_id=thread_id, checkpoint_ns=draft.checkpoint_ns, offset=len(data), max_bytes=self._most, **wanted
            )
            answer = self.values.GetValue(request, timeout=60)
            assert answer.found
            assert answer.data
            data += answer.data
        return data

    def read_what_is_there(self, draft: Draft) -> None:
        """A draft's checkpoint or its task writes may have been refused: the other can be read."""
        if found := self._list(draft, thread_id=draft.thread_id, all_namespaces=True):
            self.read_back(replace(draft, writes=len(found[0].pending_writes)))

    def assert_nothing_of(self, draft: Draft) -> None:
        """The checkpoint isn't stored; those before it may be."""
        assert not self._list(draft, thread_id=draft.thread_id[: self.limits.max_thread_id_bytes], all_namespaces=True)


def _base_version(draft: Draft, number: int) -> str:
    return f"s{number}".ljust(len(draft.version), ".") if len(draft.version) > 5 else f"sb{number}"


@pytest.fixture(scope="module")
def small(postgres_cluster: PostgresCluster) -> Iterator[Place]:
    """A server with small limits."""
    with LocalServer(postgres_cluster.dsn(postgres_cluster.create_migrated_database()), limits=SMALL) as server:
        yield Place(server.target, SMALL)


def taken_to(names: set[str], limits: Limits, beyond: str = "") -> Draft:
    """Returns a draft that is at some limits, and one beyond `beyond`."""
    draft = Draft(limits)
    for name, take in WRITES.items():
        if name in names:
            take(draft, getattr(limits, name) + (name == beyond))
    return draft


@pytest.mark.parametrize("name", WRITES)
def test_what_is_at_a_limit_can_be_read(small: Place, name: str) -> None:
    draft = taken_to({name}, SMALL)
    small.write(draft)
    small.read_back(draft)


@pytest.mark.parametrize("name", [name for name in WRITES if name not in UNREFUSED])
def test_what_is_beyond_is_refused_and_not_stored(small: Place, name: str) -> None:
    draft = taken_to({name}, SMALL, name)
    told = rf"\b{getattr(SMALL, name) + (name == 'max_channel_version_bytes')}\b"  # the tag counts, too
    if name in OF_READS:
        small.write(draft)
        with pytest.raises(Refused, match=told), refusals():
            small.read_back(draft)
        return
    with pytest.raises(Refused, match=told):
        small.write(draft)
    small.assert_nothing_of(draft)


@pytest.mark.long
@given(names=st.sets(st.sampled_from(sorted(WRITES)), min_size=2, max_size=8))
def test_so_can_what_is_at_many_limits_or_it_is_refused(small: Place, names: set[str]) -> None:
    if any(pair <= names for pair in AGAINST_ANOTHER):
        return
    draft = taken_to(names, SMALL)
    try:
        small.write(draft)
    except Refused:
        small.read_what_is_there(draft)
    else:
        small.read_back(draft)


@pytest.mark.long
@pytest.mark.parametrize("name", WRITES)
def test_at_the_limits_that_a_server_has_by_itself(postgres_cluster: PostgresCluster, name: str) -> None:
    limits = Limits(max_value_bytes=16 * KIBIBYTE * KIBIBYTE).fitting()
    with LocalServer(postgres_cluster.dsn(postgres_cluster.create_migrated_database()), limits=limits) as server:
        place = Place(server.target, limits)
        draft = taken_to({name}, limits)
        place.write(draft)
        place.read_back(draft)
