"""Serialization of values, and the metadata that the server may see."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import ormsgpack
from langgraph.checkpoint.grpc._encryption.aad import AssociatedData
from langgraph.checkpoint.grpc.encryption import Encryption, refuse_sealed
from langgraph.checkpoint.grpc.errors import CheckpointdError, CorruptValueError, InvalidArgumentError
from langgraph.checkpoint.grpc.portable import PortableSerializer, SerializerMismatchError, family_name
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import values_pb2 as values_pb

LANGGRAPH_KEYS = frozenset(
    {"source", "step", "run_id", "parents", "counters_since_delta_snapshot", "delta_writes_versioned"}
)
"""Keys of metadata that LangGraph itself writes. The server always sees them, to prune and to delete runs."""

_EXACTLY = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
"""Options that raise TypeError for values that msgpack wouldn't restore exactly."""

_OWN_TYPES = frozenset({"msgpack", "null", "bytes", "bytearray"})
"""The type tags of LangGraph's own serializer."""

PlaceOf = tuple[Callable[..., AssociatedData], *tuple[Any, ...]]
"""A place's constructor and arguments: without encryption, places are constructed only for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueSerde:
    """Serializes a saver's values, and back."""

    serde: SerializerProtocol
    """The serializer."""
    encryption: Encryption | None = None
    """The encryption of the serialized bytes, if any."""
    searchable_metadata: frozenset[str] | None = None
    """The keys of the metadata that the server may see and search, besides LangGraph's own. None: all, or none if
    metadata is encrypted."""

    def dump(self, value: Any) -> tuple[str, bytes]:
        """Returns a value's type and serialized bytes. They are a copy: a bytearray may change while it is sent."""
        type_tag, data = self.serde.dumps_typed(value)
        return type_tag, data if type(data) is bytes else bytes(data)

    def load(self, type_tag: str, data: bytes, place: PlaceOf) -> Any:
        """Returns the value of serialized bytes. Raises CorruptValueError.

        Args:
            type_tag: The serializer's type.
            data: The serialized bytes.
            place: Where they were found.
        """
        try:
            return self.serde.loads_typed((type_tag, data))
        except CheckpointdError as error:
            raise CorruptValueError(f"{_made(place).place} of thread {_made(place).thread_id!r}: {error}") from error
        except Exception as error:  # custom serializers may raise anything
            found = _made(place)
            raise CorruptValueError(
                f"{found.place} of thread {found.thread_id!r} can't be read by this saver's serializer "
                f"({type(error).__name__}): it was stored by another one, or changed since"
            ) from error

    def load_in(self, channel: str, type_tag: str, data: bytes, place: PlaceOf) -> Any:
        """Returns the value of a channel, or of a task's write to one, as `load` does."""
        value = self.load(type_tag, data, place)
        serde = _unwrapped(self.serde)
        return serde.restored(channel, value) if isinstance(serde, PortableSerializer) else value

    def load_metadata(self, type_tag: str, data: bytes, place: PlaceOf, thread_id: str) -> Any:
        """Returns a checkpoint's metadata, whose type shows which serializer wrote the thread.

        Args:
            type_tag: The serializer's type.
            data: The serialized bytes.
            place: Where they were found.
            thread_id: The thread.

        Raises:
            SerializerMismatchError: Another kind of serializer did.
            CorruptValueError: They can't be read.
        """
        serde, kind = _unwrapped(self.serde), type_tag
        if serde is not self.serde:
            kind = type_tag.partition("+")[0]
        if isinstance(serde, PortableSerializer):
            is_own = kind == "json"
        elif isinstance(serde, JsonPlusSerializer) and type(serde).loads_typed is JsonPlusSerializer.loads_typed:
            # It reads "json" too, but LangGraph.js means something else by it.
            is_own = kind in _OWN_TYPES or (kind == "pickle" and serde.pickle_fallback)
        else:
            is_own = not isinstance(serde, JsonPlusSerializer) or kind != "json"
        if not is_own:
            raise SerializerMismatchError(thread_id, type_tag)
        try:
            return self.load(type_tag, data, place)
        except CorruptValueError as error:
            if family_name(type_tag) == family_name(self.serde.dumps_typed({})[0]):
                raise
            raise SerializerMismatchError(thread_id, type_tag) from error

    @property
    def family(self) -> values_pb.SerializerFamily:
        """The serializer family for the server."""
        serde = _unwrapped(self.serde)
        if isinstance(serde, PortableSerializer):
            return values_pb.SERIALIZER_FAMILY_LANGGRAPH_JSON
        if type(serde).dumps_typed is JsonPlusSerializer.dumps_typed:
            return values_pb.SERIALIZER_FAMILY_LANGGRAPH_MSGPACK
        return values_pb.SERIALIZER_FAMILY_OTHER

    def seal(self, type_tag: str, data: bytes, place: AssociatedData) -> tuple[str, bytes]:
        """Returns serialized bytes as they are stored in a place, perhaps encrypted."""
        return (type_tag, data) if self.encryption is None else self.encryption.seal(type_tag, data, place)

    def open(self, type_tag: str, data: bytes, place: PlaceOf) -> tuple[str, bytes]:
        """Returns the serializer's type and bytes of a stored value, perhaps decrypted. Raises EncryptionError."""
        if self.encryption is not None:
            return self.encryption.open(type_tag, data, _made(place))
        if "+" in type_tag:
            refuse_sealed(type_tag, _made(place))
        return type_tag, data

    def stored_type(self, type_tag: str) -> str:
        """Returns the type that a value is stored with."""
        return type_tag if self.encryption is None else self.encryption.sealed_type(type_tag)

    def searchable(self, encrypted: bool) -> frozenset[str] | None:
        """Returns the metadata's keys that the server may see; None: all of them.

        Args:
            encrypted: Whether the metadata itself is.
        """
        if self.searchable_metadata is None and not encrypted:
            return None
        return LANGGRAPH_KEYS.union(self.searchable_metadata or ())

    @property
    def encrypts(self) -> bool:
        """True if what this saver stores is encrypted, by itself or by its serializer."""
        return self.encryption is not None or is_encrypted(self.serde.dumps_typed({})[0])


def pack_exactly(value: Any) -> bytes | None:
    """Returns plain data as msgpack. None: msgpack wouldn't restore it exactly."""
    try:
        return ormsgpack.packb(value, option=_EXACTLY)
    except TypeError:
        return None


def _unwrapped(serde: SerializerProtocol) -> SerializerProtocol:
    """Returns the serializer inside an encrypting one, or itself."""
    return serde.serde if isinstance(serde, EncryptedSerializer) else serde


def _made(place: PlaceOf) -> AssociatedData:
    return place[0](*place[1:])


def searchable_keys(given: Collection[str] | None) -> frozenset[str] | None:
    """Returns the keys that a saver was given as `searchable_metadata`."""
    if given is None:
        return None
    if isinstance(given, str) or not all(isinstance(key, str) for key in given):
        raise InvalidArgumentError(
            'searchable_metadata: must be a collection of keys, like {"user_id"}', field="searchable_metadata"
        )
    return frozenset(given)


def is_encrypted(type_tag: str) -> bool:
    """Returns whether a tag means encrypted bytes: EncryptedSerializer's are "type+cipher", and so are ours."""
    return "+" in type_tag
