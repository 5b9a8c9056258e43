"""Outgoing puts: values whole or as patches, in the message or uploaded before it.

The serialized bytes are kept until the put is stored: if the server lacks the base of a patch, the put is built again
with whole values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from langgraph.checkpoint.grpc._convert.serde import ValueSerde, is_encrypted
from langgraph.checkpoint.grpc._encryption.aad import (
    ChannelAssociatedData,
    PatchAssociatedData,
    PatchedWriteAssociatedData,
    WriteAssociatedData,
)
from langgraph.checkpoint.grpc._values.cache import SMALLEST_BYTES, CachedValue, Chain, ValueCache
from langgraph.checkpoint.grpc._values.checksum import Checksum
from langgraph.checkpoint.grpc._values.instructions import apply, compose
from langgraph.checkpoint.grpc._values.patches import MAX_INSTRUCTIONS, diff
from langgraph.checkpoint.grpc.errors import InvalidArgumentError

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values

MESSAGE_BYTES = 1024 * 1024
"""Maximum size of values in a put's message, in bytes. The others are uploaded before, the largest first."""
PART_BYTES = 1024 * 1024 - 4096
"""Size of a part of a value, in bytes: its message has 1 MiB."""
OFFLOADED_BYTES = 1024 * 1024
"""Size from which values are compared and encrypted outside an event loop, in bytes."""
MAX_DEPTH = 40
"""Maximum length of a chain of patches. Then one patch replaces all of them, if it is small enough."""

Place = ChannelAssociatedData | WriteAssociatedData

MAX_ALL_INSTRUCTIONS = 65_536
"""Maximum number of instructions that a server accepts in all patches of a put. Each has two bytes or more."""

_MAX_PATCHES = MAX_ALL_INSTRUCTIONS // MAX_INSTRUCTIONS
SMALLEST_WRITE = 4096
"""Size from which a task write is compared with its channel's value, in bytes."""
_SMALLEST_UPLOAD = 4096
_TRIES = 10
"""Number of attempts of a put whose uploads were deleted before it arrived."""
CRC_BYTES = 4
"""Precedes the instructions of an encrypted patch: the CRC-32 of the value, big-endian."""
ROW_BYTES = 64
"""The size of a patch without its instructions."""
REPLACED = "\x1f"
"""Stands in the version of a value that another one has replaced, behind the version that it was put with."""


class _Value:
    """An outgoing value: its message in the request, and its bytes."""

    __slots__ = ("_made_of", "cached", "data", "message", "payload", "place", "type", "upload_id")

    def __init__(self, message: values.TypedValue, place: Place, type_tag: str, data: bytes) -> None:
        self.message = message
        self.place = place
        self.type = type_tag
        self.data = data
        self.payload = b""
        """The bytes to store: as they are or encrypted, of the value or of a patch."""
        self.upload_id = b""
        """Not empty: the payload is uploaded before the put."""
        self.cached: CachedValue | None = None
        self._made_of: tuple[bytes, bytes, int, int] | None = None

    def shed(self, base: bytes, instructions: bytes, checksum: int) -> int:
        """Drops its bytes, which can be computed from a patch and a shared base. Returns the saved memory in bytes."""
        size, self.data = len(self.data), b""
        self._made_of = (base, instructions, size, checksum)
        return size - len(instructions)

    def restore(self) -> int:
        """Computes its bytes again, if it has dropped them. Returns the additional memory in bytes."""
        if self._made_of is None:
            return 0
        instructions = self._made_of[1]
        self.data, self._made_of = apply(*self._made_of), None
        return len(self.data) - len(instructions)


class _Patched(NamedTuple):
    """A value that is stored as a patch."""

    base_version: str
    base_crc32: int
    base_digest: bytes
    """Only where it is sealed."""
    base: bytes
    """The base's bytes, for a task write."""
    instructions: bytes
    chain: Chain | None
    """The patches that it is stored as. None: a task write, on which nothing builds."""
    chain_bytes: int
    """The size of those before it, in bytes."""


class Outgoing:
    """An outgoing put, or outgoing task writes.

    What sends it does, in this order: `flows.run(transfer.send_ahead(put), call)` if `put.goes_ahead`; `put.stage()`
    when it is handed to the pipeline; `put.discard()` if it failed, or its outcome isn't known. Where it failed with
    BaseMissingError, and `put.make_whole()` returns True: all of this again. See `transfer.send`.

    Args:
        serde: Serializes and encrypts.
        cache: Has the versions that patches are made on.
        request: Names thread and namespace; the values are added to it.
    """

    request: pb.PutCheckpointRequest | pb.PutWritesRequest
    """The request to send. Precondition, writer and lease are for the sender to fill in, at any time."""

    def __init__(
        self, serde: ValueSerde, cache: ValueCache, request: pb.PutCheckpointRequest | pb.PutWritesRequest
    ) -> None:
        self.key = (request.thread_id, request.checkpoint_ns)
        self.size = 0
        """Its size in bytes: that of the serialized values."""
        self._serde = serde
        self._cache = cache
        self._values: list[_Value] = []
        self._is_prepared = False
        self._has_uploads = False
        self._is_staged = False
        self._patches = True
        self._tries = _TRIES

    @property
    def goes_ahead(self) -> bool:
        """True if something must be done before the request can be sent: see `transfer.send_ahead`."""
        return not self._is_prepared or self._has_uploads

    def prepare_small(self) -> None:
        """Calls `prepare`, unless that takes long."""
        if self.size <= OFFLOADED_BYTES:
            self.prepare()

    def prepare(self) -> None:
        """Writes the values into the request, whole or as patches, and separates the largest."""
        if self._is_prepared:
            return
        if not self._values:
            self._is_prepared = True
            return
        inline = 0
        for value in self._values:
            self._fill(value)
            inline += len(value.payload)
        self._bound_instructions()
        if inline > MESSAGE_BYTES:
            self._move_ahead(inline)
        for value in self._values:
            if not value.upload_id:
                value.message.data = value.payload
                # Bytes that are in the request needn't be kept twice.
                value.payload = b""
        self._is_prepared = True

    def parts(self) -> Iterator[values_pb.PutPartRequest]:
        """Yields the requests of uploads, built one by one when needed.

        A value's last part comes first: the server refuses it at once if the value is too large.
        """
        for value in self._values:
            if value.upload_id:
                view = memoryview(value.payload)
                for offset in reversed(range(0, len(view), PART_BYTES)):
                    yield values_pb.PutPartRequest(
                        thread_id=self.key[0],
                        upload_id=value.upload_id,
                        offset=offset,
                        data=bytes(view[offset : offset + PART_BYTES]),
                    )

    def refusal(self, error: InvalidArgumentError) -> InvalidArgumentError:
        """Returns the error for a refused part, which names the too large value."""
        for value in self._values:
            size = len(value.payload)
            if value.upload_id and error.limit is not None and size > error.limit:
                return InvalidArgumentError(
                    f"value: channel {value.place.channel!r} has a value of {size} bytes, this server takes at most "
                    f"{error.limit} (its option --max-value-bytes)",
                    field="value",
                    limit=error.limit,
                )
        return error

    def sent_ahead(self) -> None:
        """Marks the uploads as stored."""
        self._has_uploads = False
        for value in self._values:
            value.upload_id, value.payload = b"", b""

    def stage(self) -> None:
        """Caches the values, so the next put may build on them, and they needn't be read."""
        self._is_staged = True
        for value in self._values:
            if value.cached is not None:
                self._cache.put(self.key, value.place.channel, value.cached)

    def discard(self) -> None:
        """Removes what `stage` has cached: nothing was stored, or that is unknown."""
        if self._is_staged:
            self._is_staged = False
            for value in self._values:
                if value.cached is not None:
                    self._cache.remove(self.key, value.place.channel, value.cached.version)

    def make_whole(self) -> bool:
        """Builds the request again, without patches and with new uploads.

        Returns:
            False if it has neither patches nor uploads, so that the server would refuse it again; or if it was made
            again so often that something else is wrong. Uploads go with their thread when that is deleted meanwhile.
        """
        if self._tries == 0 or not any(self._builds_on_more(value.message) for value in self._values):
            return False
        self.discard()
        self._tries -= 1
        self._patches = False
        for value in self._values:
            value.message.Clear()
            self.size += value.restore()
            value.cached = None
            value.upload_id = value.payload = b""
        self._is_prepared = self._has_uploads = False
        self.prepare_small()
        return True

    @staticmethod
    def _builds_on_more(message: values.TypedValue) -> bool:
        return message.HasField("patch") or message.HasField("parts")

    def _bound_instructions(self) -> None:
        """Makes patches whole beyond the number that a server surely accepts."""
        if len(self._values) <= _MAX_PATCHES:
            return
        patched = [value for value in self._values if value.message.HasField("patch")]
        if len(patched) > _MAX_PATCHES and sum(len(value.payload) for value in patched) > 2 * MAX_ALL_INSTRUCTIONS:
            for value in patched[_MAX_PATCHES:]:
                self._fill_whole(value)

    def _move_ahead(self, inline: int) -> None:
        """Separates the largest values from the request. `inline`: the size of all values in bytes."""
        for value in sorted(self._values, key=lambda value: len(value.payload), reverse=True):
            size = len(value.payload)
            if inline <= MESSAGE_BYTES or size < _SMALLEST_UPLOAD:
                break
            inline -= size
            if value.message.HasField("patch") and not value.message.patch.sealed:
                # The server reads instructions when they come.
                self._fill_whole(value)
            self._has_uploads = True
            value.upload_id = value.message.parts.upload_id = os.urandom(16)
            value.message.parts.size = len(value.payload)

    def _fill_whole(self, value: _Value, computed: Checksum | None = None) -> None:
        """Writes a value into its message, whole, but for the bytes, which become its payload."""
        value.message.Clear()
        self.size += value.restore()
        value.message.type, value.payload = self._serde.seal(value.type, value.data, value.place)
        if isinstance(value.place, ChannelAssociatedData) and len(value.data) >= SMALLEST_BYTES:
            checksum = computed.get() if computed is not None and value.payload is value.data else crc32(value.payload)
            value.message.crc32 = checksum
            value.cached = CachedValue(value.place.version, value.type, value.message.type, checksum, value.data)

    def _fill(self, value: _Value) -> None:
        """Writes a value into its message, as a patch if that is worthwhile."""
        base = self._base_of(value)
        if base is None:
            return self._fill_whole(value)
        data = value.data
        computed = Checksum(data) if len(data) >= OFFLOADED_BYTES else None
        made = self._patched(value, base)
        if made is None:
            return self._fill_whole(value, computed)
        place, patch = value.place, value.message.patch
        checksum = of_value = crc32(data) if computed is None else computed.get()
        patch.base_version, patch.base_crc32, patch.size = made.base_version, made.base_crc32, len(data)
        if self._serde.encryption is None:
            value.message.type, value.payload = value.type, made.instructions
        else:
            patch.sealed = True
            sealed = checksum.to_bytes(CRC_BYTES) + made.instructions
            value.message.type, value.payload = self._serde.seal(value.type, sealed, _patch_place(value, made))
            # The value's own would tell something of it.
            checksum = crc32(value.payload)
        patch.crc32 = checksum
        if made.chain is not None:
            assert isinstance(place, ChannelAssociatedData)
            chain_bytes = made.chain_bytes + len(value.payload) + ROW_BYTES
            value.cached = CachedValue(
                place.version, value.type, value.message.type, checksum, data, made.chain, chain_bytes
            )
        else:
            # Many of them may be in flight: LangGraph waits for none until its run ends.
            self.size -= value.shed(made.base, made.instructions, of_value)
        return None

    def _patched(self, value: _Value, base: CachedValue) -> _Patched | None:
        """Returns a value's patches. None: it differs too much, and is stored whole."""
        half = len(value.data) // 2 - ROW_BYTES
        is_write = isinstance(value.place, WriteAssociatedData)
        begins_anew = not is_write and base.depth >= MAX_DEPTH
        if begins_anew and not self._can_begin_anew(value.place, base):
            return None
        most = half if begins_anew else min(half, len(value.data) - base.chain_bytes - ROW_BYTES)
        instructions = diff(base.data, value.data, most) if most > 0 else None
        if instructions is None:
            return None
        digest = b"" if self._serde.encryption is None else base.digest
        if is_write:
            return _Patched(base.version, base.crc32, digest, base.data, instructions, None, 0)
        assert isinstance(value.place, ChannelAssociatedData)
        chain = base.with_patch(instructions)
        if not begins_anew:
            return _Patched(base.version, base.crc32, digest, base.data, instructions, chain, base.chain_bytes)
        # One patch replaces the whole chain.
        composed = compose(chain.patches, half)
        if composed is None:
            return None
        chain = chain._replace(patches=(composed,))
        return _Patched(chain.version, chain.crc32, chain.digest or b"", b"", composed, chain, 0)

    def _can_begin_anew(self, place: Place, base: CachedValue) -> bool:
        """Returns whether a patch on the version that the base's chain begins with can take the chain's place."""
        chain = base.chain
        assert chain is not None
        assert isinstance(place, ChannelAssociatedData)
        # A version that was replaced since has another name in its place.
        is_usable = chain.version != place.version and REPLACED not in chain.version
        return is_usable and (self._serde.encryption is None or chain.digest is not None)

    def _base_of(self, value: _Value) -> CachedValue | None:
        """Returns the base for a patch: the last version of the channel that was put or read.

        That isn't what is stored with another key, which would be needed for as long as the patch. Bytes that the
        serializer has encrypted have nothing in common.
        """
        place, size = value.place, len(value.data)
        smallest = SMALLEST_WRITE if isinstance(place, WriteAssociatedData) else SMALLEST_BYTES
        if not self._patches or size < smallest or is_encrypted(value.type):
            return None
        base = self._cache.get(self.key, place.channel)
        if base is None or base.stored_type != self._serde.stored_type(value.type):
            return None
        if isinstance(place, WriteAssociatedData):
            # Nothing builds on it. A much smaller write is usually an addition, which isn't in the base.
            return base if size >= len(base.data) // 2 else None
        return base if base.version != place.version else None


def _patch_place(value: _Value, made: _Patched) -> PatchAssociatedData | PatchedWriteAssociatedData:
    """Returns the place of a value that is stored as a patch."""
    if isinstance(value.place, WriteAssociatedData):
        return PatchedWriteAssociatedData(value.place, made.base_version, len(value.data), made.base_digest)
    return PatchAssociatedData(*value.place, made.base_version, len(value.data), made.base_digest)


class OutgoingCheckpoint(Outgoing):
    """An outgoing put of a checkpoint."""

    request: pb.PutCheckpointRequest

    def __init__(self, serde: ValueSerde, cache: ValueCache, request: pb.PutCheckpointRequest) -> None:
        super().__init__(serde, cache, request)
        self.request = request

    def add(self, channel: str, version: str, type_tag: str, data: bytes) -> None:
        """Adds a channel's value at a version, given as tagged text."""
        size = len(data)
        self.size += size
        if size < SMALLEST_BYTES and self._serde.encryption is None:
            self.request.values.add(channel=channel, version=version, value={"type": type_tag, "data": data})
        else:
            message = self.request.values.add(channel=channel, version=version).value
            place = ChannelAssociatedData(*self.key, channel, version)
            self._values.append(_Value(message, place, type_tag, data))


class OutgoingWrites(Outgoing):
    """Outgoing task writes."""

    request: pb.PutWritesRequest

    def __init__(self, serde: ValueSerde, cache: ValueCache, request: pb.PutWritesRequest) -> None:
        super().__init__(serde, cache, request)
        self.request = request

    def add(self, idx: int, channel: str, type_tag: str, data: bytes) -> None:
        """Adds a write."""
        request, size = self.request, len(data)
        self.size += size
        if size < SMALLEST_WRITE and self._serde.encryption is None:
            request.writes.add(idx=idx, channel=channel, value={"type": type_tag, "data": data})
        else:
            message = request.writes.add(idx=idx, channel=channel).value
            task = (request.checkpoint_id, request.task_id, request.task_path)
            place = WriteAssociatedData(*self.key, *task, idx, channel)
            self._values.append(_Value(message, place, type_tag, data))
