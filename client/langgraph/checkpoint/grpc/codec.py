"""From values to what is stored, and back: serialization, then encryption. And what the server may see of metadata."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.grpc.bindings import Binding
from langgraph.checkpoint.grpc.encryption import Encryption, refuse_sealed
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.grpc.pieces import NOTHING, Contents
from langgraph.checkpoint.serde.base import SerializerProtocol

from checkpointd.v1 import values_pb2 as values

LANGGRAPH_KEYS = frozenset(
    {"source", "step", "run_id", "parents", "counters_since_delta_snapshot", "delta_writes_versioned"}
)
"""What LangGraph itself writes into metadata. The server always sees it: pruning and the deletion of runs go by it."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How a saver turns values into bytes."""

    serde: SerializerProtocol
    """The serializer."""
    encryption: Encryption | None = None
    """What encrypts the serialized bytes; None: nothing does."""
    searchable_metadata: frozenset[str] | None = None
    """Which of the metadata's keys the server may see and search, beside LangGraph's own; None: all of them, or none
    where metadata is encrypted."""
    contents: Contents = NOTHING
    """The pieces of the values that are to be loaded."""

    def dump(self, value: Any, binding: Binding) -> tuple[str, bytes]:
        """Returns a value's type and bytes, as they are to be stored in a place.

        The bytes are a copy of their own: a bytearray may change while it is sent.
        """
        type_tag, data = self.serde.dumps_typed(value)
        if type(data) is not bytes:
            data = bytes(data)
        return (type_tag, data) if self.encryption is None else self.encryption.seal(type_tag, data, binding)

    def load(self, stored: values.TypedValue, binding: Binding) -> Any:
        """Returns the value that was found in a place. Raises EncryptionError, DamagedValueError."""
        data = self.contents.bytes_of(stored)
        if self.encryption is not None:
            return self.serde.loads_typed(self.encryption.open(stored.type, data, binding))
        refuse_sealed(stored.type, binding)
        return self.serde.loads_typed((stored.type, data))

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
        """Whether what this saver stores is encrypted, by itself or by its serializer."""
        return self.encryption is not None or is_encrypted(self.serde.dumps_typed({})[0])


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
    """Whether a tag says that the bytes are encrypted: EncryptedSerializer's are "type+cipher", and so are ours."""
    return "+" in type_tag
