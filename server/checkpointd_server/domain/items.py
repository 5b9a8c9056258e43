"""Long-term memory: items under a namespace and a key, and the interface of a store that keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from checkpointd_server.domain.errors import ItemVersionConflict

Namespace = tuple[str, ...]
"""An item's namespace: its labels."""
Filter = Mapping[str, Any]
"""Conditions on a value, as in SearchItemsRequest.filter, in the form of the values in `doc`."""

FUSION_CONSTANT = 60
"""The constant of reciprocal rank fusion. The smaller it is, the more the first places count."""

DEFAULT_INDEXES = ("384:cosine", "768:cosine", "1024:cosine", "1536:cosine")
"""The default indexes on vectors. An empty index costs nothing."""
MAX_INDEXED_DIMS = 4000
"""Maximum number of components of a vector that can be indexed."""

COMPONENT_BYTES = 4
"""Size of a vector's component in the database, in bytes."""

K = TypeVar("K")


class ItemKey(NamedTuple):
    """The name of an item."""

    namespace: Namespace
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemVector:
    """A vector that an item can be found by."""

    path: str
    """The path of the text that it was made from."""
    components: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemText:
    """The text of an item that can be searched for words."""

    text: str
    language: str


class PutItem(NamedTuple):
    """An item to store."""

    key: ItemKey
    type: str
    """The serializer's tag."""
    data: bytes
    doc: str
    """The searchable part of the value: a JSON object, as text."""
    vectors: Sequence[ItemVector] = ()
    text: ItemText | None = None
    ttl: float | None = None
    """How long it lives after it was stored or read, in seconds. None: it doesn't expire."""
    expected_version: int | None = None
    """The version that the item must have. 0: it must not exist. None: any."""
    request_id: bytes = b""
    """The id of the put: repeating a stored put with the same id changes nothing. Empty: the store chooses one."""

    @property
    def size(self) -> int:
        """About how many bytes it takes in the database."""
        components = sum([len(vector.components) for vector in self.vectors]) if self.vectors else 0
        text = 0 if self.text is None else len(self.text.text)
        return len(self.data) + len(self.doc) + text + COMPONENT_BYTES * components


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteItem:
    """An item to delete."""

    key: ItemKey
    expected_version: int | None = None
    """The version that the item must have. None: any."""


ItemChange = PutItem | DeleteItem


class Changed(NamedTuple):
    """The outcome of a change."""

    version: int
    """The item's new version."""
    found: bool
    """For a deletion, whether there was such an item."""


class StoredItem(NamedTuple):
    """An item as it is stored."""

    key: ItemKey
    type: str
    data: bytes | None
    """The value's bytes. None: they were left out because there are too many."""
    size: int
    """How many bytes there are."""
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    """None: it doesn't expire."""


class ItemWord(NamedTuple):
    """A word that an item can be found by."""

    lexeme: str
    """The word as PostgreSQL keeps it."""
    positions: Sequence[int]
    """Its positions in the text, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeItem:
    """An item with everything that belongs to it, to be restored elsewhere."""

    key: ItemKey
    type: str
    data: bytes
    doc: str
    """The searchable part of the value: a JSON object, as text."""
    words: Sequence[ItemWord] | None = None
    """The words that searches find it by. None: there are none."""
    vectors: Sequence[ItemVector] = ()
    vectors_left_out: bool = False
    """True if it has vectors that were left out here."""
    ttl: float | None = None
    """How long it lives after it was stored or read, in seconds. None: it doesn't expire."""
    version: int = 0
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None

    @property
    def size(self) -> int:
        """About how many bytes it takes in the database."""
        words = sum([len(word.lexeme) + 2 * len(word.positions) for word in self.words or ()])
        components = sum([len(vector.components) for vector in self.vectors])
        return len(self.data) + len(self.doc) + words + COMPONENT_BYTES * components


class ListedKey(NamedTuple):
    """An item in a list of keys only."""

    key: ItemKey
    version: int


class RestoreOutcome(StrEnum):
    """Outcome of restoring an item."""

    RESTORED = "restored"
    SAME = "same"
    """The same item exists already."""
    DIFFERENT = "different"
    """A different item exists, and was not replaced."""
    EXPIRED = "expired"


class Distance(StrEnum):
    """A measure of the distance between two vectors."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "inner_product"


def parse_index_name(text: str) -> tuple[int, Distance]:
    """Returns the components and the distance of an index, such as "384:cosine". Raises ValueError."""
    dims, _, distance = text.partition(":")
    if not (dims.isascii() and dims.isdigit() and 1 <= int(dims) <= MAX_INDEXED_DIMS and distance in list(Distance)):
        known = ", ".join(Distance)
        raise ValueError(f"{text!r} is not DIMS:DISTANCE, with 1 to {MAX_INDEXED_DIMS} dimensions and one of {known}")
    return int(dims), Distance(distance)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorQuery:
    """A vector to find the nearest items of."""

    components: Sequence[float]
    distance: Distance
    exact: bool = False
    """True if no index may be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextQuery:
    """Words to look for."""

    query: str
    language: str
    web: bool = False
    """True if they use the syntax of web search engines; else an item needs only one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSearch:
    """A search for items."""

    prefix: Namespace
    filter: Filter = field(default_factory=dict)
    limit: int
    offset: int = 0
    refreshes: bool = False
    """True if the time to live of found items restarts."""
    vector: VectorQuery | None = None
    text: TextQuery | None = None


class FoundItem(NamedTuple):
    """An item that was found."""

    item: StoredItem
    score: float | None
    """Higher is better. None: it isn't ranked."""


class FoundItems(NamedTuple):
    """The result of a search."""

    items: list[FoundItem]
    is_truncated: bool
    """True if more were found within the limit than fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceCondition:
    """A condition on a namespace."""

    path: Namespace
    """Labels; "*" matches any label."""
    at_end: bool = False
    """True if they are compared with the namespace's last labels, else with its first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceQuery:
    """A selection of namespaces."""

    conditions: Sequence[NamespaceCondition] = ()
    max_depth: int | None = None
    """Maximum number of labels to return of a namespace. None: all."""
    limit: int
    offset: int = 0


class ItemStore(Protocol):
    """Keeps the items of one tenant.

    Arguments are already within the limits. `timeout` and errors are those of CheckpointStore.
    """

    @property
    def has_vectors(self) -> bool:
        """True if vectors can be stored and searched."""
        ...

    async def check(self, wanted: ItemChange | ItemSearch, *, timeout: float | None) -> None:
        """Raises VectorsUnavailable, or InvalidArgument for a language that the database doesn't know."""
        ...

    async def change(
        self, changes: Sequence[ItemChange], *, timeout: float | None
    ) -> list[Changed | ItemVersionConflict]:
        """Stores and deletes items in one transaction, and returns the outcome of each, including rejections.

        Each has passed `check`. Raises Overloaded.
        """
        ...

    async def get(
        self, keys: Sequence[tuple[ItemKey, bool]], *, max_bytes: int, timeout: float | None
    ) -> list[StoredItem | None]:
        """Reads items. Each key says whether the time to live restarts. None: there is no such item.

        Values come only with the first items, up to `max_bytes` in all.
        """
        ...

    async def search(self, search: ItemSearch, *, max_bytes: int, timeout: float | None) -> FoundItems:
        """Finds items. The search has passed `check`."""
        ...

    async def count(self, prefix: Namespace, wanted: Filter, *, timeout: float | None) -> int:
        """Counts items."""
        ...

    async def list_keys(
        self, prefix: Namespace, *, after: ItemKey | None, limit: int, timeout: float | None
    ) -> list[ListedKey]:
        """Lists the keys of items below a namespace, after a given one, in order."""
        ...

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
        ...

    async def restore(
        self, items: Sequence[WholeItem], *, replace: bool, timeout: float | None
    ) -> list[RestoreOutcome]:
        """Stores items as they were listed, in one transaction. Raises VectorsUnavailable."""
        ...

    async def list_namespaces(self, query: NamespaceQuery, *, timeout: float | None) -> list[Namespace]:
        """Lists the namespaces that hold items, in order."""
        ...


def fuse(*rankings: Sequence[K]) -> list[tuple[K, float]]:
    """Merges rankings, each best first, by reciprocal rank fusion. Returns keys and scores, best first."""
    scores: dict[K, float] = {}
    for ranking in rankings:
        for place, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (FUSION_CONSTANT + place)
    return sorted(scores.items(), key=lambda entry: -entry[1])
