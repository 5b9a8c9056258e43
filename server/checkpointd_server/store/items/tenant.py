"""The items of one tenant: an ItemStore on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from checkpointd_server.domain.errors import DeadlineExceeded, ItemVersionConflict, VectorsUnavailable
from checkpointd_server.domain.items import (
    Changed,
    DeleteItem,
    Filter,
    FoundItem,
    FoundItems,
    ItemChange,
    ItemKey,
    ItemSearch,
    ListedKey,
    Namespace,
    NamespaceQuery,
    RestoreOutcome,
    StoredItem,
    WholeItem,
    fuse,
)
from checkpointd_server.store.connections.database import Connections, Database, Row
from checkpointd_server.store.items.features import ItemFeatures
from checkpointd_server.store.items.filters import to_path
from checkpointd_server.store.items.moves import list_keys, list_whole, restore
from checkpointd_server.store.items.names import decode, encode, known_prefix, patterns, range_below
from checkpointd_server.store.items.rankings import BY_WORDS
from checkpointd_server.store.items.writes import ItemWrites

_FUSED_AT_LEAST = 50
"""Minimum number of items of each ranking to merge."""
_FUSED_TIMES = 4
"""Number of items of each ranking to merge, as a multiple of the number of wanted items."""

Place = tuple[str, str]
"""An item's namespace, in the database's form, and its key."""


class TenantItems:
    """Keeps the items of one tenant.

    Args:
        connections: The connections to the database.
        database: The database in the tenant's name.
        features: The database's features.
        limit: The maximum number of waiting changes.
    """

    def __init__(self, connections: Connections, database: Database, features: ItemFeatures, limit: int) -> None:
        self._connections = connections
        self._database = database
        self._features = features
        self._writes = ItemWrites(database, limit)

    @property
    def has_vectors(self) -> bool:
        """True if vectors can be stored and searched."""
        return self._features.has_vectors

    @property
    def is_idle(self) -> bool:
        """True if no change is waiting or in progress."""
        return self._writes.is_idle

    async def check(self, wanted: ItemChange | ItemSearch, *, timeout: float | None) -> None:
        """Raises VectorsUnavailable, or InvalidArgument for a language that the database doesn't know."""
        if isinstance(wanted, DeleteItem):
            return
        has_vectors = wanted.vector is not None if isinstance(wanted, ItemSearch) else bool(wanted.vectors)
        if has_vectors and not self.has_vectors:
            raise VectorsUnavailable
        if wanted.text is not None:
            await self._features.check_language(
                self._connections, wanted.text.language, "text.language", timeout=timeout
            )

    async def change(
        self, changes: Sequence[ItemChange], *, timeout: float | None
    ) -> list[Changed | ItemVersionConflict]:
        """Stores and deletes items in one transaction, and returns the outcome of each, including rejections."""
        return await self._writes.change(changes, timeout=timeout)

    async def get(
        self, keys: Sequence[tuple[ItemKey, bool]], *, max_bytes: int, timeout: float | None
    ) -> list[StoredItem | None]:
        """Reads items. Each key says whether the time to live restarts. None: there is no such item."""
        places = [(encode(key.namespace), key.key) for key, _ in keys]
        rows = await self._read(places, [refreshes for _, refreshes in keys], max_bytes, timeout)
        found = {row["o_position"]: _item(row) for row in rows}
        return [found.get(number) for number in range(1, len(keys) + 1)]

    async def search(self, search: ItemSearch, *, max_bytes: int, timeout: float | None) -> FoundItems:
        """Finds items."""
        async with _deadline(timeout):
            if search.vector is None and search.text is None:
                rows = await self._list(search, search.offset, search.limit, None, max_bytes)
                return _found([(_item(row), None) for row in rows])
            if search.vector is not None and search.text is not None:
                return await self._search_by_both(search, max_bytes)
            ranking, *args = self._ranking(search, search.offset + search.limit)
            statement = f"read_{ranking}"
            rows = await self._database.fetch(
                statement, search.offset, search.refreshes, max_bytes, *args, timeout=None
            )
            found = _found([(_item(row), row["o_score"]) for row in rows if row["o_position"] is not None])
            ranked = rows[0]["o_ranked"]
            missing = search.limit - max(ranked - search.offset, 0)
            if search.text is None and missing and not found.is_truncated:
                # Items without vectors follow those with vectors.
                rest = max_bytes - sum(one.item.size for one in found.items)
                rows = await self._list(search, max(search.offset - ranked, 0), missing, False, rest)
                behind = _found([(_item(row), None) for row in rows])
                return FoundItems(found.items + behind.items, behind.is_truncated)
            return found

    async def _search_by_both(self, search: ItemSearch, max_bytes: int) -> FoundItems:
        """Finds items by two rankings, merged."""
        count = max((search.offset + search.limit) * _FUSED_TIMES, _FUSED_AT_LEAST)
        rankings = []
        for alone in (replace(search, text=None), replace(search, vector=None)):
            statement, *args = self._ranking(alone, count)
            rows = await self._database.fetch(statement, *args, timeout=None, reads=True)
            rankings.append([(row["o_namespace"], row["o_key"]) for row in rows])
        wanted = fuse(*rankings)[search.offset : search.offset + search.limit]
        places = [place for place, _ in wanted]
        rows = await self._read(places, [search.refreshes] * len(places), max_bytes, None)
        return _found([(_item(row), wanted[row["o_position"] - 1][1]) for row in rows])

    async def count(self, prefix: Namespace, wanted: Filter, *, timeout: float | None) -> int:
        """Counts items."""
        return int(
            await self._database.fetch_value("count_items", *range_below(prefix), to_path(wanted), timeout=timeout)
        )

    async def list_keys(
        self, prefix: Namespace, *, after: ItemKey | None, limit: int, timeout: float | None
    ) -> list[ListedKey]:
        """Lists the keys of items below a namespace, after a given one, in order."""
        return await list_keys(self._database, prefix, after, limit, timeout)

    async def list_whole(
        self,
        prefix: Namespace,
        *,
        after: ItemKey | None,
        limit: int,
        vectors: bool,
        max_bytes: int,
        timeout: float | None,
    ) -> list[WholeItem]:
        """Lists items below a namespace, after a given one, in order. Stops at or before the item above `max_bytes`."""
        return await list_whole(self._database, prefix, after, limit, vectors, max_bytes, timeout)

    async def restore(
        self, items: Sequence[WholeItem], *, replace: bool, timeout: float | None
    ) -> list[RestoreOutcome]:
        """Stores items as they were listed, in one transaction. Raises VectorsUnavailable."""
        if not self.has_vectors and any(item.vectors for item in items):
            raise VectorsUnavailable
        return await restore(self._database, items, replace, timeout)

    async def list_namespaces(self, query: NamespaceQuery, *, timeout: float | None) -> list[Namespace]:
        """Lists the namespaces that hold items, in order."""
        rows = await self._database.fetch(
            "list_namespaces",
            *range_below(known_prefix(query.conditions)),
            patterns(query.conditions),
            query.max_depth,
            query.offset,
            query.limit,
            timeout=timeout,
            reads=True,
        )
        return [decode(row["o_namespace"]) for row in rows]

    def _ranking(self, search: ItemSearch, count: int) -> tuple[Any, ...]:
        """Returns the statement that ranks items by a vector or by words, and its parameters after the tenant."""
        place = (*range_below(search.prefix), to_path(search.filter))
        if search.vector is not None:
            vector = search.vector
            function = self._features.ranking(len(vector.components), vector.distance, exact=vector.exact)
            return function, *place, vector.components, count
        assert search.text is not None
        text = search.text
        return BY_WORDS, *place, text.query, text.language, text.web, count

    async def _list(
        self, search: ItemSearch, skipped: int, limit: int, with_vectors: bool | None, max_bytes: int
    ) -> Sequence[Row]:
        return await self._database.fetch(
            "search_items",
            *range_below(search.prefix),
            to_path(search.filter),
            skipped,
            limit,
            with_vectors,
            search.refreshes,
            max_bytes,
            timeout=None,
        )

    async def _read(
        self, places: Sequence[Place], refreshes: Sequence[bool], max_bytes: int, timeout: float | None
    ) -> Sequence[Row]:
        namespaces, keys = [place[0] for place in places], [place[1] for place in places]
        return await self._database.fetch("get_items", namespaces, keys, refreshes, max_bytes, timeout=timeout)


def _item(row: Row) -> StoredItem:
    return StoredItem(
        key=ItemKey(decode(row["o_namespace"]), row["o_key"]),
        type=row["o_type"],
        data=row["o_data"],
        size=row["o_bytes"],
        version=row["o_version"],
        created_at=row["o_created_at"],
        updated_at=row["o_updated_at"],
        expires_at=row["o_expires_at"],
    )


def _found(items: Sequence[tuple[StoredItem, float | None]]) -> FoundItems:
    """Returns the items that fit: all before the first whose value was left out."""
    fitting: list[FoundItem] = []
    for item, score in items:
        if item.data is None:
            return FoundItems(fitting, True)
        fitting.append(FoundItem(item, score))
    return FoundItems(fitting, False)


@asynccontextmanager
async def _deadline(timeout: float | None) -> AsyncIterator[None]:
    """A common deadline of several calls."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded from error
