"""Flows that turn LangGraph's operations into requests, and the answers into results.

Reads see the store as it was before the batch. Gets, puts and deletions share a call. Searches, lists and counts are
separate calls before that, a few at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc._store.answers import check_results, is_too_large, kind_of, read_found, read_item
from langgraph.checkpoint.grpc._store.encoding import Encoded, checked_key, encode_get, encode_messages, encode_put
from langgraph.checkpoint.grpc._store.index import Chunk, ItemIndex, SearchMode, Wanted
from langgraph.checkpoint.grpc._store.values import ItemSerde
from langgraph.checkpoint.grpc._transport.flows import Flow, ForEach
from langgraph.checkpoint.grpc._transport.operation import OperationError
from langgraph.checkpoint.grpc._transport.rpc_errors import from_rpc_error
from langgraph.checkpoint.grpc.errors import CorruptValueError, InvalidArgumentError
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
    validate_op_namespace,
)

from checkpointd.v1 import store_service_pb2 as pb

MAX_BATCH = 256
"""Maximum number of operations in one call."""
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Maximum size of a call's operations in bytes, unless a single one is larger."""
MAX_FOUND = 1000
"""Maximum number of items that one call requests."""
MAX_LISTED = 10_000
"""Maximum number of namespaces that one call requests."""
_MATCHES = {"prefix": pb.NAMESPACE_MATCH_PREFIX, "suffix": pb.NAMESPACE_MATCH_SUFFIX}


class Submit(NamedTuple):
    """A step: operations to do in one message. The flow is sent a result for each, unchecked."""

    operations: Encoded


class VersionedPut(NamedTuple):
    """A put or a deletion of an item that must have a given version."""

    put: PutOp
    version: int


class ModedSearch(NamedTuple):
    """A search with its mode."""

    search: SearchOp
    mode: SearchMode | None
    exact: bool


class CountOp(NamedTuple):
    """Counts the items below a namespace."""

    namespace_prefix: tuple[str, ...]
    filter: dict[str, Any] | None


AnyOp = Op | VersionedPut | ModedSearch | CountOp


@dataclass(slots=True)
class _Plan:
    """A batch, with its operations grouped by kind. Numbers are their positions in the batch."""

    size: int
    gets: dict[int, GetOp] = field(default_factory=dict)
    puts: dict[tuple[tuple[str, ...], str], tuple[int, PutOp, int | None, list[Chunk]]] = field(default_factory=dict)
    """The last put of each item."""
    searches: dict[int, tuple[ModedSearch, SearchMode | None]] = field(default_factory=dict)
    others: dict[int, ListNamespacesOp | CountOp] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=Wanted)


def run_batch(operations: Iterable[AnyOp], serde: ItemSerde, index: ItemIndex, target: str) -> Flow[list[Any]]:
    """Does operations, and returns their results in order.

    Yields:
        `Wanted` with texts to embed, requests, and `Submit`.

    Raises:
        CheckpointdError: One of them failed. The others may have been done.
        InvalidNamespaceError: A namespace is invalid.
    """
    plan = _planned(list(operations), index)
    # Serialized before the first yield: a value may change while texts are embedded.
    together = [_get(op) for op in plan.gets.values()]
    changes = [_put(op, version, serde, index) for _, op, version, _ in plan.puts.values()]
    if plan.wanted:
        yield plan.wanted
    for change, (*_, chunks) in zip(changes, plan.puts.values(), strict=True):
        if chunks:
            index.write_vectors(chunks, plan.wanted, change.put)
    together += changes
    reads = [_search(plan, number, serde, index) for number in plan.searches]
    reads += [_list(number, one) for number, one in plan.others.items() if isinstance(one, ListNamespacesOp)]
    reads += [_count(number, one, serde) for number, one in plan.others.items() if isinstance(one, CountOp)]
    numbers = [*plan.gets, *(number for number, *_ in plan.puts.values())]
    results: list[Any] = [None] * plan.size
    yield from _read(reads, results, serde)
    failure = None
    for chunk in _chunks(list(zip(numbers, together, strict=True))):
        encoded = encode_messages([operation for _, operation in chunk])
        outcomes = check_results((yield Submit(encoded)), encoded.kinds)
        for (number, operation), outcome in zip(chunk, outcomes, strict=True):
            if outcome.HasField("failure"):
                if is_too_large(outcome) and operation.HasField("get"):
                    results[number] = read_item((yield operation.get), serde)
                    continue
                error = OperationError(outcome.failure)
                failure = failure or from_rpc_error(error, target=target, method=f"Batch ({kind_of(operation)})")
            elif operation.HasField("get"):
                results[number] = read_item(outcome.get, serde)
    if failure is not None:
        raise failure
    return results


def single(operations: Sequence[AnyOp], serde: ItemSerde, index: ItemIndex) -> Encoded | None:
    """Returns the request of a single get or put that needs no embedding: most calls. None: run it as a batch."""
    if len(operations) != 1:
        return None
    operation, version = operations[0], None
    if type(operation) is VersionedPut:
        operation, version = operation
    if isinstance(operation, GetOp):
        if not operation.namespace:
            return None
        return encode_get(operation)
    if isinstance(operation, PutOp):
        if not operation.namespace or index.embeds(operation):
            return None
        return encode_put(operation, version, serde, index)
    return None


def _planned(operations: list[AnyOp], index: ItemIndex) -> _Plan:
    plan = _Plan(len(operations))
    for number, given in enumerate(operations):
        version = given.version if isinstance(given, VersionedPut) else None
        moded = given if isinstance(given, ModedSearch) else None
        operation: Op | CountOp
        match given:
            case VersionedPut():
                operation = given.put
            case ModedSearch():
                operation = given.search
            case _:
                operation = given
        if not isinstance(operation, CountOp):
            validate_op_namespace(operation)
        match operation:
            case PutOp():
                if not operation.namespace:
                    if operation.value is None:
                        continue
                    raise InvalidNamespaceError("Namespace cannot be empty.")
                key = (tuple(operation.namespace), operation.key)
                plan.puts.pop(key, None)
                plan.puts[key] = (number, operation, version, [])
            case GetOp():
                if operation.namespace:
                    plan.gets[number] = operation
            case SearchOp():
                moded = moded or ModedSearch(operation, None, False)
                mode = index.mode(moded.mode) if operation.query else None
                if mode in ("vector", "hybrid"):
                    plan.wanted.queries[str(operation.query)] = ()
                plan.searches[number] = (moded, mode)
            case ListNamespacesOp() | CountOp():
                plan.others[number] = operation
            case _:
                raise InvalidArgumentError(
                    f"ops: {type(operation).__name__} is not an operation of a store", field="ops"
                )
    for key, (number, put, version, _) in plan.puts.items():
        chunks = index.chunks(put)
        plan.wanted.documents.update((chunk.text, ()) for chunk in chunks)
        plan.puts[key] = (number, put, version, chunks)
    return plan


def _get(op: GetOp) -> pb.StoreOperation:
    operation = pb.StoreOperation()
    request = operation.get
    request.namespace.extend(op.namespace)
    request.key = checked_key(op.key)
    request.refresh_ttl = op.refresh_ttl
    return operation


def _put(op: PutOp, version: int | None, serde: ItemSerde, index: ItemIndex) -> pb.StoreOperation:
    operation = pb.StoreOperation()
    request: Any = operation.delete if op.value is None else operation.put
    request.namespace.extend(op.namespace)
    request.key = checked_key(op.key)
    if version is not None:
        request.if_version_match = version
    if op.value is not None:
        # If it is sent again after a lost answer, the server recognizes the put, and it doesn't conflict with itself.
        request.request_id = random_id()
        serde.write(op.value, request.value)
        index.write_text(op, request)
        if op.ttl is not None:
            request.ttl_minutes = op.ttl
    return operation


def _chunks(
    operations: list[tuple[int, pb.StoreOperation]],
) -> Iterable[list[tuple[int, pb.StoreOperation]]]:
    """Splits operations into calls that aren't too large, in order."""
    chunk: list[tuple[int, pb.StoreOperation]] = []
    size = 0
    for number, operation in operations:
        size += operation.ByteSize()
        if chunk and (len(chunk) == MAX_BATCH or size > MAX_BATCH_BYTES):
            yield chunk
            chunk, size = [], operation.ByteSize()
        chunk.append((number, operation))
    if chunk:
        yield chunk


class _Read(NamedTuple):
    """A read that takes as many calls as its answer needs."""

    number: int
    request: Any
    left: int
    """The number of results wanted."""


def _search(plan: _Plan, number: int, serde: ItemSerde, index: ItemIndex) -> _Read:
    moded, mode = plan.searches[number]
    op = moded.search
    request = pb.SearchItemsRequest(
        namespace_prefix=op.namespace_prefix, offset=_count_of("offset", op.offset), refresh_ttl=op.refresh_ttl
    )
    serde.write_filter(op.filter, request)
    if op.query and mode is not None:
        index.write_query(op.query, mode, moded.exact, plan.wanted, request)
    return _Read(number, request, _count_of("limit", op.limit))


def _list(number: int, op: ListNamespacesOp) -> _Read:
    request = pb.ListNamespacesRequest(
        conditions=[_condition(condition) for condition in op.match_conditions or ()],
        offset=_count_of("offset", op.offset),
    )
    if op.max_depth is not None:
        request.max_depth = _count_of("max_depth", op.max_depth)
        if not op.max_depth:
            raise InvalidArgumentError("max_depth: must be 1 or more", field="max_depth")
    return _Read(number, request, _count_of("limit", op.limit))


def _condition(condition: MatchCondition) -> pb.NamespaceCondition:
    match = _MATCHES.get(condition.match_type)
    if match is None:
        raise InvalidArgumentError(
            f"match_type: {condition.match_type!r} is neither 'prefix' nor 'suffix'", field="match_type"
        )
    return pb.NamespaceCondition(match=match, path=condition.path)


def _count(number: int, op: CountOp, serde: ItemSerde) -> _Read:
    request = pb.CountItemsRequest(namespace_prefix=op.namespace_prefix)
    serde.write_filter(op.filter, request)
    return _Read(number, request, 1)


def _count_of(field: str, number: Any) -> int:
    if type(number) is not int or not 0 <= number < 2**31:
        raise InvalidArgumentError(f"{field}: {number!r} is not an integer of 0 or more", field=field)
    return number


def _read(reads: list[_Read], results: list[Any], serde: ItemSerde) -> Flow[None]:
    """Makes reads, a few at once, and requests the rest of answers that were cut short."""
    left = {read.number: read.left for read in reads}
    for read in reads:
        if not isinstance(read.request, pb.CountItemsRequest):
            results[read.number] = []
    numbers = {id(read.request): read.number for read in reads}
    pending = [read.request for read in reads if read.left]

    def limited() -> Iterable[Any]:
        for request in pending:
            if not isinstance(request, pb.CountItemsRequest):
                most = MAX_FOUND if isinstance(request, pb.SearchItemsRequest) else MAX_LISTED
                request.limit = min(left[numbers[id(request)]], most)
            yield request

    def take(request: Any, response: Any) -> None:
        number = numbers[id(request)]
        if isinstance(request, pb.CountItemsRequest):
            results[number] = response.count
            return
        if isinstance(request, pb.SearchItemsRequest):
            found: list[Any] = [read_found(one, serde) for one in response.items]
            more = response.truncated or len(found) == request.limit
        else:
            found = [tuple(namespace.labels) for namespace in response.namespaces]
            more = len(found) == request.limit
        if len(found) > request.limit:
            raise CorruptValueError("the server answered with more results than were asked for")
        results[number] += found
        left[number] -= len(found)
        request.offset += len(found)
        if more and found and left[number]:
            again.append(request)

    while pending:
        again: list[Any] = []
        if len(pending) == 1:
            (request,) = limited()
            take(request, (yield request))
        else:
            yield ForEach(iter(limited()), take)
        pending = again
