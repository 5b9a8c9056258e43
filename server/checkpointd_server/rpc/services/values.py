"""ValueService: values that are too large for one message."""

from __future__ import annotations

from checkpointd.v1 import value_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.values import ChannelValueKey, TaskWriteKey
from checkpointd_server.rpc.conversion.validation import check_text, check_version, read_namespace
from checkpointd_server.rpc.conversion.values import check_upload_id
from checkpointd_server.rpc.conversion.wire import encode_varint
from checkpointd_server.rpc.values.ranges import RangeReader

_AROUND_DATA = 1024
"""Bytes of a message that are reserved for everything but a value's bytes."""
_DATA_TAG = bytes([pb.GetValueResponse.DESCRIPTOR.fields_by_name["data"].number << 3 | 2])


class ValueServicer:
    """Stores and reads large values. Each method takes a request and returns the encoded response."""

    def __init__(self, store: CheckpointStore, limits: Limits, reader: RangeReader) -> None:
        self._store = store
        self._limits = limits
        self._reader = reader

    async def put_part(self, request: pb.PutPartRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores a part of an upload."""
        limits, data, offset = self._limits, request.data, request.offset
        check_text(request.thread_id, "thread_id", limits.max_thread_id_bytes)
        check_upload_id(request.upload_id, "upload_id")
        if not 0 < len(data) <= limits.max_part_bytes:
            limit = limits.max_part_bytes
            raise InvalidArgument("data", f"has {len(data)} bytes, 1 to {limit} are allowed", limit=limit)
        if not 0 <= offset <= limits.max_value_bytes - len(data):
            limit = limits.max_value_bytes
            raise InvalidArgument("offset", f"is {offset}: a value has at most {limit} bytes", limit=limit)
        await self._store.put_part(tenant, request.thread_id, request.upload_id, offset, data, timeout=timeout)
        return pb.PutPartResponse().SerializeToString()

    async def get_value(self, request: pb.GetValueRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads a range of a value."""
        namespace = read_namespace(tenant, request.thread_id, request.checkpoint_ns, self._limits)
        key = self._read_key(request)
        offset, wanted = request.offset, request.max_bytes
        if offset < 0:
            raise InvalidArgument("offset", "is negative")
        if wanted < 0:
            raise InvalidArgument("max_bytes", "is negative")
        most = self._limits.max_message_bytes - _AROUND_DATA
        wanted = min(wanted or self._limits.max_inline_bytes, most)
        if request.patches:
            stored = await self._store.get_value(namespace, key, offset=offset, max_bytes=wanted, timeout=timeout)
            if stored is None:
                return pb.GetValueResponse().SerializeToString()
            return _encode(stored.data, pb.GetValueResponse(size=stored.size, found=True))
        found = await self._reader.read(namespace, key, offset=offset, max_bytes=wanted, timeout=timeout)
        if found is None:
            return pb.GetValueResponse().SerializeToString()
        data, size, checksum = found
        return _encode(data, pb.GetValueResponse(size=size, found=True, crc32=checksum))

    def _read_key(self, request: pb.GetValueRequest) -> ChannelValueKey | TaskWriteKey:
        """Returns the value that a request names."""
        limits, kind = self._limits, request.WhichOneof("value")
        if kind == "channel_value":
            channel, version = request.channel_value.channel, request.channel_value.version
            check_text(channel, "channel_value.channel", limits.max_channel_bytes)
            check_version(version, "channel_value.version", limits.max_channel_version_bytes + 1)
            return ChannelValueKey(channel, version)
        if kind == "task_write":
            write = request.task_write
            check_text(write.checkpoint_id, "task_write.checkpoint_id", limits.max_checkpoint_id_bytes)
            check_text(write.task_id, "task_write.task_id", limits.max_task_id_bytes)
            return TaskWriteKey(write.checkpoint_id, write.task_id, write.idx)
        raise InvalidArgument("value", "is required: set channel_value or task_write")


def _encode(data: bytes, rest: pb.GetValueResponse) -> bytes:
    """Returns an encoded response with these bytes.

    They are copied once. A message object would copy them when set and when encoded, and each copy of the
    largest answer blocks the event loop for some 50 ms.
    """
    if not data:
        return rest.SerializeToString()
    return b"".join((rest.SerializeToString(), _DATA_TAG, encode_varint(len(data)), data))
