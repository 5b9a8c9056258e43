"""Items as the store returns them: LangGraph's, with their version."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from langgraph.store.base import Item, SearchItem


class StoredItem(Item):
    """An item, with what `put(if_version_match=...)` needs.

    Args:
        version: Its version: it grows whenever the item is stored.
        expires_at: When it expires, unless it is read or stored before; None: never.
        fields: What LangGraph's Item has.
    """

    __slots__ = ("expires_at", "version")

    def __init__(self, *, version: int, expires_at: datetime | None, **fields: Any) -> None:
        super().__init__(**fields)
        self.version = version
        self.expires_at = expires_at


class FoundItem(SearchItem):
    """An item that a search has found, with its score and its version.

    Args:
        version: Its version: it grows whenever the item is stored.
        expires_at: When it expires, unless it is read or stored before; None: never.
        fields: What LangGraph's SearchItem has.
    """

    __slots__ = ("expires_at", "version")

    def __init__(self, *, version: int, expires_at: datetime | None, **fields: Any) -> None:
        super().__init__(**fields)
        self.version = version
        self.expires_at = expires_at
