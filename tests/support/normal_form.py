"""A normal form of a run, as plain data: what two runs of one scenario have in common.

Two runs never have the same checkpoint ids, times or versions. These are numbered in order of appearance, so references
are still compared: a parent that refers to a different checkpoint than in the other run is a difference.
Everything else stays as it is, including types: a tuple is not a list, 1 is neither True nor 1.0.
"""

from __future__ import annotations

import dataclasses
import pprint
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel

NULL_TASK = "00000000-0000-0000-0000-000000000000"
"""LangGraph's task id for writes without a task. It is the same in every run."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
_VERSION = re.compile(r"(\d{32})\.[\d.e+-]+")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?\+00:00")


class Names:
    """The replacements for ids, versions and times of one run."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._plain: set[str] = set()

    def text(self, text: str) -> str:
        """Returns a text with its ids, versions and times replaced."""
        if text in self._plain:
            return text
        if version := _VERSION.fullmatch(text):
            return self._versions.setdefault(text, f"<version {int(version[1])} #{len(self._versions) + 1}>")
        if _TIME.fullmatch(text):
            return "<time>"
        named = _ID.sub(lambda found: self._id(found[0]), text)
        if named == text:  # every step contains them again, and searching megabytes takes a second
            self._plain.add(text)
        return named

    def known(self, text: str) -> str:
        """Returns a text with known ids replaced and others blanked, as a sort key."""
        if text in self._plain:
            return text
        return _ID.sub(lambda found: self._ids.get(found[0], "<new>"), text)

    def _id(self, found: str) -> str:
        return found if found == NULL_TASK else self._ids.setdefault(found, f"<id {len(self._ids) + 1:04}>")


def normal_form(value: Any, names: Names) -> Any:
    """Returns a value as plain data without anything that always differs between two runs."""
    if isinstance(value, str) and type(value) is str:
        return names.text(value)
    if value is None or type(value) in (bool, int, float, bytes):
        return value
    if type(value) in (list, tuple):
        return type(value)(normal_form(item, names) for item in value)
    if isinstance(value, Mapping):
        # LangGraph doesn't guarantee the order of keys: channels come in the order of the graph.
        by_key = sorted(value.items(), key=lambda item: names.known(str(item[0])))
        return {normal_form(key, names): normal_form(item, names) for key, item in by_key}
    if isinstance(value, Enum):
        return Named(value, value.value)
    if isinstance(value, set | frozenset):
        return Named(value, sorted((normal_form(item, names) for item in value), key=repr))
    if isinstance(value, BaseModel):
        return Named(value, normal_form(dict(value), names))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return Named(value, {name: normal_form(item, names) for name, item in value._asdict().items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return Named(value, {name: normal_form(item, names) for name, item in fields.items()})
    if isinstance(value, BaseException):
        return Named(value, normal_form(value.args, names))
    return Named(value, names.text(repr(value)))


class Named:
    """A value of a class, shown by the class's name and its contents."""

    def __init__(self, value: object, content: Any) -> None:
        self._name = type(value).__name__
        self._content = content

    def __repr__(self) -> str:
        return f"{self._name}({self._content!r})"

    def lines(self) -> str:
        """Returns the value over several lines, to be read by people."""
        return f"{self._name} {readable(self._content)}"


def readable(value: Any) -> str:
    """Returns plain data over several lines, to be read and compared by people."""
    if isinstance(value, Named):
        return value.lines()
    if isinstance(value, dict):
        return "{\n" + "".join(_indented(f"{key!r}: {readable(item)}") for key, item in value.items()) + "}"
    if isinstance(value, list | tuple) and value:
        opened, closed = "[]" if isinstance(value, list) else "()"
        return f"{opened}\n" + "".join(_indented(readable(item)) for item in value) + closed
    return pprint.pformat(value, width=120)


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
