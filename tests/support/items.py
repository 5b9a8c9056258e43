"""Items of long-term memory in a store: puts, changes and searches in a few words."""

from __future__ import annotations

import json
from typing import Any

from checkpointd_server.domain.items import DeleteItem, ItemKey, ItemSearch, ItemStore, ItemVector, PutItem

TIMEOUT = 20.0
"""How long a call may take, in seconds."""
BIG = 1_000_000
"""The maximum size of an answer, in bytes."""


def put(key: str, content: Any = None, *namespace: str, **fields: Any) -> PutItem:
    """Returns a put of an item with this content, in the namespace "ns" if none is given."""
    doc = json.dumps(content or {})
    return PutItem(key=ItemKey(namespace or ("ns",), key), type="json", data=doc.encode(), doc=doc, **fields)


def vectors(*components: list[float]) -> list[ItemVector]:
    """Returns vectors of an item."""
    return [ItemVector(path=f"{number}", components=one) for number, one in enumerate(components)]


async def change(items: ItemStore, *changes: PutItem | DeleteItem) -> list[Any]:
    """Makes changes in one call, and returns the outcome of each."""
    return await items.change(changes, timeout=TIMEOUT)


async def found(items: ItemStore, **wanted: Any) -> list[tuple[str, float | None]]:
    """Searches, and returns the key and the score of each item found."""
    search = ItemSearch(**{"prefix": (), "limit": 10, **wanted})
    await items.check(search, timeout=TIMEOUT)
    answer = await items.search(search, max_bytes=BIG, timeout=TIMEOUT)
    assert not answer.is_truncated
    return [(one.item.key.key, None if one.score is None else round(one.score, 4)) for one in answer.items]


async def keys(items: ItemStore, **wanted: Any) -> list[str]:
    """Searches, and returns the keys of the items found."""
    return [key for key, _ in await found(items, **wanted)]


async def get(items: ItemStore, key: str, *namespace: str, refreshes: bool = False) -> Any:
    """Returns an item, or None."""
    (item,) = await items.get([(ItemKey(namespace or ("ns",), key), refreshes)], max_bytes=BIG, timeout=TIMEOUT)
    return item
