"""Namespaces in the database's form, and the range of those that begin with a namespace."""

from __future__ import annotations

import re
from collections.abc import Sequence

from checkpointd_server.domain.items import Namespace, NamespaceCondition

_END = "\x01"
"""Follows each label. It sorts before every character of a label."""
_ESCAPE = "\x02"
_ABOVE_ALL = "\U0010ffff" * 300
"""A text that is bytewise greater than any namespace."""
_ANY = "*"


def encode(namespace: Sequence[str]) -> str:
    """Returns a namespace as one text, which sorts as its labels do."""
    return "".join([_escape(label) + _END for label in namespace])


def decode(text: str) -> Namespace:
    """Returns the labels of a namespace."""
    labels = text.split(_END)[:-1]
    if _ESCAPE in text:
        return tuple(
            label.replace(_ESCAPE + "\x02", _END).replace(_ESCAPE + "\x03", _ESCAPE) if _ESCAPE in label else label
            for label in labels
        )
    return tuple(labels)


def range_below(prefix: Sequence[str]) -> tuple[str, str]:
    """Returns the range of texts that begin with a namespace: its first text, and the first text after it."""
    if not prefix:
        return "", _ABOVE_ALL
    text = encode(prefix)
    return text, text[:-1] + _ESCAPE


def patterns(conditions: Sequence[NamespaceCondition]) -> list[str]:
    """Returns regular expressions that match the namespaces that meet conditions."""
    made = []
    for condition in conditions:
        labels = "".join([f"[^{_END}]+{_END}" if label == _ANY else _literal(label) for label in condition.path])
        made.append(f"(^|{_END}){labels}$" if condition.at_end else f"^{labels}")
    return made


def known_prefix(conditions: Sequence[NamespaceCondition]) -> Namespace:
    """Returns the longest known prefix of all namespaces that meet conditions. It comes from a single condition."""
    longest: Namespace = ()
    for condition in conditions:
        if not condition.at_end:
            plain = condition.path[: condition.path.index(_ANY)] if _ANY in condition.path else condition.path
            longest = max(longest, plain, key=len)
    return longest


def _escape(label: str) -> str:
    if _END in label or _ESCAPE in label:
        return label.replace(_ESCAPE, _ESCAPE + "\x03").replace(_END, _ESCAPE + "\x02")
    return label


def _literal(label: str) -> str:
    # In a regular expression a backslash makes any character literal that is neither letter nor digit.
    return re.sub(r"([\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])", r"\\\1", _escape(label)) + _END
