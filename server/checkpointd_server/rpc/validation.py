"""The checks that every request passes before the store sees any of it.

Each check raises InvalidArgument with the field named as in the protocol, with the position where it has one:
"values[2].channel".
"""

from __future__ import annotations

from collections.abc import Sequence

from checkpointd_server.domain.errors import InvalidArgument

_MADE_OF_NODES = ("channel", "checkpoint_ns", "channel_versions.versions")
_SHOWN = 60
"""How much of a name that is too long is shown, in characters."""


def check_text(value: str, field: str, limit: int) -> None:
    """Checks a text that must not be empty: at most `limit` bytes of UTF-8, no NUL."""
    if not value:
        raise InvalidArgument(field, "is required")
    check_optional_text(value, field, limit)


def check_optional_text(value: str, field: str, limit: int) -> None:
    """Checks a text that may be empty: at most `limit` bytes of UTF-8, no NUL."""
    size = len(value) if value.isascii() else len(value.encode())
    if size > limit:
        problem = f"has {size} bytes, at most {limit} are allowed"
        if field.endswith(_MADE_OF_NODES):
            # Users know their nodes; of channels and namespaces they may never have heard.
            problem += f"; LangGraph makes it of the names of nodes: {value[:_SHOWN]!r}..."
        raise InvalidArgument(field, problem, limit=limit)
    if "\0" in value:
        raise InvalidArgument(field, "contains a NUL character")


def check_texts(values: Sequence[str], field: str, limit: int) -> None:
    """Checks texts that must not be empty. A "{}" in the field's name stands for a text's position."""
    if not are_plain(values, limit):
        for position, value in enumerate(values):
            check_text(value, field.format(position), limit)


def are_plain(values: Sequence[str], limit: int) -> bool:
    """Tells at the cost of one pass in C that `check_text` accepts every text; False: it may accept them or not."""
    if not values:
        return True
    joined = "".join(values)
    # A character has 4 bytes of UTF-8 at the most.
    longest = limit if joined.isascii() else limit // 4
    return all(values) and "\0" not in joined and len(max(values, key=len)) <= longest


def check_token(value: bytes, field: str, limit: int) -> None:
    """Checks a client's own token: a writer or a request_id."""
    if len(value) > limit:
        raise InvalidArgument(field, f"has {len(value)} bytes, at most {limit} are allowed", limit=limit)


def check_batch(values: Sequence[object], field: str, limit: int) -> None:
    """Checks how many things a request names."""
    if len(values) > limit:
        raise InvalidArgument(field, f"has {len(values)} entries, at most {limit} are allowed", limit=limit)
