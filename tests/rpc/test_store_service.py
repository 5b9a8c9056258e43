"""StoreService: items over gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc
import msgpack

from checkpointd.v1 import store_service_pb2 as pb
from tests.support.rpc_client import Client


def value(content: Any, type_: str = "msgpack") -> pb.ItemValue:
    data = msgpack.packb(content) if type_ == "msgpack" else json.dumps(content).encode()
    return pb.ItemValue(type=type_, data=data)


def put(key: str, content: Any, *namespace: str, **fields: Any) -> pb.PutItemRequest:
    return pb.PutItemRequest(namespace=namespace or ("users", "1"), key=key, value=value(content), **fields)


def get(key: str, *namespace: str, **fields: Any) -> pb.GetItemRequest:
    return pb.GetItemRequest(namespace=namespace or ("users", "1"), key=key, **fields)


async def test_an_item_comes_back_as_it_went_in(client: Client) -> None:
    version = (await client.store.PutItem(put("a", {"x": "\0", "y": float("nan"), "z": b"\xff"}))).version
    item = (await client.store.GetItem(get("a"))).item
    assert (list(item.namespace), item.key, item.version) == (["users", "1"], "a", version)
    assert item.value == value({"x": "\0", "y": float("nan"), "z": b"\xff"})
    assert item.created_at == item.updated_at
    again = (await client.store.PutItem(put("a", {"x": 2}))).version
    assert again > version
    later = (await client.store.GetItem(get("a"))).item
    assert later.created_at == item.created_at
    assert later.updated_at.ToDatetime() > item.updated_at.ToDatetime()
    assert not (await client.store.GetItem(get("b"))).HasField("item")
    assert (await client.store.DeleteItem(pb.DeleteItemRequest(namespace=["users", "1"], key="a"))).deleted
    assert not (await client.store.DeleteItem(pb.DeleteItemRequest(namespace=["users", "1"], key="a"))).deleted


async def keys(client: Client, *prefix: str, **wanted: Any) -> list[str]:
    request = pb.SearchItemsRequest(namespace_prefix=prefix, limit=100, filter_json=json.dumps(wanted or {}))
    return [found.item.key for found in (await client.store.SearchItems(request)).items]


async def test_items_are_found_by_namespace_and_filter(client: Client) -> None:
    for number in (9, 10, 100):
        await client.store.PutItem(put(f"k{number}", {"n": number, "deep": {"t": [number, "x"]}}))
    await client.store.PutItem(put("other", {"n": "10"}, "users", "10"))
    assert await keys(client) == ["other", "k100", "k10", "k9"]
    assert await keys(client, "users", "1") == ["k100", "k10", "k9"]
    assert await keys(client, "users", n={"$gt": 9}) == ["k100", "k10"]
    assert await keys(client, "users", n=10) == ["k10"]
    assert await keys(client, "users", deep={"t": [100, "x"]}) == ["k100"]
    assert await keys(client, n={"$nin": [9, "10"]}) == ["k100", "k10"]
    assert await keys(client, deep={"$exists": False}) == ["other"]
    assert (await client.store.CountItems(pb.CountItemsRequest(filter_json='{"n": {"$lt": 50}}'))).count == 2
    listed = await client.store.ListNamespaces(pb.ListNamespacesRequest(limit=10))
    assert [list(found.labels) for found in listed.namespaces] == [["users", "1"], ["users", "10"]]


async def test_a_put_with_an_old_version_is_a_conflict(client: Client) -> None:
    version = (await client.store.PutItem(put("a", {}, if_version_match=0))).version
    await client.store.PutItem(put("a", {"x": 1}, if_version_match=version))
    refusal = await client.refused(client.store.PutItem(put("a", {"x": 2}, if_version_match=version)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ITEM_VERSION_CONFLICT")
    current = (await client.store.GetItem(get("a"))).item
    assert current.value == value({"x": 1})
    assert refusal.metadata == {
        "namespace": '["users", "1"]',
        "key": "a",
        "expected_version": str(version),
        "current_version": str(current.version),
    }


async def test_a_batch_reads_what_was_there_before_and_keeps_the_last_put(client: Client) -> None:
    await client.store.PutItem(put("a", {"x": 0}))
    request = pb.BatchRequest()
    request.operations.add(put=put("a", {"x": 1}))
    request.operations.add(get=get("a"))
    request.operations.add(put=put("a", {"x": 2}))
    request.operations.add(put=put("b", {}, if_version_match=7))
    request.operations.add(search=pb.SearchItemsRequest(limit=5))
    request.operations.add(list_namespaces=pb.ListNamespacesRequest(limit=5))
    request.operations.add(count=pb.CountItemsRequest())
    request.operations.add(get=get(""))
    response = await client.store.Batch(request)
    kinds = [result.WhichOneof("result") for result in response.results]
    assert kinds == ["put", "get", "put", "failure", "search", "list_namespaces", "count", "failure"]
    assert response.results[1].get.item.value == value({"x": 0})
    assert response.results[0].put.version == response.results[2].put.version
    assert response.results[3].failure.reason == "ITEM_VERSION_CONFLICT"
    assert response.results[6].count.count == 1
    assert dict(response.results[7].failure.metadata) == {"field": "key"}
    assert (await client.store.GetItem(get("a"))).item.value == value({"x": 2})
