"""Items at a limit can be read and found; beyond it they are refused with their field, and nothing is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from checkpointd.v1 import store_service_pb2 as pb
from checkpointd_server.domain.limits import Limits
from tests.rpc.serving import Serve
from tests.support.rpc_client import Client

LIMITS = replace(Limits(), max_item_bytes=10_000, max_item_components=2000, max_item_text_bytes=1000, max_batch=20)


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Client]:
    """A client of a server with small limits."""
    async with serve(limits=LIMITS) as (_, connected):
        yield connected


def put(**fields: Any) -> pb.PutItemRequest:
    value = fields.pop("data", b"{}")
    request = pb.PutItemRequest(namespace=["ns"], key="k", value=pb.ItemValue(type="json", data=value))
    for name, content in fields.items():
        request.ClearField(name)
        request.MergeFrom(pb.PutItemRequest(**{name: content}))
    return request


def vectors(count: int, dims: int) -> list[pb.ItemVector]:
    return [pb.ItemVector(path=f"{number}", values=[1.0] * dims) for number in range(count)]


def text(size: int) -> pb.ItemText:
    return pb.ItemText(texts=["a" * (size // 2 - 1), "b" * (size - size // 2)])


PUTS: dict[str, tuple[Callable[[int], pb.PutItemRequest], int, str]] = {
    "labels": (lambda n: put(namespace=["é"] * n), 32, "namespace"),
    "bytes of a namespace": (lambda n: put(namespace=["a" * (n - 24), "b" * 24]), 1024, "namespace"),
    "bytes of a key": (lambda n: put(key="k" * n), 512, "key"),
    "bytes of a value": (lambda n: put(data=b'{"a":"' + b"x" * (n - 8) + b'"}'), 10_000, "value.data"),
    "vectors": (lambda n: put(vectors=vectors(n, 1)), 1000, "vectors"),
    "components": (lambda n: put(vectors=vectors(n, 1000)), 2, "vectors"),
    "bytes of texts": (lambda n: put(text=text(n)), 1000, "text.texts"),
    "texts": (lambda n: put(text=pb.ItemText(texts=[""] * n)), 1000, "text.texts"),
    "minutes": (lambda n: put(ttl_minutes=n), LIMITS.max_ttl_minutes, "ttl_minutes"),
}
"""Puts of a given size, the limit, and the field that is refused beyond it."""


@pytest.mark.parametrize("what", PUTS)
async def test_what_is_at_a_limit_is_stored_and_found_and_one_more_is_not(what: str, client: Client) -> None:
    make, limit, field = PUTS[what]
    refusal = await client.refused(client.store.PutItem(make(limit + 1)))
    assert (refusal.code, refusal.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert refusal.metadata["limit"].isdigit()
    assert (await client.store.CountItems(pb.CountItemsRequest())).count == 0
    request = make(limit)
    await client.store.PutItem(request)
    (found,) = (await client.store.SearchItems(pb.SearchItemsRequest(limit=1))).items
    got = (await client.store.GetItem(pb.GetItemRequest(namespace=request.namespace, key=request.key))).item
    assert found.item == got
    assert got.value == request.value


REFUSED: dict[str, tuple[str, Any]] = {
    "namespace": ("PutItem", put(namespace=[])),
    "namespace[1]": ("PutItem", put(namespace=["a", ""])),
    "key": ("GetItem", pb.GetItemRequest(namespace=["a"])),
    "value": ("PutItem", pb.PutItemRequest(namespace=["a"], key="k")),
    "value.type": ("PutItem", put(value=pb.ItemValue(data=b"{}"))),
    "value.data": ("PutItem", put(data=b"[1]")),
    "value.index": ("PutItem", put(value=pb.ItemValue(type="other", data=b"x"))),
    "if_version_match": ("PutItem", put(if_version_match=-1)),
    "ttl_minutes": ("PutItem", put(ttl_minutes=0.0)),
    "vectors[1].values": ("PutItem", put(vectors=[*vectors(1, 2), *vectors(1, 3)])),
    "vectors[0].values": ("PutItem", put(vectors=[pb.ItemVector(values=[float("nan")])])),
    "text.language": ("PutItem", put(text=pb.ItemText(texts=["a"], language="klingon"))),
    "limit": ("SearchItems", pb.SearchItemsRequest(limit=1001)),
    "offset": ("SearchItems", pb.SearchItemsRequest(offset=-1)),
    "vector.values": ("SearchItems", pb.SearchItemsRequest(vector=pb.VectorQuery(values=[1.0] * 4001))),
    "text.query": ("SearchItems", pb.SearchItemsRequest(text=pb.TextQuery(query="a" * 8193))),
    "filter": ("SearchItems", pb.SearchItemsRequest(filter=b"\x91\x01")),
    "filter_json": ("CountItems", pb.CountItemsRequest(filter_json='{"a": {"$near": 1}}')),
    "conditions": ("ListNamespaces", pb.ListNamespacesRequest(conditions=[pb.NamespaceCondition()] * 17)),
    "max_depth": ("ListNamespaces", pb.ListNamespacesRequest(max_depth=-1)),
    "operations": ("Batch", pb.BatchRequest(operations=[pb.StoreOperation()] * 21)),
}
"""For each refused field, an RPC and its request."""


@pytest.mark.parametrize("field", REFUSED)
async def test_what_cannot_be_used_is_refused_by_name(field: str, client: Client) -> None:
    method, request = REFUSED[field]
    refusal = await client.refused(getattr(client.store, method)(request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal.metadata["field"] == field


@pytest.mark.parametrize(
    "wanted",
    [
        '{"$or": []}',
        '{"a": {"$gt": null}}',
        '{"a": {"$gt": true}}',
        '{"a": {"$gt": NaN}}',
        '{"a": {"$in": 1}}',
        '{"a": {"$exists": 1}}',
        '{"a": {"$eq": 1, "b": 2}}',
        '{"a": ',
        "[" * 2000,
        '{"a":' * 40 + "1" + "}" * 40,
        '{"' + "k" * 20_000 + '": {' + ", ".join(f'"{number}": 1' for number in range(40)) + "}}",
    ],
    ids=str.__len__,
)
async def test_a_filter_that_cannot_be_applied_is_refused(wanted: str, client: Client) -> None:
    refusal = await client.refused(client.store.CountItems(pb.CountItemsRequest(filter_json=wanted)))
    assert (refusal.code, refusal.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "filter_json")


async def test_an_answer_that_does_not_fit_is_cut_and_told(serve: Serve) -> None:
    limits = replace(Limits(), max_message_bytes=40_000, max_item_bytes=9_000)
    async with serve(limits=limits) as (_, client):
        for number in range(6):
            await client.store.PutItem(put(key=f"{number}", data=b'{"a":"' + b"x" * 8_000 + b'"}'))
        first = await client.store.SearchItems(pb.SearchItemsRequest(limit=6))
        assert first.truncated
        assert [found.item.key for found in first.items] == ["5", "4"]
        rest = await client.store.SearchItems(pb.SearchItemsRequest(limit=4, offset=2))
        assert [found.item.key for found in rest.items] == ["3", "2"]
        request = pb.BatchRequest()
        for number in range(4):
            request.operations.add(get=pb.GetItemRequest(namespace=["ns"], key=f"{number}"))
        results = (await client.store.Batch(request)).results
        assert [result.WhichOneof("result") for result in results] == ["get", "get", "failure", "failure"]
        assert results[2].failure.reason == "MESSAGE_TOO_LARGE"
