"""Values of an answer: rows that are whole or patches, assembled with cached values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from zlib import crc32

from langgraph.checkpoint.grpc._convert.serde import PlaceOf, ValueSerde
from langgraph.checkpoint.grpc._encryption.aad import (
    AssociatedData,
    ChannelAssociatedData,
    PatchAssociatedData,
    PatchedWriteAssociatedData,
)
from langgraph.checkpoint.grpc._values.cache import CachedValue, Key
from langgraph.checkpoint.grpc._values.instructions import MAX_VALUE_BYTES, apply, compose
from langgraph.checkpoint.grpc._values.outgoing import CRC_BYTES, REPLACED, ROW_BYTES
from langgraph.checkpoint.grpc._values.transfer import LeftOut
from langgraph.checkpoint.grpc.errors import CorruptValueError

from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values

MAX_CHAIN = 1024
"""Maximum length of a chain of patches. Servers accept far fewer."""

At = tuple[str, str]
"""A channel and a version of it."""

AT_ONCE_BYTES = 1024 * 1024
"""Size from which patches are applied as one, in bytes. Each that is applied by itself copies all of the value."""
KEPT_BYTES = 32 * 1024 * 1024
"""Maximum size of assembled values kept while an answer is read, in bytes: chains share their beginnings."""


class ValueRows:
    """The rows of one namespace in an answer.

    Args:
        serde: Decrypts them.
        key: The namespace.
        rows: The rows.
        known: Cached values, by channel. If the answer has a value too, it is a different one.
        kept_bytes: The maximum size of values that are kept as bases, in bytes.
    """

    def __init__(
        self,
        serde: ValueSerde,
        key: Key,
        rows: Iterable[values.StoredValue] = (),
        known: Mapping[str, CachedValue] | None = None,
        *,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._serde = serde
        self._key = key
        self._rows = {(row.channel, row.version): row.value for row in rows}
        self._known = known or {}
        self._some_left_out = any(value.HasField("parts") for value in self._rows.values())
        self._fetched: dict[At, bytes] = {}
        self._opened: dict[At, CachedValue] = {}
        self._opened_bytes = 0
        self._kept_bytes = kept_bytes
        self._last: dict[str, CachedValue] = {}
        """The last requested value of each channel: a checkpoint's task writes build on its values."""

    def left_out(self, versions: Iterable[At]) -> dict[At, LeftOut]:
        """Returns the rows of channels' versions whose bytes were left out."""
        found: dict[At, LeftOut] = {}
        if self._some_left_out:
            for at in itertools.chain.from_iterable([self._chain(*version) for version in versions]):
                value = self._rows[at]
                if value.HasField("parts") and at not in self._fetched:
                    request = values_pb.GetValueRequest(
                        thread_id=self._key[0], checkpoint_ns=self._key[1], patches=True
                    )
                    request.channel_value.channel, request.channel_value.version = at
                    found[at] = LeftOut(request, value.parts.size)
        return found

    def take(self, at: At, data: bytes) -> None:
        """Adds the bytes of a row that were left out."""
        self._fetched[at] = data

    def let_go(self) -> None:
        """Drops fetched bytes, once their checkpoint has been read."""
        self._fetched.clear()

    def value(self, channel: str, version: str) -> CachedValue | None:
        """Returns a channel's value at a version. None: the channel is empty.

        Raises CorruptValueError, EncryptionError.
        """
        found = self._have(channel, version)
        if found is not None or (row := self._rows.get((channel, version))) is None:
            return found
        if not row.HasField("patch"):
            found = self._open((channel, version), None)
        else:
            chain = self._chain(channel, version)
            first = self._rows[chain[-1]]
            base = self._have(channel, first.patch.base_version) if first.HasField("patch") else None
            if base is None:
                base = self._open(chain.pop(), None)
            found = self._open_at_once(chain, base)
            if found is None:
                found = base
                while chain:
                    found = self._open(chain.pop(), found)
        self._last[channel] = found
        return found

    def write(self, place: PlaceOf, channel: str, stored: values.TypedValue, payload: bytes) -> tuple[str, bytes]:
        """Returns the type and the decrypted bytes of a task write. Raises CorruptValueError, EncryptionError.

        Args:
            place: Its WriteAssociatedData.
            channel: The channel that was written to.
            stored: The stored write.
            payload: Its bytes, even if the answer left them out.
        """
        if not stored.HasField("patch"):
            return self._serde.open(stored.type, payload, place)
        base = self.value(channel, stored.patch.base_version)
        if base is None:
            raise self._corrupt(channel, "what a task's write to it builds on is missing")

        def patched_place(base_version: str, digest: bytes) -> AssociatedData:
            return PatchedWriteAssociatedData(place[0](*place[1:]), base_version, stored.patch.size, digest)

        type_tag, data, _ = self._apply(channel, stored, payload, base, patched_place)
        return type_tag, data

    def _chain(self, channel: str, version: str) -> list[At]:
        """Returns the rows to decrypt for a value, the last first."""
        chain: list[At] = []
        while self._have(channel, version) is None and (row := self._rows.get((channel, version))) is not None:
            chain.append((channel, version))
            if not row.HasField("patch"):
                break
            if len(chain) > MAX_CHAIN:
                raise self._corrupt(channel, "its chain of patches doesn't end")
            version = row.patch.base_version
        return chain

    def _have(self, channel: str, version: str) -> CachedValue | None:
        """Returns a version that is assembled already."""
        at = (channel, version)
        if at in self._rows:
            last = self._last.get(channel)
            return last if last is not None and last.version == version else self._opened.get(at)
        known = self._known.get(channel)
        return known if known is not None and known.version == version else None

    def _open(self, at: At, base: CachedValue | None) -> CachedValue:
        """Decrypts a row, after its base."""
        stored = self._rows[at]
        if stored.HasField("patch"):
            if base is None:
                raise self._corrupt(at[0], "what its value builds on is missing")
            return self._keep(at[0], self._patched(at, stored, base))
        stored_type, payload = stored.type, self._payload(at)
        place = (ChannelAssociatedData, *self._key, at[0], _as_put(at[1]))
        type_tag, data = self._serde.open(stored_type, payload, place)
        # It was sealed and could be decrypted, so it is what was stored.
        if (checksum := stored.crc32) and data is payload and crc32(data) != checksum:
            raise self._corrupt(at[0], "its value isn't what was stored: its checksum differs")
        return self._keep(at[0], CachedValue(at[1], type_tag, stored_type, checksum, data))

    def _open_at_once(self, chain: list[At], base: CachedValue) -> CachedValue | None:
        """Decrypts the rows of a chain, the last first, and applies them as one patch.

        Returns:
            None where that isn't worthwhile, or can't be: sealed patches are bound to the bytes that they are made on.
        """
        if len(chain) < 2 or self._rows[chain[0]].patch.size < AT_ONCE_BYTES:
            return None
        if any(self._rows[at].patch.sealed for at in chain):
            return None
        patches: list[bytes] = []
        version, chain_bytes = base.version, base.chain_bytes
        for at in reversed(chain):
            stored, payload = self._rows[at], self._payload(at)
            type_tag, instructions, checksum = self._read(at[0], stored, payload, version, b"", self._place(at, stored))
            patches.append(instructions)
            version = at[1]
            chain_bytes += len(payload) + ROW_BYTES
        # From here on, they are those of the last.
        composed = compose(patches, stored.patch.size)
        if composed is None:
            return None
        data = apply(base.data, composed, stored.patch.size, checksum)
        made = base.with_patch(patches[0])
        made = made._replace(patches=(*made.patches, *patches[1:]))
        return self._keep(at[0], CachedValue(version, type_tag, stored.type, checksum, data, made, chain_bytes))

    def _payload(self, at: At) -> bytes:
        """Returns the bytes of a row, even if the answer left them out."""
        stored = self._rows[at]
        payload = self._fetched.get(at) if stored.HasField("parts") else stored.data
        if payload is None:
            raise self._corrupt(at[0], "bytes of its value are missing")
        return payload

    def _keep(self, channel: str, opened: CachedValue) -> CachedValue:
        """Keeps a value as the base of others, if there is room."""
        if self._opened_bytes + len(opened.data) <= self._kept_bytes:
            self._opened[channel, opened.version] = opened
            self._opened_bytes += len(opened.data)
        return opened

    def _patched(self, at: At, stored: values.TypedValue, base: CachedValue) -> CachedValue:
        payload = self._payload(at)
        type_tag, data, instructions = self._apply(at[0], stored, payload, base, self._place(at, stored))
        chain, chain_bytes = base.with_patch(instructions), base.chain_bytes + len(payload) + ROW_BYTES
        return CachedValue(at[1], type_tag, stored.type, stored.patch.crc32, data, chain, chain_bytes)

    def _place(self, at: At, stored: values.TypedValue) -> Callable[[str, bytes], AssociatedData]:
        """Returns the place of a patch, of its base's version and digest."""

        def place(base_version: str, digest: bytes) -> AssociatedData:
            return PatchAssociatedData(*self._key, at[0], _as_put(at[1]), base_version, stored.patch.size, digest)

        return place

    def _apply(
        self,
        channel: str,
        stored: values.TypedValue,
        payload: bytes,
        base: CachedValue,
        place: Callable[[str, bytes], AssociatedData],
    ) -> tuple[str, bytes, bytes]:
        """Returns the type and bytes of a patch's result, and its instructions.

        `place`: its place, of its base's version and digest.
        """
        digest = base.digest if stored.patch.sealed else b""
        type_tag, instructions, checksum = self._read(channel, stored, payload, base.version, digest, place)
        return type_tag, apply(base.data, instructions, stored.patch.size, checksum), instructions

    def _read(
        self,
        channel: str,
        stored: values.TypedValue,
        payload: bytes,
        base_version: str,
        digest: bytes,
        place: Callable[[str, bytes], AssociatedData],
    ) -> tuple[str, bytes, int]:
        """Returns the type of a patch's result, its instructions, and the result's checksum.

        `digest`: that of the base's bytes, where the patch is sealed.
        """
        patch = stored.patch
        if not 0 <= patch.size <= MAX_VALUE_BYTES:
            raise self._corrupt(channel, f"its value has {patch.size} bytes, where {MAX_VALUE_BYTES} are the most")
        # Unsealed values pass through decryption, too, which refuses them if encryption is required.
        type_tag, instructions = self._serde.open(stored.type, payload, (place, _as_put(base_version), digest))
        if not patch.sealed:
            return type_tag, instructions, patch.crc32
        return type_tag, instructions[CRC_BYTES:], int.from_bytes(instructions[:CRC_BYTES])

    def _corrupt(self, channel: str, what: str) -> CorruptValueError:
        return CorruptValueError(f"channel {channel!r} of thread {self._key[0]!r}: {what}")


def _as_put(version: str) -> str:
    """Returns the version that a row was put with: something is behind it if other bytes have replaced it since."""
    return version.partition(REPLACED)[0]
