"""Namespaces as the database has them, and the range of those that begin with one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from checkpointd_server.domain.items import Namespace, NamespaceCondition

_END = "\x01"
"""Behind each label. It compares below all that a label may hold."""
_ESCAPE = "\x02"
_ABOVE_ALL = "\U0010ffff" * 300
"""Bytewise greater than any namespace."""
_ANY = "*"


def encode(namespace: Sequence[str]) -> str:
    """Returns a namespace as one text, which compares as its labels do."""
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
    """Returns the range of texts, from the first to before the second, that begin with a namespace."""
    if not prefix:
        return "", _ABOVE_ALL
    text = encode(prefix)
    return text, text[:-1] + _ESCAPE


def patterns(conditions: Sequence[NamespaceCondition]) -> list[str]:
    """Returns the regular expressions that match what meets conditions."""
    made = []
    for condition in conditions:
        labels = "".join([f"[^{_END}]+{_END}" if label == _ANY else _literal(label) for label in condition.path])
        made.append(f"(^|{_END}){labels}$" if condition.at_end else f"^{labels}")
    return made


def known_prefix(conditions: Sequence[NamespaceCondition]) -> Namespace:
    """Returns the longest namespace that all that meets conditions begins with, as far as one condition tells."""
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
    # A backslash takes its meaning from each character of an expression that is neither letter nor digit.
    return re.sub(r"([\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])", r"\\\1", _escape(label)) + _END
