"""Every reason in errors.proto, provoked over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import lease_service_pb2, retention_service_pb2, thread_service_pb2, value_service_pb2
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd.v1.errors_pb2 import ErrorReason
from checkpointd_server.domain.access import AccessOptions, JwtOptions, Scope
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.rpc.auth.api_keys import new_key
from checkpointd_server.store.items.features import ItemFeatures
from tests.rpc.requests import channels, patch
from tests.rpc.world import World, internal, put_another


async def invalid_argument(world: World) -> Any:
    async with world.serve() as (_, client):
        return await client.refused(client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest()))


async def version_conflict(world: World) -> Any:
    async with world.serve() as (_, client):
        request = client.put_request(precondition=values.Precondition(if_version_match=7))
        return await client.refused(client.checkpoints.PutCheckpoint(request))


async def thread_exists(world: World) -> Any:
    async with world.serve() as (_, client):
        for thread_id in ("source", "target"):
            await client.checkpoints.PutCheckpoint(client.put_request(thread_id=thread_id))
        request = thread_service_pb2.CopyThreadRequest(source_thread_id="source", target_thread_id="target")
        return await client.refused(client.threads.CopyThread(request))


async def thread_archived(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        await client.threads.ArchiveThread(thread_service_pb2.ArchiveThreadRequest(thread_id="thread-1"))
        return await client.refused(client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id="checkpoint-2")))


async def thread_pinned(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        await client.threads.UpdateThread(thread_service_pb2.UpdateThreadRequest(thread_id="thread-1", pinned=True))
        return await client.refused(
            client.threads.DeleteThread(thread_service_pb2.DeleteThreadRequest(thread_id="thread-1"))
        )


async def policy_not_found(world: World) -> Any:
    async with world.serve() as (_, client):
        return await client.refused(client.retention.GetPolicy(retention_service_pb2.GetPolicyRequest(name="p")))


async def thread_not_found(world: World) -> Any:
    async with world.serve() as (_, client):
        request = thread_service_pb2.GetThreadRequest(thread_id="thread-1")
        return await client.refused(client.threads.GetThread(request))


async def checkpoint_not_found(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request(thread_id="source"))
        request = thread_service_pb2.CopyThreadRequest(
            source_thread_id="source", target_thread_id="target", checkpoint_id="gone"
        )
        return await client.refused(client.threads.CopyThread(request))


async def message_too_large(world: World) -> Any:
    async with world.serve(limits=Limits(max_message_bytes=10_000)) as (_, client):
        return await client.refused(client.raw("CheckpointService/GetCheckpoint", b"x" * 10_001))


async def overloaded(world: World) -> Any:
    async with world.busy(max_concurrent_calls=1) as (_, client, put, _):
        refusal = await client.refused(client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t")))
        put.cancel()
        return refusal


async def quota_exceeded(world: World) -> Any:
    async with world.serve(quotas=Quotas(max_calls_per_second=1)) as (_, client):
        calls = [client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t")) for _ in range(9)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return await client.refused(raise_first(results))


async def raise_first(results: list[Any]) -> None:
    raise next(result for result in results if isinstance(result, grpc.aio.AioRpcError))


async def database_unavailable(world: World) -> Any:
    async with world.serve() as (_, client):
        name = urlsplit(world.database_url).path.removeprefix("/")
        await world.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", database="postgres")
        await world.sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'", database="postgres"
        )
        return await client.refused(client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t")))


async def draining(world: World) -> Any:
    async with world.busy() as (server, client, put, blocked):
        draining = asyncio.create_task(server.drain(20))
        await asyncio.sleep(0)
        refusal = await client.refused(client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t")))
        put.cancel()
        await blocked.until_waiting(0)
        await draining
        return refusal


async def deadline_exceeded(world: World) -> Any:
    # A client with a deadline gives up by itself; this one has none and learns of it from the server.
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
    async with world.serve(default_timeout=0.2) as (_, client), world.blocker():
        return await client.refused(put_another(client))


async def lease_held(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.leases.AcquireLease(lease_service_pb2.AcquireLeaseRequest(thread_id="thread-1", holder=b"other"))
        return await client.refused(client.checkpoints.PutCheckpoint(client.put_request()))


async def lease_lost(world: World) -> Any:
    async with world.serve() as (_, client):
        return await client.refused(client.checkpoints.PutCheckpoint(client.put_request(lease_token=1)))


async def predecessor_missing(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request(writer=b"me"))
        precondition = values.Precondition(if_last_writer=b"me", if_last_checkpoint_id="checkpoint-2")
        put = client.put_request(checkpoint_id="checkpoint-3", precondition=precondition, writer=b"me")
        return await client.refused(client.checkpoints.PutCheckpoint(put))


async def base_missing(world: World) -> Any:
    async with world.serve() as (_, client):
        put = client.put_request(**channels(client, "s1", channel=patch("s0", b"base", b"base and more")))
        return await client.refused(client.checkpoints.PutCheckpoint(put))


async def chain_too_long(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=b"0")))
        for number in range(1, Limits().max_chain + 1):
            put = client.put_request(**channels(client, f"s{number}", channel=patch(f"s{number - 1}", b"0", b"0")))
            await client.checkpoints.PutCheckpoint(put)
        put = client.put_request(**channels(client, "sx", channel=patch(f"s{number}", b"0", b"0")))
        return await client.refused(client.checkpoints.PutCheckpoint(put))


async def serializer_mismatch(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request())
        other = values.Metadata(value=values.TypedValue(type="json", data=b"{}"))
        request = client.put_request(checkpoint_id="2", metadata=other)
        return await client.refused(client.checkpoints.PutCheckpoint(request))


async def sealed(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=b"0")))
        described = values.Patch(base_version="s0", size=1, sealed=True)
        value = values.TypedValue(type="msgpack+xaes", data=b"?", patch=described)
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s1", channel=value)))
        known = value_service_pb2.KnownChannelValue(channel="channel", version="s1")
        request = value_service_pb2.GetValueRequest(thread_id="thread-1", channel_value=known)
        return await client.refused(client.values.GetValue(request))


async def corrupt_value(world: World) -> Any:
    async with world.serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=b"0")))
        wrong = patch("s0", b"1", b"12")  # the stored base is another one
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s1", channel=wrong)))
        known = value_service_pb2.KnownChannelValue(channel="channel", version="s1")
        request = value_service_pb2.GetValueRequest(thread_id="thread-1", channel_value=known)
        return await client.refused(client.values.GetValue(request))


async def unauthenticated(world: World) -> Any:
    async with world.serve(access=AccessOptions(keys_file=world.keys_file)) as (_, client):
        return await client.refused(client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t")))


async def permission_denied(world: World) -> Any:
    _, entry = new_key("acme", [Scope.WRITE], "writer")
    key, second = new_key("acme", [Scope.READ], "reader")
    world.keys_file.write_text(entry + second)
    async with world.serve(access=AccessOptions(keys_file=world.keys_file)) as (_, client):
        metadata = (("authorization", f"Bearer {key}"),)
        return await client.refused(client.checkpoints.PutCheckpoint(client.put_request(), metadata=metadata))


async def keys_unavailable(world: World) -> Any:
    jwt_options = JwtOptions(jwks_url="http://127.0.0.1:1/", issuer="issuer", audiences=("here",))
    async with world.serve(access=AccessOptions(jwt=jwt_options)) as (_, client):
        key = ec.generate_private_key(ec.SECP256R1())
        metadata = (("authorization", f"Bearer {jwt.encode({}, key, algorithm='ES256')}"),)
        return await client.refused(client.checkpoints.PutCheckpoint(client.put_request(), metadata=metadata))


async def item_version_conflict(world: World) -> Any:
    async with world.serve() as (_, client):
        value = store_pb.ItemValue(type="json", data=b"{}")
        put = store_pb.PutItemRequest(namespace=["a", "b"], key="k", value=value, if_version_match=7)
        return await client.refused(client.store.PutItem(put))


async def vectors_unavailable(world: World) -> Any:
    world.store._features = ItemFeatures()
    async with world.serve() as (_, client):
        query = store_pb.VectorQuery(values=[1.0])
        return await client.refused(client.store.SearchItems(store_pb.SearchItemsRequest(limit=1, vector=query)))


Provoke = Callable[[World], Awaitable[Any]]
PROVOKED: dict[str, tuple[Provoke, grpc.StatusCode, dict[str, str | None]]] = {
    "INVALID_ARGUMENT": (invalid_argument, grpc.StatusCode.INVALID_ARGUMENT, {"field": "thread_id"}),
    "VERSION_CONFLICT": (
        version_conflict,
        grpc.StatusCode.ABORTED,
        {"thread_id": "thread-1", "checkpoint_ns": "", "expected_version": "7", "current_version": "0"},
    ),
    "THREAD_EXISTS": (thread_exists, grpc.StatusCode.ALREADY_EXISTS, {"thread_id": "target"}),
    "THREAD_ARCHIVED": (thread_archived, grpc.StatusCode.FAILED_PRECONDITION, {"thread_id": "thread-1"}),
    "THREAD_PINNED": (thread_pinned, grpc.StatusCode.FAILED_PRECONDITION, {"thread_id": "thread-1"}),
    "POLICY_NOT_FOUND": (policy_not_found, grpc.StatusCode.NOT_FOUND, {"name": "p"}),
    "THREAD_NOT_FOUND": (thread_not_found, grpc.StatusCode.NOT_FOUND, {"thread_id": "thread-1"}),
    "ITEM_VERSION_CONFLICT": (
        item_version_conflict,
        grpc.StatusCode.ABORTED,
        {"namespace": '["a", "b"]', "key": "k", "expected_version": "7", "current_version": "0"},
    ),
    "VECTORS_UNAVAILABLE": (vectors_unavailable, grpc.StatusCode.FAILED_PRECONDITION, {}),
    "CHECKPOINT_NOT_FOUND": (
        checkpoint_not_found,
        grpc.StatusCode.NOT_FOUND,
        {"thread_id": "source", "checkpoint_id": "gone"},
    ),
    "MESSAGE_TOO_LARGE": (message_too_large, grpc.StatusCode.RESOURCE_EXHAUSTED, {"limit": "10000"}),
    "DATABASE_UNAVAILABLE": (database_unavailable, grpc.StatusCode.UNAVAILABLE, {}),
    "DRAINING": (draining, grpc.StatusCode.UNAVAILABLE, {}),
    "DEADLINE_EXCEEDED": (deadline_exceeded, grpc.StatusCode.DEADLINE_EXCEEDED, {}),
    "INTERNAL": (internal, grpc.StatusCode.INTERNAL, {"error_id": None}),
    "LEASE_HELD": (lease_held, grpc.StatusCode.ABORTED, {"thread_id": "thread-1", "remaining_ms": None}),
    "LEASE_LOST": (lease_lost, grpc.StatusCode.ABORTED, {"thread_id": "thread-1"}),
    "UNAUTHENTICATED": (unauthenticated, grpc.StatusCode.UNAUTHENTICATED, {}),
    "PERMISSION_DENIED": (permission_denied, grpc.StatusCode.PERMISSION_DENIED, {"scope": "write"}),
    "KEYS_UNAVAILABLE": (keys_unavailable, grpc.StatusCode.UNAVAILABLE, {}),
    "OVERLOADED": (overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED, {"bound": "calls", "limit": "1"}),
    "QUOTA_EXCEEDED": (
        quota_exceeded,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        {"field": "calls_per_second", "limit": "1", "used": "1"},
    ),
    "PREDECESSOR_MISSING": (
        predecessor_missing,
        grpc.StatusCode.ABORTED,
        {
            "thread_id": "thread-1",
            "checkpoint_ns": "",
            "current_version": None,
            "current_checkpoint_id": "checkpoint-1",
        },
    ),
    "BASE_MISSING": (
        base_missing,
        grpc.StatusCode.FAILED_PRECONDITION,
        {"thread_id": "thread-1", "channel": "channel"},
    ),
    "CHAIN_TOO_LONG": (
        chain_too_long,
        grpc.StatusCode.FAILED_PRECONDITION,
        {"thread_id": "thread-1", "channel": "channel", "limit": "64"},
    ),
    "SERIALIZER_MISMATCH": (
        serializer_mismatch,
        grpc.StatusCode.FAILED_PRECONDITION,
        {
            "thread_id": "thread-1",
            "serializer_family": "langgraph-json",
            "thread_serializer_family": "langgraph-msgpack",
        },
    ),
    "SEALED": (sealed, grpc.StatusCode.FAILED_PRECONDITION, {}),
    "CORRUPT_VALUE": (corrupt_value, grpc.StatusCode.DATA_LOSS, {}),
}
"""How to provoke each reason, and the metadata that the client receives. A value of None may be anything."""

REASONS = [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number]


@pytest.mark.parametrize("reason", REASONS)
async def test_every_reason_reaches_the_client(world: World, reason: str) -> None:
    provoke, code, metadata = PROVOKED[reason]
    refusal = await provoke(world)
    assert (refusal.code, refusal.reason) == (code, reason)
    assert refusal.metadata.keys() == metadata.keys()
    assert {key: value for key, value in refusal.metadata.items() if metadata[key] is not None} == {
        key: value for key, value in metadata.items() if value is not None
    }
    for driver_word in ("asyncpg", "relation", "SELECT", "stolen", "Traceback"):
        assert driver_word not in refusal.message
