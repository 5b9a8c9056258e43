"""The database's features for items: vectors, indexes on them, and languages."""

from __future__ import annotations

import re

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.items import Distance
from checkpointd_server.store.connections.database import Connections

_NEAR = re.compile(r"near_items_(?:([0-9]+)_)?([a-z0-9_]+)", re.ASCII)


class ItemFeatures:
    """The features of a database. A language is looked up when it is first used.

    Args:
        functions: The names of the functions that search vectors, from `vectors.installed_functions`.
    """

    def __init__(self, functions: tuple[str, ...] = ()) -> None:
        self._functions = frozenset(functions)
        self._languages: frozenset[str] = frozenset()

    @property
    def has_vectors(self) -> bool:
        """True if vectors can be stored and searched."""
        return bool(self._functions)

    def ranking(self, dims: int, distance: Distance, *, exact: bool) -> str:
        """Returns the function that ranks by vectors, which uses an index if there is one and it may."""
        indexed = f"near_items_{dims}_{distance.value}"
        if not exact and indexed in self._functions:
            return indexed
        return f"near_items_{distance.value}"

    async def check_language(
        self, connections: Connections, language: str, field: str, *, timeout: float | None
    ) -> None:
        """Raises InvalidArgument if the database doesn't know a language."""
        if language in self._languages:
            return
        rows = await connections.of(None).fetch("languages", timeout=timeout, reads=True)
        self._languages = frozenset(row["name"] for row in rows)
        if language not in self._languages:
            raise InvalidArgument(field, "is not a text search configuration of the database")
