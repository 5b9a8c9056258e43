"""Listing of items with everything that belongs to them, and restoring them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from checkpointd_server.domain.items import (
    ItemKey,
    ItemVector,
    ItemWord,
    ListedKey,
    Namespace,
    RestoreOutcome,
    WholeItem,
)
from checkpointd_server.store.connections.database import Database, Row
from checkpointd_server.store.items.names import decode, encode, range_below

_WORD = re.compile(r"'((?:[^'\\]|''|\\\\)*)'(?::([0-9A-D,]+))?(?: |$)")


async def list_keys(
    database: Database, prefix: Namespace, after: ItemKey | None, limit: int, timeout: float | None
) -> list[ListedKey]:
    """Lists keys and versions."""
    rows = await _list(database, prefix, after, limit, (True, False, 0), timeout)
    return [ListedKey(ItemKey(decode(row["o_namespace"]), row["o_key"]), row["o_version"]) for row in rows]


async def list_whole(
    database: Database,
    prefix: Namespace,
    after: ItemKey | None,
    limit: int,
    vectors: bool,
    max_bytes: int,
    timeout: float | None,
) -> list[WholeItem]:
    """Lists items."""
    rows = await _list(database, prefix, after, limit, (False, vectors, max_bytes), timeout)
    return [_whole(row) for row in rows]


async def _list(
    database: Database,
    prefix: Namespace,
    after: ItemKey | None,
    limit: int,
    view: tuple[bool, bool, int],
    timeout: float | None,
) -> Sequence[Row]:
    place = ("", "") if after is None else (encode(after.namespace), after.key)
    return await database.fetch("list_items", *range_below(prefix), *place, limit, *view, timeout=timeout, reads=True)


def _whole(row: Row) -> WholeItem:
    paths, components = row["o_paths"] or (), row["o_components"] or ()
    return WholeItem(
        key=ItemKey(decode(row["o_namespace"]), row["o_key"]),
        type=row["o_type"],
        data=row["o_data"],
        doc=row["o_doc"],
        words=None if row["o_words"] is None else read_words(row["o_words"]),
        vectors=[ItemVector(path=path, components=one) for path, one in zip(paths, components, strict=True)],
        vectors_left_out=row["o_vectors"] > 0 and not paths,
        ttl=row["o_ttl"],
        version=row["o_version"],
        created_at=row["o_created_at"],
        updated_at=row["o_updated_at"],
        expires_at=row["o_expires_at"],
    )


async def restore(
    database: Database, items: Sequence[WholeItem], replace: bool, timeout: float | None
) -> list[RestoreOutcome]:
    """Stores items in one transaction."""
    vectors = [(number, vector) for number, item in enumerate(items, 1) for vector in item.vectors]
    dims = [len(vector.components) for _, vector in vectors]
    rows = await database.fetch(
        "restore_items",
        replace,
        [encode(item.key.namespace) for item in items],
        [item.key.key for item in items],
        [item.type for item in items],
        [item.data for item in items],
        [item.doc for item in items],
        [None if item.words is None else write_words(item.words) for item in items],
        [item.ttl for item in items],
        [item.created_at for item in items],
        [item.updated_at for item in items],
        [item.expires_at for item in items],
        [len(item.vectors) for item in items],
        [item.vectors_left_out for item in items],
        [number for number, _ in vectors],
        [vector.path for _, vector in vectors],
        dims,
        list(accumulate(dims, initial=0))[:-1],
        [component for _, vector in vectors for component in vector.components],
        timeout=timeout,
    )
    outcomes = {row["o_position"]: RestoreOutcome(row["o_outcome"]) for row in rows}
    return [outcomes[number] for number in range(1, len(items) + 1)]


def read_words(text: str) -> list[ItemWord]:
    """Reads a tsvector as PostgreSQL writes it."""
    words = []
    for quoted, positions in _WORD.findall(text):
        lexeme = quoted.replace("''", "'").replace("\\\\", "\\")
        words.append(ItemWord(lexeme, [int(one.rstrip("ABCD")) for one in positions.split(",") if one]))
    return words


def write_words(words: Sequence[ItemWord]) -> str:
    """Writes a tsvector as PostgreSQL reads it."""
    return " ".join(
        "'" + word.lexeme.replace("\\", "\\\\").replace("'", "''") + "'" + _places(word.positions) for word in words
    )


def _places(positions: Sequence[int]) -> str:
    return ":" + ",".join(map(str, positions)) if positions else ""
