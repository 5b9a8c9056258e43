"""Families of serializers: which readers a value is for, as far as its type tag tells.

LangGraph for Python and LangGraph.js can't read each other's values. A thread keeps the family of its first write that
tells one, and writes of the other are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache


class SerializerFamily(IntEnum):
    """A family. The numbers are those of the database and of the protocol."""

    LANGGRAPH_MSGPACK = 1
    """LangGraph for Python's own."""
    LANGGRAPH_JSON = 2
    """That of LangGraph.js, and of PortableSerializer in Python."""
    OTHER = 3
    """Somebody's own. Nothing is refused to it, nor on its account: it may read anything."""

    @property
    def label(self) -> str:
        """Its name in errors and for people, e.g. "langgraph-msgpack"."""
        return self.name.lower().replace("_", "-")


_FAMILIES = {
    "msgpack": SerializerFamily.LANGGRAPH_MSGPACK,
    "pickle": SerializerFamily.LANGGRAPH_MSGPACK,
    "json": SerializerFamily.LANGGRAPH_JSON,
    # These say nothing: serializers of any family write them, each for a kind of value.
    "null": None,
    "bytes": None,
    "bytearray": None,
}


@lru_cache(maxsize=256)
def family_of_metadata(type_tag: str) -> SerializerFamily | None:
    """Returns the family that gives a checkpoint's metadata this type. None: it isn't told.

    Metadata is always a map, for which each of LangGraph's serializers has one type. What encrypts it stands behind a
    "+", and changes no family.
    """
    return _FAMILIES.get(type_tag.partition("+")[0], SerializerFamily.OTHER)


def family_of_writes(type_tags: Iterable[str]) -> SerializerFamily | None:
    """Returns the family of values of these types, whose writer doesn't tell. None: they don't tell either.

    LangGraph for Python reads values of type "json" too, whatever else is in the thread: only its own types tell.
    """
    own = SerializerFamily.LANGGRAPH_MSGPACK
    return own if any(family_of_metadata(type_tag) is own for type_tag in type_tags) else None
