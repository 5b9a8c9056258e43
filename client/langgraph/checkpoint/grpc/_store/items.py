"""Items as the store returns them: LangGraph's, with a version.

Their `__class__` is LangGraph's own class, because LangGraph's serializer goes by that: items in a graph's state are
stored like LangGraph's, and can be read without a warning or an error about unknown classes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from langgraph.store.base import Item, SearchItem


class StoredItem(Item):
    """An item with its version, for `put(if_version_match=...)`. In a graph's state it is stored as a plain Item.

    Args:
        value: Its value. This and the next four are the fields of LangGraph's Item.
        key: Its key.
        namespace: Its namespace.
        created_at: When it was first stored.
        updated_at: When it was last stored.
        version: Its version, which grows whenever the item is stored.
        expires_at: When it expires, unless it is read or stored before. None: never.
    """

    __slots__ = ("expires_at", "version")

    def __init__(
        self,
        *,
        value: dict[str, Any],
        key: str,
        namespace: tuple[str, ...],
        created_at: datetime,
        updated_at: datetime,
        version: int,
        expires_at: datetime | None,
    ) -> None:
        super().__init__(value=value, key=key, namespace=namespace, created_at=created_at, updated_at=updated_at)
        self.version = version
        self.expires_at = expires_at

    @property  # type: ignore[misc]
    def __class__(self) -> type[Item]:  # type: ignore[override]
        return Item

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return _unpickle, (StoredItem, _fields(self))


class FoundItem(SearchItem):
    """An item found by a search, with its score and its version.

    Args:
        version: Its version, which grows whenever the item is stored.
        expires_at: When it expires, unless it is read or stored before. None: never.
        fields: The fields of LangGraph's SearchItem.
    """

    __slots__ = ("expires_at", "version")

    def __init__(self, *, version: int, expires_at: datetime | None, **fields: Any) -> None:
        super().__init__(**fields)
        self.version = version
        self.expires_at = expires_at

    @property  # type: ignore[misc]
    def __class__(self) -> type[SearchItem]:  # type: ignore[override]
        return SearchItem

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return _unpickle, (FoundItem, {**_fields(self), "score": self.score})


def _fields(item: StoredItem | FoundItem) -> dict[str, Any]:
    return {name: getattr(item, name) for name in (*Item.__slots__, "version", "expires_at")}


def _unpickle(kind: type[Item], fields: dict[str, Any]) -> Item:
    return kind(**fields)
