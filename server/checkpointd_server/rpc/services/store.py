"""StoreService: long-term memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from checkpointd.v1 import store_service_pb2 as pb
from checkpointd.v1.operation_failure_pb2 import OperationFailure
from checkpointd_server.domain.access import Identity
from checkpointd_server.domain.errors import CheckpointdError, InvalidArgument, ItemVersionConflict, ResultTooLarge
from checkpointd_server.domain.items import Changed, DeleteItem, ItemChange, ItemKey, ItemStore, PutItem, StoredItem
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.metrics import ItemMeasurement, ItemMetrics
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.auth.scopes import STORE_OPERATIONS, check_scope
from checkpointd_server.rpc.calls.executor import BoundedExecutor
from checkpointd_server.rpc.conversion.item_index import read_filter
from checkpointd_server.rpc.conversion.item_moves import (
    read_after,
    read_page_size,
    read_restore,
    read_view,
    write_keys,
    write_outcomes,
    write_whole,
)
from checkpointd_server.rpc.conversion.items import (
    read_delete,
    read_key,
    read_labels,
    read_namespace_query,
    read_put,
    read_search,
    write_found,
    write_item,
)
from checkpointd_server.rpc.conversion.validation import check_count
from checkpointd_server.rpc.errors import describe_error
from checkpointd_server.rpc.tenants import Tenants

_LARGE_BYTES = 64 * 1024
"""Size in bytes from which a put is decoded in a thread."""
_TURN = 32
"""Number of a batch's operations after which it yields to the event loop."""
_PAGE_BYTES = 4 * 1024 * 1024
"""Size in bytes at which a list of items ends."""
_VALUES_PART = 2
"""Values take at most one part in this many of the largest message; the rest is for everything else in the answer."""


class StoreServicer:
    """Serves the items of a store. Each method takes a request and returns the encoded response."""

    def __init__(
        self,
        store: CheckpointStore,
        limits: Limits,
        executor: BoundedExecutor,
        tenants: Tenants,
        metrics: Mapping[str, ItemMetrics],
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._tenants = tenants
        self._limits = limits
        self._executor = executor
        self._value_bytes = limits.max_message_bytes // _VALUES_PART

    async def get_item(self, request: pb.GetItemRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads an item."""
        with self._metrics["get"].measure() as measured:
            key = read_key(request, self._limits)
            (item,) = await self._store.items(tenant).get(
                [(key, request.refresh_ttl)], max_bytes=self._value_bytes, timeout=timeout
            )
            response = pb.GetItemResponse()
            if item is not None:
                write_item(_whole(item, self._limits), response.item)
                measured.items = 1
        return response.SerializeToString()

    async def put_item(self, request: pb.PutItemRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores an item."""
        with self._metrics["put"].measure() as measured:
            items = self._store.items(tenant)
            put = await self._read_put(request)
            await items.check(put, timeout=timeout)
            self._check_quota(put.size, tenant)
            (changed,) = await items.change([put], timeout=timeout)
            response = pb.PutItemResponse(version=_done(changed).version)
            measured.items = 1
        return response.SerializeToString()

    async def delete_item(self, request: pb.DeleteItemRequest, tenant: str, timeout: float | None) -> bytes:
        """Deletes an item."""
        with self._metrics["delete"].measure() as measured:
            delete = read_delete(request, self._limits)
            (changed,) = await self._store.items(tenant).change([delete], timeout=timeout)
            response = pb.DeleteItemResponse(deleted=_done(changed).found)
            measured.items = int(response.deleted)
        return response.SerializeToString()

    async def search_items(self, request: pb.SearchItemsRequest, tenant: str, timeout: float | None) -> bytes:
        """Finds items."""
        response = pb.SearchItemsResponse()
        await self._search(request, self._store.items(tenant), response, self._value_bytes, timeout)
        return response.SerializeToString()

    async def count_items(self, request: pb.CountItemsRequest, tenant: str, timeout: float | None) -> bytes:
        """Counts items."""
        response = pb.CountItemsResponse(count=await self._count(request, self._store.items(tenant), timeout))
        return response.SerializeToString()

    async def list_namespaces(self, request: pb.ListNamespacesRequest, tenant: str, timeout: float | None) -> bytes:
        """Lists namespaces."""
        response = pb.ListNamespacesResponse()
        await self._list_namespaces(request, self._store.items(tenant), response, timeout)
        return response.SerializeToString()

    async def list_items(self, request: pb.ListItemsRequest, tenant: str, timeout: float | None) -> bytes:
        """Lists items in order, each with everything that belongs to it."""
        items, response = self._store.items(tenant), pb.ListItemsResponse()
        prefix = read_labels(request.namespace_prefix, "namespace_prefix", self._limits)
        after, limit = read_after(request, self._limits), read_page_size(request, self._limits)
        view = read_view(request)
        if view == pb.ITEM_VIEW_KEYS:
            write_keys(await items.list_keys(prefix, after=after, limit=limit, timeout=timeout), response)
            return response.SerializeToString()
        found = await items.list_whole(
            prefix,
            after=after,
            limit=limit,
            vectors=view == pb.ITEM_VIEW_WHOLE,
            max_bytes=min(self._value_bytes, _PAGE_BYTES),
            timeout=timeout,
        )
        await self._executor.run(write_whole, found, self._limits, response)
        return response.SerializeToString()

    async def restore_items(self, request: pb.RestoreItemsRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores items as they were listed."""
        wanted = await self._executor.run(read_restore, request, self._limits)
        self._check_quota(sum([item.size for item in wanted]), tenant)
        outcomes = await self._store.items(tenant).restore(wanted, replace=request.replace, timeout=timeout)
        return write_outcomes(outcomes).SerializeToString()

    async def batch(self, request: pb.BatchRequest, identity: Identity, timeout: float | None) -> bytes:
        """Does several operations: reads first, then changes."""
        response = pb.BatchResponse()
        await self.fill_batch(request, identity, response, timeout)
        return response.SerializeToString()

    async def fill_batch(
        self, request: pb.BatchRequest, identity: Identity, response: pb.BatchResponse, timeout: float | None
    ) -> None:
        """Does several operations, and fills in their results."""
        check_count(len(request.operations), "operations", self._limits.max_batch)
        await _Batch(self, request, identity, self._store.items(identity.tenant), response, timeout).run()

    async def _read_put(self, request: pb.PutItemRequest) -> PutItem:
        if request.ByteSize() > _LARGE_BYTES:
            return await self._executor.run(read_put, request, self._limits)
        return read_put(request, self._limits)

    def _check_quota(self, size: int, tenant: str) -> None:
        """Counts bytes to be stored. Raises QuotaExceeded."""
        self._tenants.check_storing(self._tenants.of(tenant), size)

    async def _search(
        self,
        request: pb.SearchItemsRequest,
        items: ItemStore,
        response: pb.SearchItemsResponse,
        max_bytes: int,
        timeout: float | None,
    ) -> int:
        """Finds items, fills them in, and returns how many bytes of values they have."""
        with self._metrics["search"].measure() as measured:
            search = read_search(request, self._limits)
            await items.check(search, timeout=timeout)
            found = await items.search(search, max_bytes=max_bytes, timeout=timeout)
            write_found(found, response)
            measured.items = len(found.items)
        return sum(one.item.size for one in found.items)

    async def _count(self, request: pb.CountItemsRequest, items: ItemStore, timeout: float | None) -> int:
        with self._metrics["count"].measure() as measured:
            prefix = read_labels(request.namespace_prefix, "namespace_prefix", self._limits)
            wanted = read_filter(request.filter, request.filter_json, self._limits)
            measured.items = await items.count(prefix, wanted, timeout=timeout)
        return measured.items

    async def _list_namespaces(
        self,
        request: pb.ListNamespacesRequest,
        items: ItemStore,
        response: pb.ListNamespacesResponse,
        timeout: float | None,
    ) -> None:
        with self._metrics["list_namespaces"].measure() as measured:
            query = read_namespace_query(request, self._limits)
            for labels in await items.list_namespaces(query, timeout=timeout):
                response.namespaces.add(labels=labels)
            measured.items = len(response.namespaces)


class _Batch:
    """A batch in progress."""

    def __init__(
        self,
        servicer: StoreServicer,
        request: pb.BatchRequest,
        identity: Identity,
        items: ItemStore,
        response: pb.BatchResponse,
        timeout: float | None,
    ) -> None:
        self._servicer = servicer
        self._limits = servicer._limits
        self._identity = identity
        self._operations = request.operations
        self._is_small = request.ByteSize() <= _LARGE_BYTES
        self._items = items
        self._timeout = timeout
        self._results = [response.results.add() for _ in request.operations]
        self._room = servicer._value_bytes
        """The number of bytes left for values."""

    async def run(self) -> None:
        """Does the operations, and fills in their results."""
        gets: dict[int, tuple[ItemKey, bool]] = {}
        changes: dict[int, ItemChange] = {}
        others: list[int] = []
        for number, operation in enumerate(self._operations):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            try:
                kind = self._check(operation)
                if kind == "get":
                    gets[number] = read_key(operation.get, self._limits), operation.get.refresh_ttl
                elif kind == "put":
                    changes[number] = await self._read_put(operation.put)
                elif kind == "delete":
                    changes[number] = read_delete(operation.delete, self._limits)
                else:
                    others.append(number)
            except CheckpointdError as error:
                self._fail(number, error)
                if (kind := operation.WhichOneof("operation")) is not None:
                    self._servicer._metrics[kind].failed += 1
        if gets:
            await self._get(gets)
        for number in others:
            try:
                await self._read(number)
            except CheckpointdError as error:
                self._fail(number, error)
        if changes:
            await self._change(changes)

    async def _read_put(self, request: pb.PutItemRequest) -> PutItem:
        put = read_put(request, self._limits) if self._is_small else await self._servicer._read_put(request)
        if put.vectors or put.text is not None:
            await self._items.check(put, timeout=self._timeout)
        self._servicer._check_quota(put.size, self._identity.tenant)
        return put

    def _check(self, operation: pb.StoreOperation) -> str:
        """Returns the kind of an operation, if its caller may do it."""
        kind = operation.WhichOneof("operation")
        if kind is None:
            raise InvalidArgument("operation", "is required: set one of its fields")
        check_scope(self._identity, STORE_OPERATIONS[kind])
        return str(kind)

    def _fail(self, number: int, error: CheckpointdError) -> None:
        """Records why an operation failed. Raises errors that aren't about the operation."""
        failure = describe_error(error)
        if failure.reason not in _OF_ONE:
            raise error
        self._results[number].failure.CopyFrom(
            OperationFailure(
                code=failure.code.value[0],
                message=failure.message,
                reason=failure.reason,
                metadata=failure.metadata,
            )
        )

    async def _get(self, gets: dict[int, tuple[ItemKey, bool]]) -> None:
        with self._servicer._metrics["get"].measure(len(gets)) as measured:
            found = await self._items.get(list(gets.values()), max_bytes=self._room, timeout=self._timeout)
            for number, item in zip(gets, found, strict=True):
                if item is None:
                    self._results[number].get.SetInParent()
                elif item.data is None:
                    measured.failed += 1
                    self._fail(number, ResultTooLarge(item.size, limit=self._limits.max_message_bytes))
                else:
                    measured.items += 1
                    self._room -= item.size
                    write_item(item, self._results[number].get.item)

    async def _read(self, number: int) -> None:
        operation, result = self._operations[number], self._results[number]
        if operation.HasField("search"):
            response = pb.SearchItemsResponse()
            self._room -= await self._servicer._search(
                operation.search, self._items, response, self._room, self._timeout
            )
            result.search.CopyFrom(response)
        elif operation.HasField("count"):
            count = await self._servicer._count(operation.count, self._items, self._timeout)
            result.count.count = count
            result.count.SetInParent()
        else:
            listed = pb.ListNamespacesResponse()
            await self._servicer._list_namespaces(operation.list_namespaces, self._items, listed, self._timeout)
            result.list_namespaces.CopyFrom(listed)

    async def _change(self, changes: dict[int, ItemChange]) -> None:
        deletions = sum([isinstance(change, DeleteItem) for change in changes.values()])
        metrics = self._servicer._metrics
        with metrics["put"].measure(len(changes) - deletions) as puts, metrics["delete"].measure(deletions) as deletes:
            await self._do(changes, puts, deletes)

    async def _do(self, changes: dict[int, ItemChange], puts: ItemMeasurement, deletes: ItemMeasurement) -> None:
        last = {change.key: change for change in changes.values()}
        done = await self._items.change(list(last.values()), timeout=self._timeout)
        outcomes = dict(zip(last, done, strict=True)) if len(last) < len(changes) else None
        for at, (number, change) in enumerate(changes.items()):
            outcome = done[at] if outcomes is None else outcomes[change.key]
            measured = deletes if isinstance(change, DeleteItem) else puts
            if isinstance(outcome, ItemVersionConflict):
                measured.failed += 1
                self._fail(number, outcome)
            elif isinstance(change, DeleteItem):
                found = outcome.found and isinstance(last[change.key], DeleteItem)
                measured.items += found
                self._results[number].delete.deleted = found
                self._results[number].delete.SetInParent()
            else:
                measured.items += 1
                self._results[number].put.version = outcome.version


_OF_ONE = frozenset(
    {
        "INVALID_ARGUMENT",
        "ITEM_VERSION_CONFLICT",
        "MESSAGE_TOO_LARGE",
        "PERMISSION_DENIED",
        "QUOTA_EXCEEDED",
        "VECTORS_UNAVAILABLE",
    }
)
"""Reasons that fail only one operation of a batch. All others fail the call."""


def _done(changed: Changed | ItemVersionConflict) -> Changed:
    if isinstance(changed, ItemVersionConflict):
        raise changed
    return changed


def _whole(item: StoredItem, limits: Limits) -> StoredItem:
    if item.data is None:
        raise ResultTooLarge(item.size, limit=limits.max_message_bytes)
    return item
