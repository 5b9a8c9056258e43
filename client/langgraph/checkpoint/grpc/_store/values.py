"""Items' values as bytes, and the part of them that the server can filter by.

A value comes back as it was put. Values that msgpack represents exactly are stored as msgpack, those with large
integers or lone surrogates as Python's JSON, and all others by LangGraph's serializer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import ormsgpack
from langgraph.checkpoint.grpc._convert.serde import is_encrypted, pack_exactly
from langgraph.checkpoint.grpc.errors import CorruptValueError, InvalidArgumentError
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import store_service_pb2 as pb

NOTHING = ormsgpack.packb({})
_INTEGERS = range(-(2**63), 2**64)
_PLAIN = (str, int, float, bool, type(None))


class ItemSerde:
    """Turns items' values into bytes and back.

    Args:
        serde: The user's serializer. None: values are kept exactly, and only LangGraph's safe classes are restored.
        searchable: The entries that filters may see. None: all, or none if the serializer encrypts.
    """

    def __init__(self, serde: SerializerProtocol | None, searchable: Collection[str] | None) -> None:
        self._serde = serde
        self._reader = serde or JsonPlusSerializer(allowed_msgpack_modules=None)
        self._searchable = None if searchable is None else frozenset(searchable)

    def write(self, value: Mapping[str, Any], message: pb.ItemValue) -> None:
        """Writes a value into its message. Raises InvalidArgumentError."""
        message.type, message.data, index = self.encode(value)
        if index is not None:
            message.index = index

    def encode(self, value: Mapping[str, Any]) -> tuple[str, bytes, bytes | None]:
        """Returns the tag and the bytes of a value, and what filters see of it. None: all of it.

        Raises:
            InvalidArgumentError: It can't be stored.
        """
        if not isinstance(value, Mapping):
            raise InvalidArgumentError(f"value: must be a dict, not {type(value).__name__}", field="value")
        content = value if type(value) is dict else dict(value)
        packed = pack_exactly(content) if self._serde is None else None
        if packed is not None:
            type_tag, data = "msgpack", packed
        elif self._serde is None and _is_json(content):
            type_tag, data = "json", json.dumps(content).encode()
        else:
            type_tag, data = self._dump(content)
            return type_tag, data, self._index(content, type_tag)
        return type_tag, data, None if self._searchable is None else self._index(content, type_tag)

    def read(self, message: pb.ItemValue) -> dict[str, Any]:
        """Returns a value. Raises CorruptValueError."""
        try:
            if message.type == "json" and self._serde is None:
                value = json.loads(message.data)
            else:
                value = self._reader.loads_typed((message.type, message.data))
        except Exception as error:  # a serializer may raise anything
            raise CorruptValueError(f"an item's value of the type {message.type!r} can't be read") from error
        if not isinstance(value, dict):
            raise CorruptValueError("an item's value is not a map")
        return value

    def write_filter(
        self, given: Mapping[str, Any] | None, request: pb.SearchItemsRequest | pb.CountItemsRequest
    ) -> None:
        """Writes a filter into a request, converted as filterable values are. Raises InvalidArgumentError."""
        if not given:
            return
        if not isinstance(given, Mapping):
            raise InvalidArgumentError(f"filter: must be a dict, not {type(given).__name__}", field="filter")
        if self._searchable is not None and (hidden := sorted(set(map(str, given)) - self._searchable)):
            raise InvalidArgumentError(
                f"filter: {', '.join(hidden)}: not among the store's searchable entries", field="filter"
            )
        try:
            seen = _seen(given, strict=True, exact=True)
            if _is_json(seen):
                request.filter_json = json.dumps(seen)
            else:
                request.filter = ormsgpack.packb(_seen(given, strict=True))
        except TypeError as error:
            raise InvalidArgumentError(
                f"filter: holds a value that can't be compared ({error})", field="filter"
            ) from None

    def _dump(self, content: dict[str, Any]) -> tuple[str, bytes]:
        try:
            return self._reader.dumps_typed(content)
        except Exception as error:  # a serializer may raise anything
            raise InvalidArgumentError(
                f"value: holds something that can't be serialized ({type(error).__name__})", field="value"
            ) from error

    def _index(self, content: dict[str, Any], type_tag: str) -> bytes:
        if self._searchable is not None:
            content = {key: item for key, item in content.items() if key in self._searchable}
        elif is_encrypted(type_tag):
            return NOTHING
        return ormsgpack.packb(_seen(content, strict=False))


def _is_json(value: Any) -> bool:
    """Returns whether Python's JSON restores a value exactly."""
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_json, value))
    return kind in _PLAIN


def _seen(value: Any, *, strict: bool, exact: bool = False) -> Any:
    """Returns what filters see of a value: plain data, with times as ISO texts.

    Args:
        value: The value.
        strict: Whether to raise TypeError for what filters can't see; otherwise it is left out.
        exact: Whether to keep integers and texts that msgpack can't represent.
    """
    match value:
        case bool() | None | bytes():
            return value
        case Enum() if isinstance(value, str | int | float):
            return _seen(value.value, strict=strict, exact=exact)
        case str():
            return str(value) if exact else value.encode(errors="replace").decode()
        case int():
            # The nearest number that msgpack can represent.
            return int(value) if exact or value in _INTEGERS else _float(value)
        case float():
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return float(value)
        case Mapping():
            items = ((str(key), _seen(item, strict=strict, exact=exact)) for key, item in value.items())
            return {key: item for key, item in items if item is not _UNSEEN}
        case list() | tuple() | set() | frozenset():
            seen = (_seen(item, strict=strict, exact=exact) for item in value)
            return [item for item in seen if item is not _UNSEEN]
    if strict:
        raise TypeError(type(value).__name__)
    return _UNSEEN


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


_UNSEEN = object()
