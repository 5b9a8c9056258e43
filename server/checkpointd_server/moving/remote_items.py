"""The items of a server's long-term memory, read and restored through its RPCs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from checkpointd.v1.store_service_pb2 import (
    ITEM_VIEW_KEYS,
    ITEM_VIEW_WHOLE,
    ITEM_VIEW_WITHOUT_VECTORS,
    BatchRequest,
    GetItemRequest,
    ItemPosition,
    ListItemsRequest,
    RestoreItemsRequest,
    StoreResult,
    WholeItem,
)
from checkpointd.v1.store_service_pb2_grpc import StoreServiceStub
from checkpointd_server.moving.content import MoveError
from checkpointd_server.moving.export_file import ItemPlace, place_of
from checkpointd_server.moving.quotas import check_quota
from checkpointd_server.remote.refusals import Refusal

KEYS_PAGE = 1000
"""Number of keys listed per call."""
ITEMS_PAGE = 200
"""Number of items listed per call."""

Namespace = tuple[str, ...]


class ItemsRefused(MoveError):
    """The server can't store items: they are too large for it, or invalid there."""


class RemoteItems:
    """The items of a server's tenant.

    Args:
        channel: To the server.
        timeout: How long each call may take, in seconds.
    """

    def __init__(self, channel: grpc.Channel, *, timeout: float) -> None:
        self._store: Any = StoreServiceStub(channel)
        self._timeout = timeout

    def check_access(self) -> None:
        """Raises MoveError if items may not be read."""
        self._list(ListItemsRequest(page_size=1, view=ITEM_VIEW_KEYS))

    def versions(self, prefix: Namespace) -> dict[ItemPlace, int]:
        """Returns the version of each item below a namespace."""
        return {place_of(item): item.item.version for page in self._keys(prefix) for item in page}

    def read(self, prefix: Namespace, *, vectors: bool, has: Mapping[ItemPlace, int]) -> Iterator[Sequence[WholeItem]]:
        """Yields the items below a namespace in order, in batches.

        Args:
            prefix: The namespace. Empty: all.
            vectors: Whether to include vectors.
            has: Items to skip, at these versions.
        """
        if not has:
            yield from self._whole(prefix, None, None, vectors)
            return
        before: WholeItem | None = None
        for page in self._keys(prefix):
            run: list[WholeItem] = []
            for item in page:
                if has.get(place_of(item)) != item.item.version:
                    run.append(item)
                    continue
                if run:
                    yield from self._whole(prefix, before, run[-1], vectors)
                    run = []
                before = item
            if run:
                yield from self._whole(prefix, before, run[-1], vectors)
                before = run[-1]

    def _keys(self, prefix: Namespace) -> Iterator[Sequence[WholeItem]]:
        request = ListItemsRequest(namespace_prefix=prefix, page_size=KEYS_PAGE, view=ITEM_VIEW_KEYS)
        while page := self._list(request):
            yield page
            request.after.CopyFrom(_position(page[-1]))

    def _whole(
        self, prefix: Namespace, after: WholeItem | None, last: WholeItem | None, vectors: bool
    ) -> Iterator[Sequence[WholeItem]]:
        """Yields the items after one, up to another."""
        view = ITEM_VIEW_WHOLE if vectors else ITEM_VIEW_WITHOUT_VECTORS
        request = ListItemsRequest(namespace_prefix=prefix, page_size=ITEMS_PAGE, view=view)
        if after is not None:
            request.after.CopyFrom(_position(after))
        while page := self._list(request):
            wanted = page if last is None else [item for item in page if _order(item) <= _order(last)]
            if wanted:
                yield wanted
            if len(wanted) < len(page):
                return
            request.after.CopyFrom(_position(page[-1]))

    def _list(self, request: ListItemsRequest) -> Sequence[WholeItem]:
        with _explaining():
            found: Sequence[WholeItem] = self._store.ListItems(request, timeout=self._timeout).items
        return found

    def restore(self, items: Sequence[WholeItem], *, replace: bool) -> list[int]:
        """Stores items, and returns the RestoreOutcome of each. Raises ItemsRefused, MoveError, grpc.RpcError."""
        request = RestoreItemsRequest(items=items, replace=replace)
        with _explaining():
            return list(self._store.RestoreItems(request, timeout=self._timeout).outcomes)

    def get(self, items: Sequence[WholeItem]) -> list[StoreResult]:
        """Reads the stored items with the same keys."""
        request = BatchRequest()
        for item in items:
            request.operations.add(get=GetItemRequest(namespace=item.item.namespace, key=item.item.key))
        with _explaining():
            return list(self._store.Batch(request, timeout=self._timeout).results)


def _position(item: WholeItem) -> ItemPosition:
    return ItemPosition(namespace=item.item.namespace, key=item.item.key)


def _order(item: WholeItem) -> tuple[tuple[bytes, ...], bytes]:
    return tuple(label.encode() for label in item.item.namespace), item.item.key.encode()


def name_of(item: WholeItem) -> str:
    """Returns an item's namespace and key as text."""
    return f"item {json.dumps([*item.item.namespace, item.item.key], ensure_ascii=False)}"


@contextmanager
def _explaining() -> Iterator[None]:
    """Says of what is refused what can be done about it."""
    try:
        yield
    except grpc.RpcError as error:
        refusal = Refusal.of_call(error)
        check_quota(refusal)
        match error.code():
            case grpc.StatusCode.PERMISSION_DENIED:
                raise MoveError(f"{error.details()}; --no-items leaves long-term memory out") from error
            case grpc.StatusCode.INVALID_ARGUMENT:
                raise ItemsRefused(error.details() or "") from error
            case grpc.StatusCode.RESOURCE_EXHAUSTED if refusal.reason == "MESSAGE_TOO_LARGE":
                raise ItemsRefused(error.details() or "") from error
            case grpc.StatusCode.FAILED_PRECONDITION if refusal.reason == "VECTORS_UNAVAILABLE":
                raise MoveError(f"{error.details()}; --no-vectors leaves them out") from error
        raise
