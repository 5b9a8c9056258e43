"""Capacity is shared between tenants: those that have their share are refused before those that don't."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest

from checkpointd.v1 import lease_service_pb2 as leases_pb
from checkpointd_server.domain.access import AccessOptions
from checkpointd_server.domain.errors import Overloaded
from checkpointd_server.domain.fair_shares import RECENT_SECONDS
from checkpointd_server.domain.tenants import Quotas
from checkpointd_server.rpc.tenants import Tenants
from tests.rpc.serving import connection_of_its_own
from tests.support.api_keys import key_entry
from tests.support.operations import GET, operation, send
from tests.support.rpc_client import bearer
from tests.support.until import auntil


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenants(clock: Clock) -> Tenants:
    return Tenants(Quotas(), max_calls=100, max_bytes=1000, max_streams=20, clock=clock)


def at_work(tenants: Tenants) -> int:
    return sum(state.calls for state in tenants.states)


def call(tenants: Tenants, name: str, wanted: int = 1) -> int:
    """Returns how many of a tenant's calls are admitted."""
    free = 100 - at_work(tenants)
    if not free:
        return 0
    try:
        return tenants.admit(tenants.of(name), at_work(tenants), min(wanted, free))[0]
    except Overloaded:
        return 0


def test_the_only_one_has_all_of_it(tenants: Tenants) -> None:
    assert call(tenants, "greedy", 200) == 100


def test_a_newcomer_is_let_in_where_the_greedy_one_is_refused(tenants: Tenants, clock: Clock) -> None:
    tenants.of("small")
    clock.now += 1
    assert call(tenants, "greedy", 100) == 90
    assert call(tenants, "greedy") == 0
    assert tenants.metrics.share_refusals == 1
    assert call(tenants, "small", 10) == 10
    # The small one gets what the greedy one releases, until both have half.
    for _ in range(40):
        tenants.of("greedy").calls -= 1
        assert call(tenants, "greedy") == 0
        assert call(tenants, "small") == 1
    assert (tenants.of("greedy").calls, tenants.of("small").calls) == (50, 50)
    tenants.of("small").calls -= 1
    assert call(tenants, "small") == 1


def test_one_that_calls_no_more_has_no_share(tenants: Tenants, clock: Clock) -> None:
    call(tenants, "gone")
    tenants.of("gone").calls = 0
    clock.now += RECENT_SECONDS + 1
    assert call(tenants, "greedy", 100) == 100
    assert tenants.count_recent() == 1


def test_among_many_each_has_a_part(tenants: Tenants, clock: Clock) -> None:
    for number in range(10):
        tenants.of(f"t{number}")
    clock.now += 1
    got = [call(tenants, f"t{number}", 30) for number in range(10)]
    assert got[:3] == [30, 30, 30]
    # The first three got theirs before. The rest is for tenants that have nothing.
    assert got[3:] == [10, 0, 0, 0, 0, 0, 0]
    for number in range(3):
        tenants.of(f"t{number}").calls -= 10
        assert call(tenants, f"t{number + 4}", 30) == 10
        assert call(tenants, f"t{number}") == 0


def test_bytes_are_shared_alike(tenants: Tenants) -> None:
    greedy, small = tenants.of("greedy"), tenants.of("small")
    greedy.seen_at = small.seen_at = tenants._clock()
    greedy.bytes = 850
    tenants.check_bytes(greedy, 50, 850)
    with pytest.raises(Overloaded) as raised:
        tenants.check_bytes(greedy, 51, 850)
    assert (raised.value.bound, raised.value.limit) == ("bytes", 500)
    tenants.check_bytes(small, 150, 850)
    # A message larger than the bound is admitted alone.
    tenants.check_bytes(small, 5000, 0)


def test_streams_are_shared_alike(tenants: Tenants) -> None:
    greedy, small = tenants.of("greedy"), tenants.of("small")
    greedy.streams = 18
    with pytest.raises(Overloaded):
        tenants.check_stream(greedy, 18)
    tenants.check_stream(small, 18)


def test_the_smallest_bounds_can_be_shared() -> None:
    for limit in (1, 2, 3):
        tenants = Tenants(Quotas(), max_calls=limit, max_bytes=limit, max_streams=limit)
        for name in ("a", "b", "c", "d"):
            tenants.of(name)
        assert tenants.admit(tenants.of("a"), 0)[0] == 1


@pytest.fixture
def access(tmp_path: Path) -> AccessOptions:
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(key_entry(f"ckd_{name}", name, "read", "write") for name in ("greedy", "small")))
    return AccessOptions(keys_file=path)


async def test_a_greedy_tenant_leaves_room_for_a_small_one(serve: Any, blocker: Any, access: AccessOptions) -> None:
    async with serve(max_concurrent_calls=20, access=access) as (server, client):
        greedy, small = bearer("ckd_greedy"), bearer("ckd_small")
        for who in (greedy, small):
            await client.checkpoints.PutCheckpoint(client.put_request(), metadata=who)

        def put(who: Any, number: int) -> Any:
            request = client.put_request(checkpoint_id=f"c{number}")
            return asyncio.ensure_future(client.checkpoints.PutCheckpoint(request, metadata=who))

        async with blocker():
            many = [put(greedy, number) for number in range(40)]
            await auntil(lambda: sum(one.done() for one in many), lambda refused: refused == 22)
            few = [put(small, number) for number in range(2)]
            await auntil(lambda: server.tenants.of("small").calls, lambda calls: calls == 2)
            assert not any(one.done() for one in few)
            late = put(small, 2)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await late  # the server is full
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        results = await asyncio.gather(*many, return_exceptions=True)
        refused = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert len(refused) == 22
        assert all("its tenant's share" in str(error.details()) for error in refused)
        await asyncio.gather(*few)
        assert [state.calls for state in server.tenants.states] == [0, 0]
        assert [state.bytes for state in server.tenants.states] == [0, 0]


async def test_so_do_those_that_wait_for_a_lease(serve: Any, access: AccessOptions) -> None:
    async with serve(max_concurrent_calls=10, access=access) as (server, client):

        def acquire(who: str, holder: str, wait_ms: int = 30_000) -> Any:
            request = leases_pb.AcquireLeaseRequest(thread_id="t", holder=holder.encode(), wait_ms=wait_ms)
            return asyncio.ensure_future(client.leases.AcquireLease(request, metadata=bearer(f"ckd_{who}")))

        for who in ("greedy", "small"):
            await acquire(who, "first", 0)
        many = [acquire("greedy", f"g{number}") for number in range(12)]
        await auntil(lambda: server.tenants.of("greedy").waiting, lambda waiting: waiting == 9)
        few = acquire("small", "s")
        await auntil(lambda: server.tenants.of("small").waiting, lambda waiting: waiting == 1)
        for waiting in (*many, few):
            waiting.cancel()
        await asyncio.gather(*many, few, return_exceptions=True)
        await auntil(lambda: [state.calls for state in server.tenants.states], lambda calls: calls == [0, 0])
        assert [state.waiting for state in server.tenants.states] == [0, 0]


async def test_reads_of_a_small_tenant_are_not_behind_all_of_a_greedy_ones(
    serve: Any, store: Any, database_url: str, access: AccessOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(max_concurrent_calls=1000, access=access) as (server, client):
        queue = store.connections.queue
        wait_for_permit = queue.acquire
        granted: list[str | None] = []

        # The order in which reads begin. That of their answers is also PostgreSQL's, and the machine's.
        async def acquire(tenant: str | None, **more: Any) -> None:
            await wait_for_permit(tenant, **more)
            granted.append(tenant)

        async def get(who: str) -> None:
            await client.checkpoints.GetCheckpoint(GET, metadata=bearer(f"ckd_{who}"))

        for who in ("greedy", "small"):
            await client.checkpoints.PutCheckpoint(client.put_request(), metadata=bearer(f"ckd_{who}"))
        connection = await asyncpg.connect(database_url)
        monkeypatch.setattr(queue, "acquire", acquire)
        async with connection.transaction():
            await connection.execute("LOCK TABLE checkpointd.checkpoints IN ACCESS EXCLUSIVE MODE")
            many = [asyncio.ensure_future(get("greedy")) for _ in range(200)]
            await auntil(lambda: queue.waiting, lambda waiting: waiting >= 200 - queue.permits)
            few = [asyncio.ensure_future(get("small")) for _ in range(3)]
            await auntil(lambda: server.tenants.of("small").calls, lambda calls: calls == 3)
            await auntil(lambda: queue.waiting, lambda waiting: waiting >= 203 - queue.permits)
        await asyncio.gather(*many, *few)
        await connection.close()
        reads = [tenant for tenant in granted if tenant is not None]  # without the server's own
        assert len(reads) == 203
        assert reads[: queue.permits + 6].count("small") == 3
        assert queue.waiting == 0


async def test_answers_that_a_greedy_tenant_does_not_read_leave_room(
    serve: Any, tmp_path: Path, access: AccessOptions
) -> None:
    target = f"unix:{tmp_path}/socket"
    options = {"listen": (target,), "max_bytes_in_flight": 4 * 1024 * 1024, "default_timeout": 60.0, "access": access}
    async with serve(**options) as (server, client):
        greedy, small = bearer("ckd_greedy"), bearer("ckd_small")
        await client.checkpoints.PutCheckpoint(client.put_request(body=bytes(100_000)), metadata=greedy)
        await client.checkpoints.PutCheckpoint(client.put_request(body=bytes(200_000)), metadata=small)
        async with connection_of_its_own(target) as stub:
            streams = [stub.Pipeline(metadata=greedy) for _ in range(4)]
            for number in range(60):
                for stream in streams:
                    await send(stream, operation(number, GET))
            await auntil(lambda: server.tenants.metrics.share_refusals, lambda refusals: refusals > 0)
            assert server.tenants.of("greedy").bytes > 2 * 1024 * 1024
            for _ in range(5):
                answer = await client.checkpoints.GetCheckpoint(GET, metadata=small)
                assert answer.tuple.checkpoint_id == "checkpoint-1"
            for stream in streams:
                stream.cancel()
        await auntil(lambda: [state.bytes for state in server.tenants.states], lambda held: held == [0, 0])
        assert server._calls._load.held_bytes == 0
