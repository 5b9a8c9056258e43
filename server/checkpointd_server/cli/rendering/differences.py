"""Differences between two checkpoints, as text."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from checkpointd_server.cli.rendering.tables import printable
from checkpointd_server.rpc.conversion.plain_data import text


def difference_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yields the differences as lines of text, those of lists and objects as a line diff."""
    yield f"--- {printable(found['before'])}"
    yield f"+++ {printable(found['after'])}"
    for title in ("values", "metadata"):
        parts = found[title]
        if any(parts.values()):
            yield title
        for name, value in sorted(parts["removed"].items()):
            yield f"- {printable(name)} = {text(value)}"
        for name, value in sorted(parts["added"].items()):
            yield f"+ {printable(name)} = {text(value)}"
        for name, change in sorted(parts["changed"].items()):
            yield f"  {printable(name)}"
            yield from _changed_lines(change["before"], change["after"])


def _changed_lines(before: Any, after: Any) -> Iterator[str]:
    old, new = _lines(before), _lines(after)
    for line in difflib.unified_diff(old, new, n=1, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            yield f"    {line}"


def _lines(value: Any) -> list[str]:
    if isinstance(value, list) and value:
        return [text(item) for item in value]
    if isinstance(value, dict) and value and not any(key.startswith("$") for key in value):
        return [f"{printable(key)}: {text(item)}" for key, item in value.items()]
    return [text(value)]
