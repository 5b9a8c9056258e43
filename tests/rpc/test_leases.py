"""LeaseService: its requests and answers, and the end of a call that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as checkpoints_pb
from checkpointd.v1 import info_service_pb2, thread_service_pb2
from checkpointd.v1 import lease_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from tests.rpc.serving import until_idle
from tests.support.until import auntil


def acquire(**fields: Any) -> pb.AcquireLeaseRequest:
    """Returns a valid AcquireLease request, in which `fields` replace others."""
    return pb.AcquireLeaseRequest(**{"thread_id": "thread-1", "holder": b"me", **fields})


def renew(**fields: Any) -> pb.RenewLeaseRequest:
    return pb.RenewLeaseRequest(**{"thread_id": "thread-1", "token": 1, **fields})


def release(**fields: Any) -> pb.ReleaseLeaseRequest:
    return pb.ReleaseLeaseRequest(**{"thread_id": "thread-1", "holder": b"me", **fields})


def thread_lease(**fields: Any) -> values.ThreadLease:
    return values.ThreadLease(**{"thread_id": "thread-1", "token": 1, **fields})


async def state(client: Any) -> pb.GetLeaseResponse:
    answer: pb.GetLeaseResponse = await client.leases.GetLease(pb.GetLeaseRequest(thread_id="thread-1"))
    return answer


async def until_waiting(client: Any, number: int) -> None:
    await auntil(lambda: state(client), lambda lease: lease.waiting == number)


async def test_a_lease_from_asking_to_giving_up(client: Any) -> None:
    lease = await client.leases.AcquireLease(acquire(ttl_ms=60_000))
    assert lease.token > 0
    assert 0 < lease.remaining_ms <= 60_000
    found = await state(client)
    assert found.waiting == 0
    assert 0 < found.remaining_ms <= 60_000
    assert (await client.leases.AcquireLease(acquire())).token == lease.token
    answer = await client.leases.RenewLease(renew(token=lease.token, ttl_ms=600_000))
    assert 60_000 < answer.remaining_ms <= 600_000
    await client.checkpoints.PutCheckpoint(client.put_request(lease_token=lease.token))
    await client.checkpoints.PutWrites(client.writes_request(lease_token=lease.token))
    assert (await client.leases.ReleaseLease(release())).released
    assert not (await client.leases.ReleaseLease(release())).released
    assert await state(client) == pb.GetLeaseResponse()


async def test_work_on_threads_names_its_leases(client: Any) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=client.metadata({"run_id": "run"})))
    await client.checkpoints.PutCheckpoint(client.put_request(thread_id="source"))
    token = (await client.leases.AcquireLease(acquire())).token
    calls: list[tuple[Callable[[Any], Any], Any]] = [
        (client.threads.PruneThreads, thread_service_pb2.PruneThreadsRequest(thread_ids=["thread-1"])),
        (client.threads.DeleteRuns, thread_service_pb2.DeleteRunsRequest(run_ids=["run"])),
        (client.threads.DeleteThread, thread_service_pb2.DeleteThreadRequest(thread_id="thread-1")),
        (
            client.threads.CopyThread,
            thread_service_pb2.CopyThreadRequest(source_thread_id="source", target_thread_id="thread-1"),
        ),
    ]
    for call, request in calls:
        assert (await client.refused(call(request))).reason == "LEASE_HELD"
        for given, reason in ((token + 1, "LEASE_LOST"), (token, None)):
            if "leases" in request.DESCRIPTOR.fields_by_name:
                del request.leases[:]
                request.leases.add(thread_id="thread-1", token=given)
            else:
                request.lease_token = given
            if reason is not None:
                assert (await client.refused(call(request))).reason == reason
        await call(request)


async def test_the_defaults_and_the_limits_are_those_that_the_server_tells(client: Any) -> None:
    info = await client.info.GetServerInfo(info_service_pb2.GetServerInfoRequest())
    assert info_service_pb2.CAPABILITY_LEASES in info.capabilities
    limits = info.limits
    assert (limits.min_lease_ttl_ms, limits.max_lease_ttl_ms, limits.max_lease_wait_ms) == (1_000, 3_600_000, 30_000)
    for ttl_ms, least, most in ((0, 20_000, 30_000), (1_000, 1, 1_000), (3_600_000, 3_500_000, 3_600_000)):
        lease = await client.leases.AcquireLease(acquire(ttl_ms=ttl_ms))
        assert least <= lease.remaining_ms <= most
        lease = await client.leases.AcquireLease(acquire())  # the shortest lease may have ended by now
        answer = await client.leases.RenewLease(renew(token=lease.token, ttl_ms=ttl_ms))
        assert least <= answer.remaining_ms <= most


REFUSED: list[tuple[str, Any, str, int | None]] = [
    *(
        (method, make(thread_id=thread_id), "thread_id", limit)
        for method, make in (
            ("AcquireLease", acquire),
            ("RenewLease", renew),
            ("ReleaseLease", release),
            ("GetLease", pb.GetLeaseRequest),
        )
        for thread_id, limit in (("", None), ("a\0b", None), ("x" * 513, 512), ("é" * 257, 512))
    ),
    ("AcquireLease", acquire(holder=b""), "holder", None),
    ("AcquireLease", acquire(holder=b"h" * 33), "holder", 32),
    ("AcquireLease", acquire(ttl_ms=-1), "ttl_ms", 1_000),
    ("AcquireLease", acquire(ttl_ms=999), "ttl_ms", 1_000),
    ("AcquireLease", acquire(ttl_ms=3_600_001), "ttl_ms", 3_600_000),
    ("AcquireLease", acquire(ttl_ms=2**63 - 1), "ttl_ms", 3_600_000),
    ("AcquireLease", acquire(wait_ms=-1), "wait_ms", None),
    ("RenewLease", renew(token=0), "token", None),
    ("RenewLease", renew(token=-1), "token", None),
    ("RenewLease", renew(ttl_ms=999), "ttl_ms", 1_000),
    ("RenewLease", renew(ttl_ms=3_600_001), "ttl_ms", 3_600_000),
    ("ReleaseLease", release(holder=b""), "holder", None),
    ("ReleaseLease", release(holder=b"h" * 33), "holder", 32),
    *(
        (method, make(leases=leases), field, limit)
        for method, make in (
            ("DeleteRuns", thread_service_pb2.DeleteRunsRequest),
            ("PruneThreads", thread_service_pb2.PruneThreadsRequest),
        )
        for leases, field, limit in (
            ([thread_lease(thread_id="")], "leases[0].thread_id", None),
            ([thread_lease(), thread_lease(thread_id="x" * 513)], "leases[1].thread_id", 512),
            ([thread_lease(), thread_lease(thread_id="a\0b")], "leases[1].thread_id", None),
            ([thread_lease(token=0)], "leases[0].token", None),
            ([thread_lease(), thread_lease(token=2)], "leases[1].thread_id", None),
            ([thread_lease()] * 1001, "leases", 1000),
        )
    ),
]


@pytest.mark.parametrize(("method", "request_", "field", "limit"), REFUSED)
async def test_unusable_arguments_are_refused(
    client: Any, method: str, request_: Any, field: str, limit: int | None
) -> None:
    service = client.leases if hasattr(client.leases, method) else client.threads
    refusal = await client.refused(getattr(service, method)(request_))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal.metadata == ({"field": field} if limit is None else {"field": field, "limit": str(limit)})
    assert await state(client) == pb.GetLeaseResponse()


async def test_the_longest_names_are_taken(client: Any) -> None:
    names = {"thread_id": "x" * 512, "holder": b"h" * 32}
    lease = await client.leases.AcquireLease(acquire(**names, wait_ms=1))
    await client.leases.RenewLease(renew(thread_id=names["thread_id"], token=lease.token))
    await client.leases.ReleaseLease(release(**names))


async def test_a_wait_ends_in_lease_held_or_in_the_lease(client: Any) -> None:
    first = await client.leases.AcquireLease(acquire())
    refusal = await client.refused(client.leases.AcquireLease(acquire(holder=b"other", wait_ms=100)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "LEASE_HELD")
    assert refusal.metadata["thread_id"] == "thread-1"
    assert 0 < int(refusal.metadata["remaining_ms"]) <= 30_000
    waiter = asyncio.ensure_future(client.leases.AcquireLease(acquire(holder=b"other", wait_ms=20_000)))
    await until_waiting(client, 1)
    await client.leases.ReleaseLease(release())
    assert (await waiter).token > first.token


async def test_the_server_waits_no_longer_than_its_limit(serve: Any) -> None:
    async with serve(limits=Limits(max_lease_wait_ms=200)) as (_, client):
        await client.leases.AcquireLease(acquire())
        request = acquire(holder=b"other", wait_ms=2**63 - 1)
        refusal = await client.refused(client.leases.AcquireLease(request, timeout=20))
        assert refusal.reason == "LEASE_HELD"


async def test_calls_that_wait_are_not_counted_as_calls_at_work(serve: Any) -> None:
    async with serve(max_concurrent_calls=2) as (server, client):
        await client.leases.AcquireLease(acquire())
        waiters = []
        for number in range(2):
            waiting = client.leases.AcquireLease(acquire(holder=b"w%d" % number, wait_ms=20_000))
            waiters.append(asyncio.ensure_future(waiting))
            # One by one: until a call waits it counts as any other, and so does the call that checks whether it waits.
            await until_waiting(client, number + 1)
        get = checkpoints_pb.GetCheckpointRequest(thread_id="thread-1")
        await asyncio.gather(*(client.checkpoints.GetCheckpoint(get) for _ in range(2)))
        # But the number of waiting calls is limited, too.
        one_more = acquire(holder=b"one more", wait_ms=20_000)
        assert (await client.refused(client.leases.AcquireLease(one_more))).reason == "OVERLOADED"
        for waiter in waiters:
            waiter.cancel()
        await until_idle(server)


async def test_a_server_that_shuts_down_sends_the_waiting_elsewhere(serve: Any) -> None:
    async with serve() as (server, client):
        await client.leases.AcquireLease(acquire())
        waiter = asyncio.ensure_future(client.refused(client.leases.AcquireLease(acquire(holder=b"w", wait_ms=30_000))))
        await until_waiting(client, 1)
        await asyncio.wait_for(server.drain(25), 20)
        refusal = await waiter
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_client_that_hangs_up_waits_no_longer(serve: Any) -> None:
    async with serve() as (server, client):
        await client.leases.AcquireLease(acquire())
        refusal = await client.refused(client.leases.AcquireLease(acquire(holder=b"w", wait_ms=30_000), timeout=0.3))
        assert refusal.code == grpc.StatusCode.DEADLINE_EXCEEDED
        await until_idle(server)
