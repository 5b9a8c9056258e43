"""Batches of the store as operations of a pipeline."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb
from tests.support.operations import operation, results_of, send
from tests.support.rpc_client import Client

ROOM = 1024 * 1024


def put(key: str, content: bytes = b"{}", **fields: Any) -> store_pb.StoreOperation:
    value = store_pb.ItemValue(type="json", data=content)
    return store_pb.StoreOperation(put=store_pb.PutItemRequest(namespace=["n"], key=key, value=value, **fields))


def get(key: str) -> store_pb.StoreOperation:
    return store_pb.StoreOperation(get=store_pb.GetItemRequest(namespace=["n"], key=key))


def batch(*operations: store_pb.StoreOperation) -> store_pb.BatchRequest:
    return store_pb.BatchRequest(operations=operations)


async def test_a_batch_is_done_as_its_call_is(client: Client) -> None:
    stream = client.checkpoints.Pipeline()
    search = store_pb.StoreOperation(search=store_pb.SearchItemsRequest(namespace_prefix=["n"], limit=5))
    await send(stream, operation(1, batch(put("a"), put("b", if_version_match=7), get("a"))))
    (first,) = await results_of(stream, 1)
    stored, conflict, missing = first.store_batch.results
    assert stored.put.version > 0
    assert conflict.failure.reason == "ITEM_VERSION_CONFLICT"
    assert not missing.get.HasField("item")
    await send(stream, operation(2, batch(get("a"), search)))
    (second,) = await results_of(stream, 1)
    assert second.store_batch == await client.store.Batch(batch(get("a"), search))
    assert second.store_batch.results[1].search.items[0].item.key == "a"


async def test_an_empty_batch_has_an_answer_and_one_that_is_too_long_a_refusal(client: Client) -> None:
    stream = client.checkpoints.Pipeline()
    await send(stream, operation(1, batch()))
    (empty,) = await results_of(stream, 1)
    assert empty.WhichOneof("result") == "store_batch"
    await send(stream, operation(2, batch(*[get("a")] * 1001)))
    (refused,) = await results_of(stream, 1)
    assert refused.failure.reason == "INVALID_ARGUMENT"
    await send(stream, operation(3, batch(store_pb.StoreOperation(), get("a"))))
    (mixed,) = await results_of(stream, 1)
    assert [one.WhichOneof("result") for one in mixed.store_batch.results] == ["failure", "get"]


async def test_batches_and_checkpoints_do_not_wait_for_each_other(client: Client, blocker: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    stream = client.checkpoints.Pipeline()
    async with blocker() as blocked:
        await send(stream, operation(1, client.put_request(checkpoint_id="2")))
        await blocked.until_waiting(1)
        await send(stream, *(operation(number, batch(put("a"))) for number in range(2, 100)))
        results = await results_of(stream, 98)
        assert {result.WhichOneof("result") for result in results} == {"store_batch"}
    (blocked_put,) = await results_of(stream, 1)
    assert blocked_put.id == 1


async def test_an_answer_for_which_there_is_no_memory_is_refused_unless_it_tells_of_changes(serve: Any) -> None:
    async with serve(max_bytes_in_flight=ROOM) as (server, client):
        await client.store.PutItem(put("large", b'{"x": "' + b"x" * (ROOM // 2) + b'"}').put)
        search = store_pb.StoreOperation(search=store_pb.SearchItemsRequest(namespace_prefix=["n"], limit=5))
        when_sent: list[Any] = []
        # As answers do that others don't read.
        server._calls._load.take_answer(ROOM * 3 // 4, when_sent.append, refuse=False)
        stream = client.checkpoints.Pipeline()
        await send(stream, operation(1, batch(get("large"))), operation(2, batch(search)))
        for result in await results_of(stream, 2):
            assert (result.failure.reason, result.failure.metadata["bound"]) == ("OVERLOADED", "bytes")
            assert result.failure.retry_after_ms > 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.store.Batch(batch(get("large"), search))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await send(stream, operation(3, batch(get("large"), put("small"))))
        (changed,) = await results_of(stream, 1)
        read, stored = changed.store_batch.results
        assert len(read.get.item.value.data) > ROOM // 2
        assert stored.put.version
        by_itself = await client.store.Batch(batch(get("large"), put("small")))
        assert by_itself.results[1].put.version > stored.put.version
        for note in when_sent:
            note(None)
        await send(stream, operation(4, batch(get("large"))))
        (later,) = await results_of(stream, 1)
        assert later.store_batch.results[0].get.HasField("item")


async def test_a_batch_that_takes_too_long_is_refused(client: Client) -> None:
    stream = client.checkpoints.Pipeline()
    await send(stream, pb.Operation(id=1, store_batch=batch(*[put(f"{n}") for n in range(1000)]), timeout_ms=1))
    (result,) = await results_of(stream, 1)
    assert result.failure.reason == "DEADLINE_EXCEEDED" or result.failure.code == 4
