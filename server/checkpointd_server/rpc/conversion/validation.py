"""The checks that every request passes before the store sees any of it.

Each check raises InvalidArgument with the field's name in the protocol, and its position in a list:
"values[2].channel". Bulk checks examine single elements only to say what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isnan

from checkpointd_server.domain.checkpoints import Namespace
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"-?(?:inf|[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)", re.ASCII)
_ALL_TEXT = frozenset("s")


_SHOWN = 60
"""How much of a too long name is quoted, in characters."""


def check_text(value: str, field: str, limit: int) -> None:
    """Checks a required text: at most `limit` bytes of UTF-8, without NUL."""
    if not value:
        raise InvalidArgument(field, "is required")
    check_optional_text(value, field, limit)


def check_optional_text(value: str, field: str, limit: int) -> None:
    """Checks a text that may be empty: at most `limit` bytes of UTF-8, without NUL."""
    size = len(value) if value.isascii() else len(value.encode())
    if size > limit:
        problem = f"has {size} bytes, at most {limit} are allowed"
        if field.endswith(("channel", "checkpoint_ns")) or field.startswith("channels["):
            # Users know their nodes, but perhaps not channels and namespaces.
            problem += f"; LangGraph makes it of the names of nodes: {value[:_SHOWN]!r}..."
        raise InvalidArgument(field, problem, limit=limit)
    if "\0" in value:
        raise InvalidArgument(field, "contains a NUL character")


def check_texts(values: Sequence[str], field: str, limit: int) -> None:
    """Checks required texts. A "{}" in the field's name stands for a text's position."""
    if not are_plain(values, limit):
        for position, value in enumerate(values):
            check_text(value, field.format(position), limit)


def are_plain(values: Sequence[str], limit: int) -> bool:
    """Returns whether `check_text` surely accepts every text, in one pass in C."""
    if not values:
        return True
    joined = "".join(values)
    # A character has at most 4 bytes of UTF-8.
    longest = limit if joined.isascii() else limit // 4
    return all(values) and "\0" not in joined and (len(joined) <= longest or max(map(len, values)) <= longest)


def check_token(value: bytes, field: str, limit: int) -> None:
    """Checks a token that a client chooses: a writer or a request_id."""
    if len(value) > limit:
        raise InvalidArgument(field, f"has {len(value)} bytes, at most {limit} are allowed", limit=limit)


def check_count(count: int, field: str, limit: int) -> None:
    """Checks the number of elements of a list."""
    if count > limit:
        raise InvalidArgument(field, f"has {count} entries, at most {limit} are allowed", limit=limit)


def check_distinct(values: Sequence[str], field: str) -> set[str]:
    """Checks that no text is repeated, and returns the set. A "{}" in the field's name stands for a text's position."""
    distinct = set(values)
    if len(distinct) < len(values):
        first: dict[str, int] = {}
        for position, value in enumerate(values):
            if (before := first.setdefault(value, position)) != position:
                raise InvalidArgument(field.format(position), f"repeats {field.format(before)}")
    return distinct


def check_versions(versions: Sequence[str], field: str, limits: Limits) -> None:
    """Checks channel versions: tagged texts. A "{}" in the field's name stands for a version's position."""
    limit = limits.max_channel_version_bytes + 1
    if not (are_plain(versions, limit) and _ALL_TEXT.issuperset([version[0] for version in versions])):
        for position, version in enumerate(versions):
            check_version(version, field.format(position), limit)


def check_version(version: str, field: str, limit: int) -> None:
    """Checks a channel version: "s" and a text, "i" and an integer, "f" and a float."""
    check_text(version, field, limit)
    tag, text = version[0], version[1:]
    if tag == "s":
        return
    if tag == "i":
        if not _INTEGER.fullmatch(text):
            raise InvalidArgument(field, 'is not a decimal integer behind its tag "i"')
    elif tag == "f":
        if not _FLOAT.fullmatch(text) or isnan(float(text)):
            raise InvalidArgument(field, 'is not a decimal float behind its tag "f"')
    else:
        raise InvalidArgument(field, 'has no tag: it begins with "s" for a text, "i" for an integer, "f" for a float')


def check_lease_token(token: int) -> int:
    """Returns a write's lease token. 0: none."""
    if token < 0:
        raise InvalidArgument("lease_token", "is negative; tokens begin at 1, and 0 means none")
    return token


def read_namespace(tenant: str, thread_id: str, checkpoint_ns: str, limits: Limits) -> Namespace:
    """Returns the namespace that a request names."""
    check_text(thread_id, "thread_id", limits.max_thread_id_bytes)
    if checkpoint_ns:
        check_optional_text(checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
    return Namespace(tenant, thread_id, checkpoint_ns)


def read_optional_id(checkpoint_id: str, field: str, limits: Limits) -> str | None:
    """Returns an optional checkpoint id: unset and empty mean the same."""
    if not checkpoint_id:
        return None
    check_optional_text(checkpoint_id, field, limits.max_checkpoint_id_bytes)
    return checkpoint_id
