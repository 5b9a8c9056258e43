"""Leases: one holder at a time, by the database's clock, in the order of requests."""

from __future__ import annotations

import asyncio

import pytest

from checkpointd_server.domain.errors import LeaseHeld, LeaseLost
from checkpointd_server.store import StoreOptions, open_store
from tests.store.leases import pass_time
from tests.support.tenant import Tenant
from tests.support.until import auntil


async def waiting(tenant: Tenant, number: int) -> None:
    """Waits until this many callers wait for the lease."""

    await auntil(tenant.lease, lambda lease: lease.waiting == number)


async def leftovers(tenant: Tenant) -> int:
    """Returns the number of rows that a tenant's leases left behind, except those of threads."""
    return int(
        (await tenant.select("SELECT count(*) FROM checkpointd.lease_waiters WHERE tenant = $1", tenant.name))[0][0]
    )


class TestGrants:
    async def test_a_free_lease_is_granted_for_its_time_to_live(self, tenant: Tenant) -> None:
        lease = await tenant.acquire("a", ttl=60)
        assert lease.token > 0
        assert 50 < lease.remaining <= 60
        state = await tenant.lease()
        assert state.lease is not None
        assert state.lease.token == lease.token
        assert 0 < state.lease.remaining <= 60
        assert state.waiting == 0

    async def test_the_holder_gets_its_own_lease_again_with_a_new_time_to_live(self, tenant: Tenant) -> None:
        lease = await tenant.acquire("a", ttl=60)
        again = await tenant.acquire("a", ttl=600)
        assert again.token == lease.token
        assert again.remaining > 500

    async def test_another_is_refused_and_told_how_long_the_lease_lives(self, tenant: Tenant) -> None:
        await tenant.acquire("a", ttl=60)
        with pytest.raises(LeaseHeld) as refused:
            await tenant.acquire("b")
        assert refused.value.thread_id == "t"
        assert refused.value.remaining is not None
        assert 0 < refused.value.remaining <= 60
        assert (await tenant.lease()).waiting == 0

    async def test_a_renewal_counts_from_when_it_is_made(self, tenant: Tenant) -> None:
        lease = await tenant.acquire("a", ttl=60)
        await pass_time(tenant, 50)
        assert (await tenant.renew(lease.token, ttl=60)).remaining > 50
        await pass_time(tenant, 50)
        with pytest.raises(LeaseHeld):
            await tenant.acquire("b")

    async def test_a_lease_that_has_expired_is_nobodys_and_cannot_be_renewed(self, tenant: Tenant) -> None:
        lease = await tenant.acquire("a", ttl=60)
        await pass_time(tenant, 61)
        assert (await tenant.lease()).lease is None
        with pytest.raises(LeaseLost):
            await tenant.renew(lease.token)
        assert not await tenant.release("a")

    async def test_a_lease_of_another_cannot_be_renewed_or_released(self, tenant: Tenant) -> None:
        lease = await tenant.acquire("a")
        with pytest.raises(LeaseLost):
            await tenant.renew(lease.token + 1)
        assert not await tenant.release("b")
        with pytest.raises(LeaseHeld):
            await tenant.put("c")

    async def test_every_lease_has_a_greater_token_than_those_before_it(self, tenant: Tenant) -> None:
        tokens = [(await tenant.acquire("a")).token]
        assert await tenant.release("a")
        tokens.append((await tenant.acquire("a")).token)
        await pass_time(tenant, 61)
        tokens.append((await tenant.acquire("a")).token)  # the same holder, but not the same lease
        await pass_time(tenant, 61)
        tokens.append((await tenant.acquire("b")).token)
        await tenant.delete(leases={"t": tokens[-1]})
        await tenant.release("b")
        tokens.append((await tenant.acquire("a")).token)
        assert tokens == sorted(set(tokens))

    async def test_leases_on_other_threads_and_of_other_tenants_are_apart(self, tenant: Tenant) -> None:
        other = Tenant(tenant.store, f"{tenant.name}-other")
        leases = [await tenant.acquire("a"), await tenant.acquire("a", thread="u"), await other.acquire("a")]
        assert len({lease.token for lease in leases}) == 3
        await tenant.put("c", thread="v")
        await other.release("a")
        await other.put("c")

    async def test_nothing_is_left_behind(self, tenant: Tenant) -> None:
        await tenant.acquire("a")
        waiter = asyncio.create_task(tenant.acquire("b", wait=30))
        await waiting(tenant, 1)
        await tenant.release("a")
        await waiter
        await tenant.release("b")
        assert await leftovers(tenant) == 0


class TestWaiting:
    async def test_waiters_get_the_lease_in_the_order_in_which_they_came(self, tenant: Tenant) -> None:
        order: list[str] = []

        async def turn(name: str) -> int:
            lease = await tenant.acquire(name, wait=60)
            order.append(name)
            await tenant.release(name)
            return lease.token

        first = (await tenant.acquire("holder")).token
        turns = []
        for number in range(8):
            turns.append(asyncio.create_task(turn(f"waiter {number}")))
            await waiting(tenant, number + 1)
        await tenant.release("holder")
        tokens = await asyncio.gather(*turns)
        assert order == [f"waiter {number}" for number in range(8)]
        assert [first, *tokens] == sorted({first, *tokens})

    async def test_a_waiter_gets_a_lease_that_expires(self, tenant: Tenant) -> None:
        dead = await tenant.acquire("dead", ttl=60)
        waiter = asyncio.create_task(tenant.acquire("waiter", wait=30))
        await waiting(tenant, 1)
        await tenant.select("UPDATE checkpointd.threads SET lease_expires_at = now() WHERE tenant = $1", tenant.name)
        assert (await waiter).token > dead.token

    async def test_a_waiter_at_another_server_gets_it_too(self, tenant: Tenant, shared_options: StoreOptions) -> None:
        async with open_store(shared_options) as store:
            elsewhere = Tenant(store, tenant.name)
            lease = await tenant.acquire("here")
            waiter = asyncio.create_task(elsewhere.acquire("there", wait=30))
            await waiting(tenant, 1)
            await tenant.release("here")
            assert (await waiter).token > lease.token

    async def test_nobody_jumps_the_line(self, tenant: Tenant) -> None:
        await tenant.acquire("holder")
        waiter = asyncio.create_task(tenant.acquire("waiter", wait=30))
        await waiting(tenant, 1)
        # The lease is free now, but the waiter hasn't taken it yet.
        await tenant.select("UPDATE checkpointd.threads SET lease_expires_at = NULL WHERE tenant = $1", tenant.name)
        with pytest.raises(LeaseHeld):
            await tenant.acquire("newcomer")
        await waiter
        await tenant.release("waiter")
        await tenant.acquire("newcomer")

    async def test_a_waiter_that_is_gone_is_passed_over(self, tenant: Tenant) -> None:
        await tenant.acquire("holder")
        gone = asyncio.create_task(tenant.acquire("gone", wait=30))
        await waiting(tenant, 1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await tenant.release("holder")
        with pytest.raises(LeaseHeld) as refused:
            await tenant.acquire("next")
        assert refused.value.remaining is None
        await pass_time(tenant, 10)
        await tenant.acquire("next")

    async def test_a_wait_that_is_over_ends_in_a_refusal_and_keeps_the_place_for_a_while(self, tenant: Tenant) -> None:
        await tenant.acquire("holder")
        with pytest.raises(LeaseHeld):
            await tenant.acquire("first", wait=0.05)
        with pytest.raises(LeaseHeld):
            await tenant.acquire("second", wait=0.05)
        await tenant.release("holder")
        with pytest.raises(LeaseHeld):
            await tenant.acquire("second", wait=0.05)
        await tenant.release("first")  # gives up its place
        await tenant.acquire("second")

    async def test_taking_turns_loses_no_update(self, tenant: Tenant, shared_options: StoreOptions) -> None:
        """Read, add one, write back, without a precondition: only the lease separates the writers."""

        async def worker(here: Tenant, name: str) -> list[int]:
            tokens = []
            for turn in range(5):
                holder = f"{name} {turn}"
                lease = await here.acquire(holder, wait=60)
                count = int((await here.values())["count"]) + 1
                versions, values = {"count": str(count)}, {"count": b"%d" % count}
                await here.put(f"{count:08}", versions=versions, values=values, lease=lease.token)
                tokens.append(lease.token)
                await here.release(holder)
            return tokens

        await tenant.put("00000000", versions={"count": "0"}, values={"count": b"0"})
        async with open_store(shared_options) as store:
            elsewhere = Tenant(store, tenant.name)
            workers = [worker(here, f"{i}") for i, here in enumerate([tenant, elsewhere] * 3)]
            tokens = await asyncio.gather(*workers)
        assert await tenant.values() == {"count": b"30"}
        assert len({token for some in tokens for token in some}) == 30
        assert all(some == sorted(some) for some in tokens)

    async def test_behind_a_transaction_pooler(self, shared_options: StoreOptions, tenant: Tenant) -> None:
        options = StoreOptions(dsn=shared_options.dsn, statement_cache_size=0)
        async with open_store(options) as store:
            pooled = Tenant(store, tenant.name)
            lease = await pooled.acquire("a")
            waiter = asyncio.create_task(pooled.acquire("b", wait=30))
            await waiting(pooled, 1)
            await pooled.put("c", lease=lease.token)
            with pytest.raises(LeaseHeld):
                await pooled.put("d")
            await pooled.release("a")
            await pooled.put("e", lease=(await waiter).token)
            await pass_time(pooled, 61)
            await pooled.put("f")


async def test_many_may_wait_with_few_connections(own_options: StoreOptions) -> None:
    async with open_store(StoreOptions(dsn=own_options.dsn, pool_max_size=2)) as store:
        tenant = Tenant(store, "tenant")
        await tenant.acquire("holder")
        waiters = [asyncio.create_task(tenant.acquire(f"{i}", wait=30)) for i in range(50)]
        await waiting(tenant, 50)
        await tenant.put("c", thread="other")
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        assert not store._of(tenant.name).leases._waiting
