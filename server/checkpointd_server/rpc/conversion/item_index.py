"""Filters, and the part of an item that they see, both projected by the rules of `metadata_index`."""

from __future__ import annotations

from json import loads
from typing import Any

import msgpack

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.metadata_index import (
    ESCAPE,
    UNSAFE,
    PairMap,
    TooDeep,
    project,
    project_key,
    project_map,
    read_map,
    to_json,
)

_ORDERS = frozenset({"$gt", "$gte", "$lt", "$lte"})
_LISTS = frozenset({"$in", "$nin"})
_OPERATORS = frozenset({"$eq", "$ne", "$exists", *_ORDERS, *_LISTS})
_MAX_SPELLED_BYTES = 512 * 1024
"""Maximum size of a filter in bytes, when the full path of each leaf is written out."""


def project_item(type_: str, data: bytes, index: bytes, limits: Limits) -> str:
    """Returns what filters see of an item's value: a JSON object, as text.

    Args:
        type_: The value's type.
        data: Its bytes.
        index: The part that the client lets filters see, as msgpack. Empty: the value itself.
        limits: The limits, with the depth below which filters see nothing.

    Raises:
        InvalidArgument: Neither can be used.
    """
    field, type_, data = ("value.index", "msgpack", index) if index else ("value.data", type_, data)
    if type_ not in ("msgpack", "json"):
        raise InvalidArgument("value.index", f"is required where value is not 'msgpack' or 'json' but {type_!r}")
    ordinary = _project_ordinary(type_, data, limits)
    if ordinary is not None:
        return ordinary
    depth = limits.max_filter_depth
    entries = {}
    for key, entry in _read_json(data, field) if type_ == "json" else read_map(data, field):
        try:
            entries[project_key(key, depth - 1)] = project(entry, depth - 1)
        except TooDeep:
            continue
    return _checked_json(entries, field)


def read_filter(data: bytes, json: str, limits: Limits) -> dict[str, Any]:
    """Returns a filter whose operators are known and have valid operands. Raises InvalidArgument."""
    field = "filter_json" if json else "filter"
    if data and json:
        raise InvalidArgument("filter_json", "must be empty where filter is set")
    if not data and not json:
        return {}
    size = len(data) or len(json.encode())
    if size > limits.max_filter_bytes:
        limit = limits.max_filter_bytes
        raise InvalidArgument(field, f"has {size} bytes, at most {limit} are allowed", limit=limit)
    pairs = _read_json(json.encode(), field) if json else read_map(data, field)
    try:
        projected = project_map(pairs, limits.max_filter_depth)
    except TooDeep:
        limit = limits.max_filter_depth
        raise InvalidArgument(field, f"nests more than {limit} deep", limit=limit) from None
    for key in projected:
        if key.startswith("$"):
            raise InvalidArgument(field, f"has the operator {key[:20]!r} where an entry of the value is to be named")
    _checked_json(projected, field)
    if _check(projected, field, 0) > _MAX_SPELLED_BYTES:
        raise InvalidArgument(field, "has too many conditions, or too deep ones")
    return projected


def _project_ordinary(type_: str, data: bytes, limits: Limits) -> str | None:
    """Returns what filters see of a value that is plain JSON, as nearly all are. None: it needs a full projection."""
    try:
        content = loads(data) if type_ == "json" else msgpack.unpackb(data, max_ext_len=0)
        json = to_json(content)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    if (
        type(content) is not dict
        or json.count("{") + json.count("[") > limits.max_filter_depth
        or "\\u0000" in json
        # Only texts that aren't ASCII need the check of each character.
        or (not json.isascii() and UNSAFE.search(json))
    ):
        return None
    return json


def _read_json(data: bytes, field: str) -> PairMap:
    try:
        content = loads(data, object_pairs_hook=PairMap)
    except (ValueError, RecursionError):
        raise InvalidArgument(field, "is not JSON, or nests too deep") from None
    if type(content) is not PairMap:
        raise InvalidArgument(field, "is not a JSON object")
    return content


def _checked_json(entries: dict[str, Any], field: str) -> str:
    try:
        return to_json(entries)
    except ValueError:
        raise InvalidArgument(field, "holds an integer that is too large") from None


def _check(condition: Any, field: str, way: int) -> int:
    """Checks operators, and returns the size of a condition when the full path of each leaf is written out."""
    if isinstance(condition, list):
        return way + sum(_check(element, field, way + 8) for element in condition)
    if not isinstance(condition, dict):
        return way + (len(condition.encode()) if isinstance(condition, str) else 24)
    if any(key.startswith("$") for key in condition):
        for operator, operand in condition.items():
            _check_operator(operator, operand, field)
        return way + sum(way + _spelled(operand, way) for operand in condition.values())
    return way + sum(_check(entry, field, way + len(key.encode()) + 3) for key, entry in condition.items())


def _check_operator(operator: str, operand: Any, field: str) -> None:
    if operator not in _OPERATORS:
        raise InvalidArgument(field, f"has {operator[:20]!r}, which is not an operator, among operators")
    if operator in _LISTS and not isinstance(operand, list):
        raise InvalidArgument(field, f"has {operator} with something else than a list")
    if operator == "$exists" and not isinstance(operand, bool):
        raise InvalidArgument(field, f"has {operator} with something else than true or false")
    if operator in _ORDERS and (not isinstance(operand, int | float | str) or isinstance(operand, bool)):
        raise InvalidArgument(field, f"has {operator} with something else than a number or a text")
    if operator in _ORDERS and isinstance(operand, str) and operand[:2] in {f"{ESCAPE}{kind}" for kind in "dbtx"}:
        raise InvalidArgument(field, f"has {operator} with something else than a finite number or a text")


def _spelled(value: Any, way: int) -> int:
    """Returns the size of an operand when the full path of each leaf is written out."""
    if isinstance(value, list):
        return way + sum(_spelled(element, way + 8) for element in value)
    if isinstance(value, dict):
        return way + sum(_spelled(entry, way + len(key.encode()) + 3) for key, entry in value.items())
    return way + (len(value.encode()) if isinstance(value, str) else 24)
