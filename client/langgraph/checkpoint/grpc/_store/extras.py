"""Methods of GrpcStore that LangGraph's stores don't have: counts, and updates without lost writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from langgraph.checkpoint.grpc._store.items import StoredItem
from langgraph.checkpoint.grpc._store.operations import AnyOp, CountOp
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc.store_errors import ItemConflictError
from langgraph.store.base import NOT_PROVIDED, GetOp, NotProvided, _validate_namespace_labels

Change = Callable[[dict[str, Any] | None], Mapping[str, Any] | None]
"""Takes an item's value, or None if there is no item, and returns the value to store, or None to delete the item."""
Index = Literal[False] | list[str] | None
Ttl = float | NotProvided | None


class StoreExtras:
    """The part of a store that LangGraph's BaseStore doesn't have."""

    def _run(self, operations: Iterable[AnyOp]) -> list[Any]:
        raise NotImplementedError  # this and the next three are implemented by the store

    async def _arun(self, operations: Iterable[AnyOp]) -> list[Any]:
        raise NotImplementedError

    def _put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Index,
        ttl: Ttl,
        version: int | None,
    ) -> AnyOp:
        raise NotImplementedError

    def _delete(self, namespace: tuple[str, ...], key: str, version: int | None) -> AnyOp:
        raise NotImplementedError

    def count(self, namespace_prefix: tuple[str, ...] = (), *, filter: dict[str, Any] | None = None) -> int:
        """Returns how many items there are in a namespace and below.

        Args:
            namespace_prefix: The namespace; empty: all.
            filter: Conditions on the values, as in `search`.

        Raises:
            CheckpointdError: The call failed.
            InvalidNamespaceError: The prefix is invalid.
        """
        return cast(int, self._run([self._count(namespace_prefix, filter)])[0])

    async def acount(self, namespace_prefix: tuple[str, ...] = (), *, filter: dict[str, Any] | None = None) -> int:
        """Awaits `count`."""
        return cast(int, (await self._arun([self._count(namespace_prefix, filter)]))[0])

    def update(
        self,
        namespace: tuple[str, ...],
        key: str,
        change: Change,
        *,
        index: Index = None,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        attempts: int = 10,
    ) -> None:
        """Reads an item, changes its value and stores it. Tries again if another writer changed it in between.

        Args:
            namespace: Its namespace.
            key: Its key.
            change: Takes the item's value, or None if there is no item, and returns the value to store, or None to
                delete the item. It is called once for each attempt.
            index: As in `put`.
            ttl: As in `put`.
            attempts: The maximum number of attempts.

        Raises:
            ItemConflictError: Another writer changed the item during each attempt.
            CheckpointdError: A call failed.
            InvalidNamespaceError: The namespace is invalid.
        """
        flows.run(self._update(namespace, key, change, index, ttl, attempts), self._run)

    async def aupdate(
        self,
        namespace: tuple[str, ...],
        key: str,
        change: Change,
        *,
        index: Index = None,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        attempts: int = 10,
    ) -> None:
        """Awaits `update`."""
        await flows.arun(self._update(namespace, key, change, index, ttl, attempts), self._arun)

    def _update(
        self,
        namespace: tuple[str, ...],
        key: str,
        change: Change,
        index: Index,
        ttl: Ttl,
        attempts: int,
    ) -> flows.Flow[None]:
        """Yields the operations of each attempt."""
        for left in reversed(range(attempts)):
            (found,) = yield [_get(namespace, key)]
            operation = self._changed(namespace, key, found, change, index, ttl)
            if operation is None:
                return
            try:
                yield [operation]
            except ItemConflictError:
                if not left:
                    raise
            else:
                return

    def _count(self, namespace_prefix: tuple[str, ...], filter: dict[str, Any] | None) -> CountOp:
        _validate_namespace_labels(namespace_prefix)
        return CountOp(namespace_prefix, filter)

    def _changed(
        self,
        namespace: tuple[str, ...],
        key: str,
        found: StoredItem | None,
        change: Change,
        index: Index,
        ttl: float | NotProvided | None,
    ) -> AnyOp | None:
        """Returns the operation that stores the changed value. None: there is nothing to do."""
        value = change(None if found is None else found.value)
        if value is None:
            return None if found is None else self._delete(namespace, key, found.version)
        return self._put(namespace, key, value, index, ttl, 0 if found is None else found.version)


def _get(namespace: tuple[str, ...], key: str) -> GetOp:
    _validate_namespace_labels(namespace)
    return GetOp(namespace, str(key))
