"""The metadata that the server may see, and filters on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any
from uuid import UUID

from langgraph.checkpoint.grpc._convert.serde import LANGGRAPH_KEYS, ValueSerde, is_encrypted, pack_exactly
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

_MAX_INDEX_BYTES = 64 * 1024
_MAX_INDEX_DEPTH = 32
_MAP_HEADER_BYTES = 5
_INDEX_SERDE = JsonPlusSerializer()


def index_of(serde: ValueSerde, metadata: Mapping[str, Any], type_tag: str, data: bytes) -> bytes:
    """Returns the searchable part of metadata. Empty: the server uses the metadata itself.

    Args:
        serde: The serializer of the metadata.
        metadata: The metadata.
        type_tag: The type that it is stored with.
        data: The bytes that are stored.
    """
    keys = serde.searchable(is_encrypted(type_tag))
    if keys is not None:
        return _searchable({key: value for key, value in metadata.items() if key in keys})
    is_index = type_tag == "msgpack" and len(data) <= _MAX_INDEX_BYTES and _is_plain(metadata)
    return b"" if is_index else _searchable(metadata)


def filter_of(serde: ValueSerde, filter: Mapping[str, Any]) -> bytes:
    """Builds a filter, in the same encoding as the metadata that it is compared with."""
    keys = serde.searchable(serde.encrypts)
    if keys is not None and (hidden := sorted(str(key) for key in filter if key not in keys)):
        because = "this saver encrypts metadata" if serde.encrypts else "searchable_metadata leaves it out"
        raise InvalidArgumentError(
            f"filter: {', '.join(hidden)} can't be searched, because {because}; only {', '.join(sorted(keys))} can",
            field="filter",
        )
    try:
        return _index(filter)
    except Exception as error:  # whatever it is: the serializer couldn't encode a value
        raise InvalidArgumentError(
            f"filter: holds a value that can't be compared with metadata ({type(error).__name__}); give texts, "
            "numbers, booleans, None, and lists and dicts of them",
            field="filter",
        ) from error


def _searchable(metadata: Mapping[str, Any]) -> bytes:
    """Returns the entries that fit into an index: LangGraph's own, then the smallest others.

    The others are stored, but can't be searched.
    """
    sizes: dict[str, int] = {}
    for key, value in metadata.items():
        if _nests_within(value, _MAX_INDEX_DEPTH - 1):
            # The server doesn't see what only another serializer can encode.
            with suppress(TypeError, ValueError):
                sizes[key] = len(_index({key: value}))
    fitting: set[str] = set()
    room = _MAX_INDEX_BYTES - _MAP_HEADER_BYTES
    for key in sorted(sizes, key=lambda key: (key not in LANGGRAPH_KEYS, sizes[key])):
        room -= sizes[key]
        if room < 0:
            break
        fitting.add(key)
    return _index({key: value for key, value in metadata.items() if key in fitting})


def _nests_within(value: Any, depth: int) -> bool:
    """Returns whether a value's nesting is within a limit."""
    if isinstance(value, Mapping):
        return depth > 0 and all(
            _nests_within(key, depth - 1) and _nests_within(item, depth - 1) for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return depth > 0 and all(_nests_within(item, depth - 1) for item in value)
    return True


def _index(metadata: Mapping[str, Any]) -> bytes:
    return _INDEX_SERDE.dumps_typed(plain(metadata))[1]


def plain(value: Any) -> Any:
    """Returns metadata, or a filter, with enums replaced by their texts or numbers, and UUIDs by their texts.

    A serializer keeps their types, so such metadata would never equal what users search for.
    """
    match value:
        case bool():
            return value
        case UUID():
            return str(value)
        case Enum() if isinstance(value, str | int | float):
            return value.value
        case Mapping():
            return {plain(key): plain(item) for key, item in value.items()}
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(plain(item) for item in value)
        case _:
            return value


def _is_plain(metadata: Mapping[str, Any]) -> bool:
    """Returns whether metadata holds nothing that `plain` changes."""
    # This takes a microsecond, and nearly always answers the question.
    return pack_exactly(metadata) is not None or not _holds_special(metadata)


def _holds_special(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_special(key) or _holds_special(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(map(_holds_special, value))
    return isinstance(value, Enum | UUID)
