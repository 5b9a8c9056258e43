"""Filters as JSON paths, which PostgreSQL applies to each item. They are passed as parameters, like all input.

The paths are strict: a comparison with a missing entry is unknown, and a list isn't unwrapped into its elements.
"""

from __future__ import annotations

from json import JSONEncoder
from typing import Any

from checkpointd_server.domain.items import Filter

_literal = JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}

OPERATORS = frozenset({"$eq", "$ne", "$in", "$nin", "$exists", *_ORDER})
"""All operators."""


def is_operators(condition: Any) -> bool:
    """Returns whether a condition consists of operators."""
    return isinstance(condition, dict) and any(key.startswith("$") for key in condition)


def to_path(wanted: Filter) -> str | None:
    """Returns the path that is true for values that match a filter. None: all match."""
    if not wanted:
        return None
    return "strict " + " && ".join([_matches(_entry("$", key), condition) for key, condition in wanted.items()])


def _entry(place: str, key: str) -> str:
    return f"{place}.{_literal(key)}"


def _matches(place: str, condition: Any) -> str:
    """Compares a value with a condition: the named entries of a map, and lists element by element."""
    if is_operators(condition):
        return _all([_applies(place, operator, operand) for operator, operand in condition.items()])
    if isinstance(condition, dict):
        parts = [_matches(_entry(place, key), entry) for key, entry in condition.items()]
        return _all([f'{place}.type() == "object"', *parts])
    if isinstance(condition, list):
        parts = [_matches(f"{place}[{position}]", element) for position, element in enumerate(condition)]
        return _all([f'{place}.type() == "array"', f"{place}.size() == {len(condition)}", *parts])
    return _equals(place, condition)


def _applies(place: str, operator: str, operand: Any) -> str:
    if operator == "$eq":
        return _equals(place, operand)
    if operator == "$ne":
        return _not(_equals(place, operand))
    if operator == "$in":
        return _any([_equals(place, one) for one in operand])
    if operator == "$nin":
        return _not(_any([_equals(place, one) for one in operand]))
    if operator == "$exists":
        return f"(exists({place}))" if operand else f"((exists({place})) is unknown)"
    return f"({place} {_ORDER[operator]} {_literal(operand)})"


def _equals(place: str, value: Any) -> str:
    """Returns the condition that a value equals another. A missing value is null."""
    if value is None:
        return f"({place} == null || (exists({place})) is unknown)"
    if isinstance(value, dict):
        parts = [_has(place, key, entry) for key, entry in value.items()]
        others = " && ".join([f"@.key != {_literal(key)}" for key in value])
        rest = f"{place}.keyvalue() ? ({others})" if value else f"{place}.keyvalue()"
        return _all([f'{place}.type() == "object"', *parts, f"!(exists({rest}))"])
    if isinstance(value, list):
        parts = [_equals(f"{place}[{position}]", element) for position, element in enumerate(value)]
        return _all([f'{place}.type() == "array"', f"{place}.size() == {len(value)}", *parts])
    return f"({place} == {_literal(value)})"


def _has(place: str, key: str, value: Any) -> str:
    entry = _entry(place, key)
    return f"({entry} == null)" if value is None else _equals(entry, value)


def _not(condition: str) -> str:
    return f"({condition} is unknown || !{condition})"


def _all(parts: list[str]) -> str:
    return f"({' && '.join(parts)})" if parts else "(1 == 1)"


def _any(parts: list[str]) -> str:
    return f"({' || '.join(parts)})" if parts else "(1 == 0)"
