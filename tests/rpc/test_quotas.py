"""Quotas: refused by name, in force at once, and as exact as documented."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import stats_service_pb2 as stats_pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1 import tenant_service_pb2 as tenants_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1.stats_service_pb2_grpc import StatsServiceStub
from checkpointd.v1.tenant_service_pb2_grpc import TenantServiceStub
from checkpointd_server.domain.errors import QuotaExceeded
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.rpc.tenants import Tenants
from tests.support.operations import operation
from tests.support.until import auntil

GET = pb.GetCheckpointRequest(thread_id="thread-1")
FAST = 0.1
"""The interval at which quotas are refreshed here, in seconds."""


async def set_quotas(client: Any, **quotas: int) -> None:
    tenants: Any = TenantServiceStub(client.channel)
    wanted = tenants_pb.Quotas(**quotas)
    await tenants.SetQuotas(tenants_pb.SetQuotasRequest(tenant_name="default", quotas=wanted))


async def reason_of(call: Any) -> str | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return None


async def until_refused(client: Any, make: Any) -> Any:
    """Makes calls until one is refused, and returns the refusal."""

    async def attempt() -> str | None:
        return await reason_of(make())

    await auntil(attempt, lambda found: found is not None)
    return await client.refused(make())


async def results_of(client: Any, *requests: Any) -> list[Any]:
    """Sends operations in one message of a pipeline, and returns their results in order."""
    call = client.channel.stream_stream(
        "/checkpointd.v1.CheckpointService/Pipeline", None, pb.PipelineResponse.FromString
    )(timeout=30)
    operations = [operation(number, request) for number, request in enumerate(requests)]
    await call.write(pb.PipelineRequest(operations=operations).SerializeToString())
    results: dict[int, Any] = {}
    while len(results) < len(requests):
        results |= {result.id: result for result in (await call.read()).results}
    await call.done_writing()
    return [results[number] for number in range(len(requests))]


async def test_calls_a_second_are_refused_with_when_to_come_again(serve: Any) -> None:
    async with serve(quotas=Quotas(max_calls_per_second=5)) as (server, client):
        calls = [client.checkpoints.GetCheckpoint(GET) for _ in range(60)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert 5 <= len(results) - len(refused) < 60
        for error in refused:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            status = Status.FromString(dict(error.trailing_metadata() or ())["grpc-status-details-bin"])
            hint = RetryInfo()
            assert status.details[1].Unpack(hint)
            assert 0 < hint.retry_delay.ToMilliseconds() <= 7500
        assert server.tenants.metrics.quota_refusals["calls_per_second"] == len(refused)
        # A server that refuses a tenant because of its quota isn't overloaded.
        assert not server.load.is_overloaded


async def test_operations_of_a_pipeline_count_and_the_first_ones_are_done(serve: Any) -> None:
    async with serve(quotas=Quotas(max_calls_per_second=3)) as (_, client):
        results = await results_of(client, *[GET] * 8)
        done = [result.HasField("get_checkpoint") for result in results]
        assert done[:2] == [True, True]
        assert not all(done)
        assert sorted(done, reverse=True) == done
        failure = results[-1].failure
        assert (failure.reason, failure.metadata["field"]) == ("QUOTA_EXCEEDED", "calls_per_second")
        assert failure.retry_after_ms > 0


def test_who_comes_again_when_told_to_is_let_in_in_turn() -> None:
    now = [100.0]
    tenants = Tenants(
        Quotas(max_calls_per_second=10), max_calls=100, max_bytes=1000, max_streams=10, clock=lambda: now[0]
    )
    state = tenants.of("acme")
    assert tenants.admit(state, 0, 8) == (8, None)
    admitted, refusal = tenants.admit(state, 0, 8)
    assert admitted == 2
    assert isinstance(refusal, QuotaExceeded)
    assert refusal.retry_after == pytest.approx(0.6)
    for expected in (0.7, 0.8):
        with pytest.raises(QuotaExceeded) as raised:
            tenants.admit(state, 0)
        assert raised.value.retry_after == pytest.approx(expected)
    now[0] += 0.31
    assert tenants.admit(state, 0, 3) == (3, None)
    now[0] += 100
    assert tenants.admit(state, 0, 11)[0] == 10


async def test_bytes(serve: Any) -> None:
    async with serve(quota_refresh=FAST) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        await set_quotas(client, max_bytes=50_000)
        numbers = iter(range(2, 1000))

        def put() -> Any:
            request = client.put_request(checkpoint_id=f"checkpoint-{next(numbers)}")
            request.channels.append("channel")
            request.channel_versions.append(f"s{request.checkpoint_id}")
            request.values.add(channel="channel", version=f"s{request.checkpoint_id}", value=client.value(b"x" * 5_000))
            return client.checkpoints.PutCheckpoint(request)

        refusal = await until_refused(client, put)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert refusal.metadata["field"] == "bytes"
        assert refusal.metadata["limit"] == "50000"
        assert 40_000 <= int(refusal.metadata["used"]) <= 60_000
        assert "delete something" in refusal.message
        # Other ways to store are refused too, and so are a pipeline's operations.
        part = values_pb.PutPartRequest(thread_id="thread-1", upload_id=b"u" * 16, data=b"x" * 30_000)
        assert "quota of 50000 bytes" in str(await reason_of(client.values.PutPart(part)))
        request = client.put_request(checkpoint_id="last")
        request.values.add(channel="channel", version="slast", value=client.value(b"x" * 30_000))
        request.channels.append("channel")
        request.channel_versions.append("slast")
        (result, read) = await results_of(client, request, GET)
        assert result.failure.reason == "QUOTA_EXCEEDED"
        assert read.get_checkpoint.HasField("tuple")
        # Reads and deletions continue, and deletions make room again.
        await client.checkpoints.GetCheckpoint(GET)
        await client.threads.DeleteThread(threads_pb.DeleteThreadRequest(thread_id="thread-1"))

        async def attempt() -> str | None:
            return await reason_of(put())

        await auntil(attempt, lambda found: found is None)
        assert server.tenants.metrics.quota_refusals["bytes"] > 0


async def test_what_is_stored_between_two_looks_counts(serve: Any) -> None:
    async with serve(quota_refresh=600.0) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        await set_quotas(client, max_bytes=20_000)
        await auntil(lambda: server.tenants.of("default").usage, lambda usage: usage is not None)
        refused = 0
        for number in range(10):
            request = client.put_request(checkpoint_id=f"c{number}", channels=["a"], channel_versions=[f"s{number}"])
            request.values.add(channel="a", version=f"s{number}", value=client.value(b"x" * 5_000))
            refused += await reason_of(client.checkpoints.PutCheckpoint(request)) is not None
        assert refused >= 7


def put_item(key: str, size: int = 5_000) -> store_pb.PutItemRequest:
    value = store_pb.ItemValue(type="json", data=b'{"a":"' + b"x" * size + b'"}')
    return store_pb.PutItemRequest(namespace=["ns"], key=key, value=value)


async def test_items_count_for_the_bytes_of_their_tenant(serve: Any) -> None:
    async with serve(quota_refresh=FAST) as (server, client):
        await set_quotas(client, max_bytes=200_000)
        numbers = iter(range(1000))
        refusal = await until_refused(client, lambda: client.store.PutItem(put_item(f"{next(numbers)}")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert (refusal.metadata["field"], refusal.metadata["limit"]) == ("bytes", "200000")
        stored = (await client.store.CountItems(store_pb.CountItemsRequest())).count
        # Each item has its value and the index for filters.
        assert 15 <= stored <= 21
        assert not (await client.store.GetItem(store_pb.GetItemRequest(namespace=["ns"], key=f"{stored}"))).HasField(
            "item"
        )
        # In a batch, the puts over the quota are refused and everything else is done.
        operations = [
            store_pb.StoreOperation(get=store_pb.GetItemRequest(namespace=["ns"], key="0")),
            store_pb.StoreOperation(put=put_item("more", 30_000)),
            store_pb.StoreOperation(delete=store_pb.DeleteItemRequest(namespace=["ns"], key="1")),
        ]
        results = (await client.store.Batch(store_pb.BatchRequest(operations=operations))).results
        assert [result.WhichOneof("result") for result in results] == ["get", "failure", "delete"]
        assert (results[1].failure.reason, results[1].failure.metadata["field"]) == ("QUOTA_EXCEEDED", "bytes")
        # Threads share the quota: there is no room for their bytes either.
        request = client.put_request(channels=["a"], channel_versions=["s1"])
        request.values.add(channel="a", version="s1", value=client.value(b"x" * 30_000))
        assert "quota of 200000 bytes" in str(await reason_of(client.checkpoints.PutCheckpoint(request)))
        tenants: Any = TenantServiceStub(client.channel)
        (told,) = (await tenants.ListTenants(tenants_pb.ListTenantsRequest(tenant_name="default"))).tenants
        found = await StatsServiceStub(client.channel).GetStats(stats_pb.GetStatsRequest())
        assert told.items == found.items == stored - 1
        assert 10_000 * (stored - 1) < told.item_bytes == found.item_bytes == told.bytes - found.stored_bytes
        for number in range(2, stored):
            await client.store.DeleteItem(store_pb.DeleteItemRequest(namespace=["ns"], key=f"{number}"))

        async def attempt() -> str | None:
            return await reason_of(client.store.PutItem(put_item("room")))

        await auntil(attempt, lambda refused: refused is None)
        assert server.tenants.metrics.quota_refusals["bytes"] > 0


async def test_restored_items_count_for_the_bytes_of_their_tenant(serve: Any) -> None:
    async with serve(quota_refresh=FAST) as (_, client):
        await client.store.PutItem(put_item("0"))
        (whole,) = (await client.store.ListItems(store_pb.ListItemsRequest())).items
        await set_quotas(client, max_bytes=200_000)
        numbers = iter(range(1, 1000))

        def restore() -> Any:
            whole.item.key = f"{next(numbers)}"
            return client.store.RestoreItems(store_pb.RestoreItemsRequest(items=[whole]))

        refusal = await until_refused(client, restore)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
        assert (refusal.metadata["field"], refusal.metadata["limit"]) == ("bytes", "200000")
        stored = (await client.store.CountItems(store_pb.CountItemsRequest())).count
        assert 15 <= stored <= 21
        # Nothing of a request over the quota is stored, and the restored items leave no room for a put.
        many = store_pb.RestoreItemsRequest(items=[whole] * 9)
        for number, one in enumerate(many.items):
            one.item.key = f"more-{number}"
        assert "quota of 200000 bytes" in str(await reason_of(client.store.RestoreItems(many)))
        assert "quota of 200000 bytes" in str(await reason_of(client.store.PutItem(put_item("more", 30_000))))
        assert (await client.store.CountItems(store_pb.CountItemsRequest())).count == stored


async def test_items_of_many_callers_at_once_stay_within_the_bytes(serve: Any) -> None:
    async with serve(quota_refresh=600.0) as (server, client):
        await client.store.PutItem(put_item("first"))
        await set_quotas(client, max_bytes=500_000)
        await auntil(lambda: server.tenants.of("default").usage, lambda usage: usage is not None)
        puts = [store_pb.StoreOperation(put=put_item(f"{number}")) for number in range(200)]
        batches = [store_pb.BatchRequest(operations=puts[at : at + 10]) for at in range(0, 100, 10)]
        answers, *_ = await asyncio.gather(
            asyncio.gather(*map(client.store.Batch, batches)),
            *[reason_of(client.store.PutItem(operation.put)) for operation in puts[100:]],
        )
        results = [result for answer in answers for result in answer.results]
        assert {result.failure.reason for result in results if result.HasField("failure")} <= {"QUOTA_EXCEEDED"}
        # Each item has a little more than 10,000 bytes.
        assert 40 <= (await client.store.CountItems(store_pb.CountItemsRequest())).count <= 50
        assert server.tenants.metrics.quota_refusals["bytes"] >= 150


async def test_threads_those_that_are_there_go_on(serve: Any) -> None:
    async with serve(quota_refresh=FAST) as (_, client):
        for number in range(3):
            await client.checkpoints.PutCheckpoint(client.put_request(thread_id=f"thread-{number}"))
        await set_quotas(client, max_threads=3)
        numbers = iter(range(3, 1000))

        def put(thread_id: str | None = None) -> Any:
            request = client.put_request(thread_id=thread_id or f"thread-{next(numbers)}", checkpoint_id="checkpoint-2")
            return client.checkpoints.PutCheckpoint(request)

        refusal = await until_refused(client, put)
        assert (refusal.reason, refusal.metadata["field"], refusal.metadata["limit"]) == (
            "QUOTA_EXCEEDED",
            "threads",
            "3",
        )
        assert await reason_of(put("thread-1")) is None
        new, old = client.put_request(thread_id="new"), client.put_request(thread_id="thread-2", checkpoint_id="c3")
        results = await results_of(client, new, client.writes_request(thread_id="new"), old, GET)
        assert [result.WhichOneof("result") for result in results] == [
            *("failure", "failure", "put_checkpoint", "get_checkpoint"),
        ]
        assert {result.failure.reason for result in results[:2]} == {"QUOTA_EXCEEDED"}
        copy = threads_pb.CopyThreadRequest(source_thread_id="thread-1", target_thread_id="copied")
        assert "quota of 3 threads" in str(await reason_of(client.threads.CopyThread(copy)))


async def test_quotas_of_a_tenants_own_come_before_the_servers_and_are_shown(serve: Any) -> None:
    async with serve(quotas=Quotas(max_threads=7, max_bytes=1000), quota_refresh=FAST) as (_, client):
        stats: Any = StatsServiceStub(client.channel)
        tenants: Any = TenantServiceStub(client.channel)
        await set_quotas(client, max_bytes=0, max_calls_per_second=50)
        told = (await stats.GetStats(stats_pb.GetStatsRequest())).quotas
        assert (told.max_threads, told.max_bytes, told.max_calls_per_second) == (7, 0, 50)
        (tenant,) = (await tenants.ListTenants(tenants_pb.ListTenantsRequest(tenant_name="default"))).tenants
        assert not tenant.quotas.HasField("max_threads")
        assert tenant.effective_quotas == told
        reset = tenants_pb.SetQuotasRequest(tenant_name="default", reset=True)
        answer = await tenants.SetQuotas(reset)
        assert (answer.effective_quotas.max_bytes, answer.effective_quotas.max_threads) == (1000, 7)
        assert not answer.quotas.HasField("max_bytes")


async def test_another_server_learns_of_it_within_seconds(serve: Any) -> None:
    async with serve(quota_refresh=FAST) as (_, one), serve(quota_refresh=FAST) as (_, other):
        await set_quotas(one, max_calls_per_second=1)

        async def attempt() -> int:
            calls = [other.checkpoints.GetCheckpoint(GET) for _ in range(10)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            return sum(isinstance(result, grpc.aio.AioRpcError) for result in results)

        await auntil(attempt, lambda refused: refused > 0)


@pytest.mark.parametrize("field", ["max_bytes", "max_threads", "max_calls_per_second"])
async def test_what_is_no_quota_is_refused_by_name(field: str, serve: Any) -> None:
    async with serve() as (_, client):
        tenants: Any = TenantServiceStub(client.channel)
        for limit in (-1, 2**53 + 1):
            request = tenants_pb.SetQuotasRequest(tenant_name="t", quotas=tenants_pb.Quotas(**{field: limit}))
            refusal = await client.refused(tenants.SetQuotas(request))
            assert refusal.metadata == {"field": f"quotas.{field}", "limit": str(2**53)}
        refusal = await client.refused(tenants.SetQuotas(tenants_pb.SetQuotasRequest(tenant_name="x" * 65)))
        assert refusal.metadata["field"] == "tenant_name"


async def test_a_tenant_that_is_within_its_quotas_asks_the_database_nothing(serve: Any, store: Any) -> None:
    async with serve(quotas=Quotas(max_threads=100, max_bytes=10**9), quota_refresh=600.0) as (server, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        await auntil(lambda: server.tenants.of("default").usage, lambda usage: usage is not None)
        statements = store.connections.metrics.statements
        before = {name: sum(counted.counts) for name, counted in statements.items()}
        for number in range(20):
            await client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id=f"c{number}"))
        asked = {name for name, counted in statements.items() if sum(counted.counts) > before[name]}
        assert asked <= {"commit_group", "commit_writes"}
