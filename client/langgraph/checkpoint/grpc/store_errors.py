"""Errors that only operations on a store's items raise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from langgraph.checkpoint.grpc.errors import CheckpointdError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ItemConflictError(CheckpointdError):
    """Another writer changed the item after this one had read it. Nothing was stored or deleted.

    Read the item and decide again; `GrpcStore.update` does that by itself.

    Attributes:
        namespace: The item's namespace.
        key: Its key.
        expected_version: The version that the write expected; 0: no item.
        current_version: The version that the server found; 0: there is no such item.
    """

    def __init__(self, *, namespace: tuple[str, ...], key: str, expected_version: int, current_version: int) -> None:
        self.namespace = namespace
        self.key = key
        self.expected_version = expected_version
        self.current_version = current_version
        found = f"is at version {current_version}" if current_version else "isn't there"
        wanted = f"to have version {expected_version}" if expected_version else "not to be there"
        super().__init__(
            f"item {key!r} in {namespace!r} {found}, and was {wanted}: another writer changed it. Nothing was stored"
        )

    def __reduce__(self) -> tuple[Callable[..., ItemConflictError], tuple[object, ...]]:
        return _unpickle_conflict, (self.namespace, self.key, self.expected_version, self.current_version)


def _unpickle_conflict(namespace: tuple[str, ...], key: str, expected: int, current: int) -> ItemConflictError:
    return ItemConflictError(namespace=namespace, key=key, expected_version=expected, current_version=current)


class VectorsUnavailableError(CheckpointdError):
    """The server's database has no pgvector: items can't be searched by vectors. Everything else of a store works."""


def item_error(reason: str, details: str, metadata: Mapping[str, str]) -> CheckpointdError:
    """Returns the error for a reason that only operations on items have.

    Args:
        reason: The reason.
        details: The server's message.
        metadata: The details of the reason.
    """
    if reason == "VECTORS_UNAVAILABLE":
        return VectorsUnavailableError(details)
    try:
        labels = json.loads(metadata.get("namespace", "[]"))
        versions = [int(metadata.get(name, "0")) for name in ("expected_version", "current_version")]
    except ValueError:
        labels, versions = [], [0, 0]
    namespace = tuple(map(str, labels)) if isinstance(labels, list) else ()
    return ItemConflictError(
        namespace=namespace, key=metadata.get("key", ""), expected_version=versions[0], current_version=versions[1]
    )
