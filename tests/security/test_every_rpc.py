"""Every RPC of the protocol with every kind of invalid credentials. New RPCs are included automatically."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import (
    lease_service_pb2,
    retention_service_pb2,
    tenant_service_pb2,
    thread_service_pb2,
    value_service_pb2,
    values_pb2,
)
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd_server.domain.access import JwtOptions, Scope
from checkpointd_server.rpc.auth.scopes import NEEDED, OPERATIONS, STORE_OPERATIONS, CallScope
from checkpointd_server.rpc.pipeline.stream_operations import OPERATION_METHODS
from tests.security.serving import Serve
from tests.support.authority import AUDIENCE, ISSUER, Issuer
from tests.support.operations import operation
from tests.support.rpc_client import Client, bearer, connected
from tests.support.rpcs import METHODS

KEEP_NOTHING = retention_service_pb2.RetentionPolicy(name="theirs", max_idle_seconds=1, keep_newest=1)
UPLOADED = b"a part of a large value"
WEAKER = {
    scope: ("none", *(other.value for other in Scope if other not in (scope, Scope.ADMIN, Scope.OPERATOR)))
    for scope in Scope
} | {Scope.OPERATOR: ("none", *(other.value for other in Scope if other is not Scope.OPERATOR))}
"""Keys that each lack one scope."""


async def call(client: Client, method: MethodDescriptor, request: Any, metadata: Any) -> Any:
    """Makes a call. A stream that ends while its first message is written reports an error of grpc's own; retries then.

    Source: https://github.com/grpc/grpc/issues/36066
    """
    for _ in range(5):
        try:
            return await _call(client, method, request, metadata)
        except grpc.aio.AioRpcError as error:
            if error.details() != "Internal error from Core":
                raise
    raise AssertionError("the stream never told its own reason")


async def _call(client: Client, method: MethodDescriptor, request: Any, metadata: Any) -> Any:
    path = f"/{method.containing_service.full_name}/{method.name}"
    response_type: Any = GetMessageClass(method.output_type)
    data = request.SerializeToString()
    if not method.client_streaming:
        raw = client.channel.unary_unary(path, None, response_type.FromString)
        return await raw(data, metadata=metadata, timeout=20)
    stream = client.channel.stream_stream(path, None, response_type.FromString)(metadata=metadata, timeout=20)
    with suppress(asyncio.InvalidStateError):  # it has already ended
        await stream.write(data)
        await stream.done_writing()
    answer = response_type()
    async for part in stream:
        answer.MergeFrom(part)
    return answer


async def code_of(call: Awaitable[Any]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def empty(method: MethodDescriptor) -> Any:
    message: Any = GetMessageClass(method.input_type)
    return message()


def test_every_rpc_says_which_scope_it_needs() -> None:
    assert set(NEEDED) == set(METHODS)
    assert len(METHODS) >= 17


def test_every_operation_of_a_pipeline_says_which_scope_it_needs() -> None:
    assert set(OPERATIONS) == {field.name for field in pb.Operation.DESCRIPTOR.oneofs_by_name["operation"].fields}
    for field, scope in OPERATIONS.items():
        name = OPERATION_METHODS[field].replace("/", ".")
        assert NEEDED[f"checkpointd.v1.{name}"] is scope


def wrong_credentials(issuer: Issuer) -> dict[str, Any]:
    stranger = Issuer()
    good = issuer.token()
    head, _, signature = good.split(".")
    other_body = issuer.token(tenant="other").split(".")[1]
    tokens = {
        "an unknown key": "ckd_nobody",
        "an expired key": "ckd_expired",
        "no key and no token": "garbage",
        "an expired token": issuer.token(exp=1_000_000_000),
        "a token that never expires": issuer.token(exp=None),
        "a token from the future": issuer.token(nbf=4_000_000_000),
        "a token of another issuer": issuer.token(iss="https://other.test/"),
        "a token of no issuer": issuer.token(iss=None),
        "a token for another audience": issuer.token(aud="something else"),
        "a token for no audience": issuer.token(aud=None),
        "a token of a key that isn't the issuer's": stranger.token(),
        "a token whose claims were changed": f"{head}.{other_body}.{signature}",
        "a token without a signature": f"{head}.{good.split('.')[1]}.",
        "a token with the algorithm none": issuer.token(algorithm="none"),
        "a token that the public key signs as a secret": issuer.token(algorithm="HS256", key=b"x" * 32),
        "a token that demands something": issuer.token(headers={"crit": ["exp"]}),
        "a token without a tenant": issuer.token(tenant=None),
        "a token with an empty tenant": issuer.token(tenant=""),
        "a token with a tenant that is no text": issuer.token(tenant=["acme"]),
        "a token with too long a tenant": issuer.token(tenant="a" * 65),
    }
    wrong: dict[str, Any] = {name: bearer(token) for name, token in tokens.items()}
    wrong["nothing"] = ()
    wrong["another scheme"] = (("authorization", "Basic Y2tkX2FjbWUtYWxsOg=="),)
    wrong["two tokens"] = (*bearer("ckd_acme-all"), *bearer("ckd_acme-all"))
    wrong["a key without its scheme"] = (("authorization", "ckd_acme-all"),)
    wrong["a tenant in the metadata"] = (("tenant", "acme"), ("x-tenant", "acme"))
    return wrong


WRONG = list(wrong_credentials(Issuer()))


@pytest.fixture
async def guarded(serve: Serve, keys_file: Path, tmp_path: Path) -> Any:
    """A server that accepts keys and tokens, and the tokens' issuer."""
    issuer = Issuer()
    keys = tmp_path / "issuer.json"
    keys.write_bytes(issuer.jwks)
    options = JwtOptions(keys_file=keys, issuer=ISSUER, audiences=(AUDIENCE,))
    async with serve(keys_file=keys_file, jwt=options) as target, connected(target) as client:
        yield client, issuer


@pytest.mark.parametrize("name", METHODS)
async def test_nobody_calls_it_without_credentials_that_are_believed(name: str, guarded: Any) -> None:
    client, issuer = guarded
    for problem, metadata in wrong_credentials(issuer).items():
        refusal = await client.refused(call(client, METHODS[name], empty(METHODS[name]), metadata))
        told = (refusal.code, refusal.reason)
        assert told == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), (problem, refusal.message)
        for value in metadata:
            secret = value[1].removeprefix("Bearer ")
            assert secret not in refusal.message


@pytest.mark.parametrize("name", [name for name, needed in NEEDED.items() if isinstance(needed, Scope)])
async def test_nobody_calls_it_without_its_scope(name: str, guarded: Any) -> None:
    client, issuer = guarded
    needed = NEEDED[name]
    assert isinstance(needed, Scope)
    tokens = [f"ckd_acme-{scope}" for scope in WEAKER[needed]]
    tokens += [issuer.token(scopes=[]), issuer.token(scopes=None), issuer.token(scopes="READ admins *")]
    for token in tokens:
        refusal = await client.refused(call(client, METHODS[name], empty(METHODS[name]), bearer(token)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert refusal.metadata == {"scope": needed.value}
    stronger = [] if needed is Scope.OPERATOR else ["ckd_acme-admin"]
    for token in (f"ckd_acme-{needed.value}", *stronger, issuer.token(scopes=[needed.value])):
        # The scope is sufficient; only the request is empty.
        assert await code_of(call(client, METHODS[name], empty(METHODS[name]), bearer(token))) in (
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
        )


@pytest.mark.parametrize("name", [name for name, needed in NEEDED.items() if not isinstance(needed, Scope)])
async def test_what_needs_no_scope_is_open_to_every_identity_but_only_to_those(name: str, guarded: Any) -> None:
    client, _ = guarded
    await call(client, METHODS[name], empty(METHODS[name]), bearer("ckd_acme-none"))


def test_what_needs_no_scope_is_known_by_name() -> None:
    assert {name.rpartition(".")[2] for name, needed in NEEDED.items() if needed is None} == {"GetServerInfo"}
    by_operation = {name.rpartition(".")[2] for name, needed in NEEDED.items() if needed is CallScope.PER_OPERATION}
    assert by_operation == {"Batch", "Pipeline"}


async def test_each_operation_of_a_pipeline_needs_its_own_scope(guarded: Any) -> None:
    client, _ = guarded
    method = METHODS["checkpointd.v1.CheckpointService.Pipeline"]
    get = pb.GetCheckpointRequest(thread_id="thread-1")
    operations = [operation(i, one) for i, one in enumerate((client.put_request(), get, client.writes_request()))]
    request = pb.PipelineRequest(operations=operations)
    for scope, allowed in (("none", set()), ("read", {1}), ("write", {0, 2}), ("admin", {0, 1, 2})):
        answer = await call(client, method, request, bearer(f"ckd_acme-{scope}"))
        assert len(answer.results) == 3
        failed = {result.id: result.failure for result in answer.results if result.HasField("failure")}
        assert set(failed) == {0, 1, 2} - allowed
        for failure in failed.values():
            assert failure.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
            assert failure.reason == "PERMISSION_DENIED"
            assert failure.metadata["scope"] in ("read", "write")


def test_every_operation_of_a_batch_says_which_scope_it_needs() -> None:
    assert set(STORE_OPERATIONS) == {
        field.name for field in store_pb.StoreOperation.DESCRIPTOR.oneofs_by_name["operation"].fields
    }


async def test_each_operation_of_a_batch_needs_its_own_scope(guarded: Any) -> None:
    client, _ = guarded
    method = METHODS["checkpointd.v1.StoreService.Batch"]
    operations = [
        store_pb.StoreOperation(get=get_item()),
        store_pb.StoreOperation(put=put_item()),
        store_pb.StoreOperation(delete=store_pb.DeleteItemRequest(namespace=["thread-1"], key="k")),
        store_pb.StoreOperation(search=store_pb.SearchItemsRequest(limit=1)),
        store_pb.StoreOperation(list_namespaces=store_pb.ListNamespacesRequest(limit=1)),
        store_pb.StoreOperation(count=store_pb.CountItemsRequest()),
    ]
    request = store_pb.BatchRequest(operations=operations)
    pipeline = METHODS["checkpointd.v1.CheckpointService.Pipeline"]
    streamed = pb.PipelineRequest(operations=[operation(1, request)])
    reads, writes = {0, 3, 4, 5}, {1, 2}
    for scope, allowed in (("read", set()), ("store:read", reads), ("store:write", writes), ("admin", reads | writes)):
        answer = await call(client, method, request, bearer(f"ckd_acme-{scope}"))
        (result,) = (await call(client, pipeline, streamed, bearer(f"ckd_acme-{scope}"))).results
        for results in (answer.results, result.store_batch.results):
            assert len(results) == 6
            failed = {number: one.failure for number, one in enumerate(results) if one.HasField("failure")}
            assert set(failed) == set(range(6)) - allowed
            for failure in failed.values():
                assert failure.reason == "PERMISSION_DENIED"
                assert failure.metadata["scope"] in ("store:read", "store:write")


def get_item() -> store_pb.GetItemRequest:
    return store_pb.GetItemRequest(namespace=["thread-1"], key="k")


def put_item(content: bytes = b"{}") -> store_pb.PutItemRequest:
    value = store_pb.ItemValue(type="json", data=content)
    return store_pb.PutItemRequest(namespace=["thread-1"], key="k", value=value)


def whole_item() -> store_pb.Item:
    put, time = put_item(), Timestamp(seconds=1_700_000_000)
    return store_pb.Item(namespace=put.namespace, key=put.key, value=put.value, created_at=time, updated_at=time)


def requests_about(tenant_client: Client, thread_id: str) -> dict[str, Any]:
    """Returns a request to each RPC about a thread, by the RPC's name, as the thread's owner would send it."""
    target: dict[str, Any] = {"thread_id": thread_id}
    return {
        "Pipeline": pb.PipelineRequest(operations=[operation(1, pb.GetCheckpointRequest(**target))]),
        "GetCheckpoint": pb.GetCheckpointRequest(**target),
        "GetDeltaChannelHistory": pb.GetDeltaChannelHistoryRequest(**target, channels=["channel"]),
        "ListCheckpoints": pb.ListCheckpointsRequest(),
        "PutCheckpoint": tenant_client.put_request(**target, checkpoint_id="checkpoint-9"),
        "PutWrites": tenant_client.writes_request(**target),
        "GetServerInfo": None,
        "SetPolicy": retention_service_pb2.SetPolicyRequest(policy=KEEP_NOTHING),
        "GetPolicy": retention_service_pb2.GetPolicyRequest(name="secret"),
        "ListPolicies": None,
        "DeletePolicy": retention_service_pb2.DeletePolicyRequest(name="secret"),
        "PreviewRetention": retention_service_pb2.PreviewRetentionRequest(policy=KEEP_NOTHING),
        "RunRetention": None,
        "ListExpiring": None,
        "AcknowledgeExpiring": retention_service_pb2.AcknowledgeExpiringRequest(**target),
        "AcquireLease": lease_service_pb2.AcquireLeaseRequest(**target, holder=b"me"),
        "GetLease": lease_service_pb2.GetLeaseRequest(**target),
        "ReleaseLease": lease_service_pb2.ReleaseLeaseRequest(**target, holder=b"me"),
        "RenewLease": lease_service_pb2.RenewLeaseRequest(**target, token=1),
        "GetValue": value_service_pb2.GetValueRequest(
            **target, channel_value=value_service_pb2.KnownChannelValue(channel="channel", version="s1")
        ),
        "PutPart": value_service_pb2.PutPartRequest(**target, upload_id=b"u" * 16, data=b"their part"),
        "Batch": store_pb.BatchRequest(
            operations=[
                store_pb.StoreOperation(get=get_item()),
                store_pb.StoreOperation(put=put_item()),
                store_pb.StoreOperation(search=store_pb.SearchItemsRequest(limit=10)),
            ]
        ),
        "GetItem": get_item(),
        "PutItem": put_item(),
        "DeleteItem": store_pb.DeleteItemRequest(namespace=["thread-1"], key="k"),
        "SearchItems": store_pb.SearchItemsRequest(limit=10, filter_json='{"of": "secret"}'),
        "CountItems": store_pb.CountItemsRequest(),
        "ListItems": store_pb.ListItemsRequest(),
        "ListNamespaces": store_pb.ListNamespacesRequest(limit=10),
        "RestoreItems": store_pb.RestoreItemsRequest(items=[store_pb.WholeItem(item=whole_item())], replace=True),
        "CopyThread": thread_service_pb2.CopyThreadRequest(source_thread_id=thread_id, target_thread_id="copied"),
        "ListThreads": thread_service_pb2.ListThreadsRequest(
            filter=thread_service_pb2.ThreadFilter(thread_id_prefix=thread_id)
        ),
        "CountThreads": thread_service_pb2.CountThreadsRequest(),
        "GetThread": thread_service_pb2.GetThreadRequest(**target),
        "GetThreadTree": thread_service_pb2.GetThreadTreeRequest(**target),
        "ShowCheckpoint": thread_service_pb2.ShowCheckpointRequest(**target),
        "DiffCheckpoints": thread_service_pb2.DiffCheckpointsRequest(
            **target, before_checkpoint_id="checkpoint-1", after_checkpoint_id="checkpoint-1"
        ),
        "ArchiveThread": thread_service_pb2.ArchiveThreadRequest(**target),
        "UpdateThread": thread_service_pb2.UpdateThreadRequest(**target, pinned=True, remove_tags=["secret"]),
        "DeleteRuns": thread_service_pb2.DeleteRunsRequest(run_ids=["run"]),
        "DeleteThread": thread_service_pb2.DeleteThreadRequest(**target),
        "GetActivity": None,
        "GetServerActivity": None,
        "GetStats": None,
        "ListTenants": tenant_service_pb2.ListTenantsRequest(tenant_name="acme"),
        "PurgeTenant": tenant_service_pb2.PurgeTenantRequest(tenant_name="acme", include_pinned=True),
        "PurgeThreads": thread_service_pb2.PurgeThreadsRequest(all_threads=True, include_pinned=True),
        "SetQuotas": tenant_service_pb2.SetQuotasRequest(
            tenant_name="acme", quotas=tenant_service_pb2.Quotas(max_threads=1)
        ),
        "PruneThreads": thread_service_pb2.PruneThreadsRequest(
            thread_ids=[thread_id], strategy=thread_service_pb2.PRUNE_STRATEGY_DELETE
        ),
    }


@pytest.mark.parametrize("name", METHODS)
async def test_another_tenant_sees_and_changes_nothing(name: str, guarded: Any) -> None:
    client, _ = guarded
    is_operators = NEEDED[name] is Scope.OPERATOR
    mine, foreign = bearer("ckd_acme-all"), bearer(f"ckd_other-{'admin' if NEEDED[name] is Scope.ADMIN else 'all'}")
    short = name.rpartition(".")[2]
    requests = requests_about(client, "thread-1")
    assert short in requests, f"add a request of {short} about a thread to requests_about"
    request = requests[short] or empty(METHODS[name])

    put = client.put_request(metadata=client.metadata({"run_id": "run"}))
    put.channels.append("channel")
    put.channel_versions.append("s1")
    put.values.add(channel="channel", version="s1", value=client.value(b"secret"))
    await client.checkpoints.PutCheckpoint(put, metadata=mine)
    await client.checkpoints.PutWrites(client.writes_request(), metadata=mine)
    await client.store.PutItem(put_item(b'{"of": "secret"}'), metadata=mine)
    policy = retention_service_pb2.RetentionPolicy(name="secret", max_idle_seconds=10**6)
    await client.retention.SetPolicy(
        retention_service_pb2.SetPolicyRequest(policy=policy), metadata=bearer("ckd_acme-admin")
    )
    part = value_service_pb2.PutPartRequest(thread_id="thread-1", upload_id=b"u" * 16, data=UPLOADED)
    await client.values.PutPart(part, metadata=mine)
    lease = lease_service_pb2.AcquireLeaseRequest(thread_id="thread-1", holder=b"me")
    token = (await client.leases.AcquireLease(lease, metadata=mine)).token

    async def state() -> list[bytes]:
        listed = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(), metadata=mine)
        lease = await client.leases.GetLease(lease_service_pb2.GetLeaseRequest(thread_id="thread-1"), metadata=mine)
        value = await client.values.GetValue(requests["GetValue"], metadata=mine)
        item = await client.store.GetItem(get_item(), metadata=mine)
        policies = await client.retention.ListPolicies(retention_service_pb2.ListPoliciesRequest(), metadata=mine)
        states = (listed, value, item, policies)
        return [str(lease.waiting).encode(), *(state.SerializeToString(deterministic=True) for state in states)]

    before = await state()
    seen = b""
    # The answer is "not found" or "no such lease", never "permission denied".
    with suppress(grpc.aio.AioRpcError):
        seen = (await call(client, METHODS[name], request, foreign)).SerializeToString()
    assert await state() == before
    assert await code_of(call(client, METHODS[name], request, foreign)) in (
        {grpc.StatusCode.PERMISSION_DENIED}
        if is_operators
        else {grpc.StatusCode.OK, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND}
    )
    for mark in (b"secret", b"written", b"checkpoint-1", UPLOADED):
        assert mark not in seen
    # The upload is still there, and still belongs to its owner.
    put = client.put_request(checkpoint_id="checkpoint-2", channels=["channel"], channel_versions=["s2"])
    parts = values_pb2.Parts(upload_id=b"u" * 16, size=len(UPLOADED))
    put.values.add(channel="channel", version="s2", value=values_pb2.TypedValue(type="bytes", parts=parts))
    put.lease_token = token
    await client.checkpoints.PutCheckpoint(put, metadata=mine)
    requests["GetValue"].channel_value.version = "s2"
    assert (await client.values.GetValue(requests["GetValue"], metadata=mine)).data == UPLOADED


async def test_the_owner_sees_what_another_tenant_does_not(guarded: Any) -> None:
    client, issuer = guarded
    await client.checkpoints.PutCheckpoint(client.put_request(), metadata=bearer("ckd_acme-all"))
    request = pb.GetCheckpointRequest(thread_id="thread-1")
    for token, there in (("ckd_acme-read", True), (issuer.token(), True), ("ckd_other-read", False)):
        found = await client.checkpoints.GetCheckpoint(request, metadata=bearer(token))
        assert found.HasField("tuple") is there


async def test_a_page_token_of_another_tenant_is_refused(guarded: Any) -> None:
    client, _ = guarded
    for number in range(3):
        for tenant in ("acme", "other"):
            put = client.put_request(checkpoint_id=f"{tenant}-{number}")
            await client.checkpoints.PutCheckpoint(put, metadata=bearer(f"ckd_{tenant}-all"))
    page = await client.checkpoints.ListCheckpoints(
        pb.ListCheckpointsRequest(page_size=1), metadata=bearer("ckd_acme-all")
    )
    assert page.next_page_token
    request = pb.ListCheckpointsRequest(page_size=1, page_token=page.next_page_token)
    refusal = await client.refused(client.checkpoints.ListCheckpoints(request, metadata=bearer("ckd_other-all")))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
