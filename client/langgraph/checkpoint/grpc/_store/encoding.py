"""Operations on single items as bytes: most of a store's calls, so they are written without protobuf's objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc._store.answers import kind_of
from langgraph.checkpoint.grpc._store.index import ItemIndex
from langgraph.checkpoint.grpc._store.values import ItemSerde
from langgraph.checkpoint.grpc._transport.operation import key_of, varint
from langgraph.checkpoint.grpc.errors import InvalidArgumentError
from langgraph.store.base import GetOp, PutOp, _validate_namespace_labels

from checkpointd.v1 import store_service_pb2 as pb

_OPERATION = key_of(pb.BatchRequest, "operations")
_GET = key_of(pb.StoreOperation, "get")
_PUT = key_of(pb.StoreOperation, "put")
_DELETE = key_of(pb.StoreOperation, "delete")
# Gets, puts and deletions name the item by the same fields.
_KEY = key_of(pb.GetItemRequest, "key")
_REFRESH = key_of(pb.GetItemRequest, "refresh_ttl", 0) + b"\x01"
_REQUEST_ID = key_of(pb.PutItemRequest, "request_id") + b"\x10"
_VALUE = key_of(pb.PutItemRequest, "value")
_DATA = key_of(pb.ItemValue, "data")
_INDEX = key_of(pb.ItemValue, "index")

QUERIES: dict[Any, str] = {
    pb.SearchItemsRequest: "search",
    pb.ListNamespacesRequest: "list_namespaces",
    pb.CountItemsRequest: "count",
}
"""The operations that query items, by their requests."""

ItemPlace = tuple[tuple[str, ...], str]
"""An item's namespace and key."""


class Encoded(NamedTuple):
    """Operations for one message."""

    kinds: Sequence[str]
    """The field of each."""
    body: bytes
    """The operations as a serialized BatchRequest. Several concatenated ones are one with all their operations."""
    written: Sequence[ItemPlace]
    """The items that they write or delete."""


def encode_messages(operations: Sequence[pb.StoreOperation]) -> Encoded:
    """Encodes operations that are messages."""
    kinds = [kind_of(operation) for operation in operations]
    changes = [getattr(one, kind) for one, kind in zip(operations, kinds, strict=True) if kind in ("put", "delete")]
    return Encoded(
        kinds,
        pb.BatchRequest(operations=operations).SerializeToString(),
        [(tuple(change.namespace), change.key) for change in changes],
    )


def encode_query(query: Any) -> Encoded | None:
    """Encodes a search, list or count. None: it is another request."""
    field = QUERIES.get(type(query))
    if field is None:
        return None
    return Encoded((field,), pb.BatchRequest(operations=[pb.StoreOperation(**{field: query})]).SerializeToString(), ())


def encode_get(get: GetOp) -> Encoded:
    """Encodes a get. Raises InvalidNamespaceError, or InvalidArgumentError."""
    _, place = _place(get.namespace, get.key)
    return Encoded(("get",), _operation(_GET, place + _REFRESH if get.refresh_ttl else place), ())


def encode_put(put: PutOp, version: int | None, serde: ItemSerde, index: ItemIndex) -> Encoded:
    """Encodes a put or a deletion of an item that must have a version. None: any.

    Raises:
        InvalidNamespaceError: The namespace is invalid.
        InvalidArgumentError: Something else is.
    """
    written, place = _place(put.namespace, put.key)
    if put.value is None:
        if version is not None:
            place += pb.DeleteItemRequest(if_version_match=version).SerializeToString()
        return Encoded(("delete",), _operation(_DELETE, place), (written,))
    type_tag, data, filtered = serde.encode(put.value)
    value = b"".join((_type(type_tag), _DATA, varint(len(data)), data))
    if filtered is not None:
        value += _INDEX + varint(len(filtered)) + filtered
    # If it is sent again after a lost answer, the server recognizes the put, and it doesn't conflict with itself.
    parts = [place, _VALUE, varint(len(value)), value, _REQUEST_ID, random_id()]
    if version is not None or put.ttl is not None or index.has_text:
        more = pb.PutItemRequest(if_version_match=version, ttl_minutes=put.ttl)
        index.write_text(put, more)
        parts.append(more.SerializeToString())
    return Encoded(("put",), _operation(_PUT, b"".join(parts)), (written,))


def checked_key(key: Any) -> str:
    """Returns a key as text. Raises InvalidArgumentError."""
    text = str(key)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError("key: is not valid Unicode (it holds a lone surrogate)", field="key") from None
    return text


def _place(namespace: tuple[str, ...], key: Any) -> tuple[ItemPlace, bytes]:
    """Returns the item that is named, and the fields that name it."""
    labels = tuple(namespace)
    text = checked_key(key)
    data = text.encode()
    try:
        named = _labels(labels)
    except TypeError:  # a label can't be hashed, so it isn't a text
        _validate_namespace_labels(labels)
        raise
    return (labels, text), b"".join((named, _KEY, varint(len(data)), data))


@lru_cache(maxsize=1024)
def _labels(namespace: tuple[str, ...]) -> bytes:
    """Returns the fields of a namespace. Raises InvalidNamespaceError."""
    _validate_namespace_labels(namespace)
    return pb.GetItemRequest(namespace=namespace).SerializeToString()


@lru_cache(maxsize=64)
def _type(tag: str) -> bytes:
    return pb.ItemValue(type=tag).SerializeToString()


def _operation(field: bytes, request: bytes) -> bytes:
    size = varint(len(request))
    return b"".join((_OPERATION, varint(len(field) + len(size) + len(request)), field, size, request))
