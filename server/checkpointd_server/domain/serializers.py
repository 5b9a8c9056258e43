"""Families of serializers, as far as a value's type tag shows them.

LangGraph for Python and LangGraph.js can't read each other's values. A thread keeps the first family that a write
shows, and writes of the other family are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache


class SerializerFamily(IntEnum):
    """A family. The database and the protocol use these numbers."""

    LANGGRAPH_MSGPACK = 1
    """LangGraph for Python's own serializer."""
    LANGGRAPH_JSON = 2
    """The serializer of LangGraph.js, and PortableSerializer in Python."""
    OTHER = 3
    """A custom serializer. Its writes are never refused, nor others because of them: it may read anything."""

    @property
    def label(self) -> str:
        """Its name in errors and for people, e.g. "langgraph-msgpack"."""
        return self.name.lower().replace("_", "-")


_FAMILIES = {
    "msgpack": SerializerFamily.LANGGRAPH_MSGPACK,
    "pickle": SerializerFamily.LANGGRAPH_MSGPACK,
    "json": SerializerFamily.LANGGRAPH_JSON,
    # Serializers of any family write these types, each for a kind of value.
    "null": None,
    "bytes": None,
    "bytearray": None,
}


@lru_cache(maxsize=256)
def family_of_metadata(type_tag: str) -> SerializerFamily | None:
    """Returns the family that gives a checkpoint's metadata this type. None: unknown.

    Metadata is always a map, for which each of LangGraph's serializers has one type. The cipher follows a "+", and
    doesn't change the family.
    """
    return _FAMILIES.get(type_tag.partition("+")[0], SerializerFamily.OTHER)


def family_of_writes(type_tags: Iterable[str]) -> SerializerFamily | None:
    """Returns the family of values of these types, if their writer doesn't state it. None: unknown.

    LangGraph for Python reads values of type "json" too, whatever else is in the thread: only its own types tell.
    """
    own = SerializerFamily.LANGGRAPH_MSGPACK
    return own if any(family_of_metadata(type_tag) is own for type_tag in type_tags) else None
