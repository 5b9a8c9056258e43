"""Statistics: exact if they say so, otherwise approximate, and cheap."""

from __future__ import annotations

import time

import pytest

from tests.support.tenant import TIMEOUT, Tenant, patch, write

AGED = """
    UPDATE checkpointd.threads SET created_at = now() - $2::text::interval, active_at = now() - $3::text::interval
    WHERE tenant = $1 AND thread_id = $4
"""
SIZE = """
    INSERT INTO checkpointd.threads (thread, tenant, thread_id, listed_at, checkpoints, bytes, created_at, active_at)
    SELECT gen_random_uuid(), $1, 'user:' || n, now(), 100, 100000 + n,
        now() - make_interval(hours => n % 500 + 1), now() - make_interval(hours => n % 500)
    FROM generate_series(1, 100000) AS n
"""


async def test_sums_are_exact(tenant: Tenant) -> None:
    await tenant.put("1", thread="a", versions={"x": "1"}, values={"x": b"v" * 1000})
    await tenant.put("2", thread="a", parent="1", versions={"x": "1", "y": "2"}, values={"y": b"w" * 500})
    await tenant.writes("2", write("task", 0, "x", b"w"), write("task", 1, "x", b"w"), thread="a")
    await tenant.put("1", thread="asks")
    await tenant.writes("1", write("task", -3, "__interrupt__", b"?"), thread="asks")
    await tenant.put("1", thread="fails")
    await tenant.writes("1", write("task", -1, "__error__", b"!"), thread="fails")
    await tenant.put("1", thread="old")
    await tenant.archive("old")
    await tenant.put("1", thread="quiet")
    await tenant.select(AGED, tenant.name, "2 hours", "1 hour", "quiet")
    await tenant.put("1", thread="gone")
    await tenant.delete("gone")
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    listed = (await tenant.threads()).threads
    assert (found.threads, found.checkpoints) == (5, 6)
    counts = (found.running, found.idle, found.interrupted, found.failed, found.archived)
    assert counts == (1, 1, 1, 1, 1)
    assert (found.writes, found.is_estimate) == (4, False)
    assert found.bytes == sum(thread.bytes for thread in listed) + 1 * next(
        size.bytes for size in found.largest if size.thread_id == "old"
    )
    assert found.largest[0].thread_id == "a"
    # Each checkpoint of "a" with all its values whole, and the others' own fields.
    assert 2 * 1000 + 500 < found.logical_bytes < 2 * 1000 + 500 + 6 * 200
    usage = await tenant.store.tenants.read_usage(tenant.name, timeout=TIMEOUT)
    assert (usage.threads, usage.checkpoints, usage.bytes) == (found.threads, found.checkpoints, found.bytes)


async def test_what_patches_and_shared_values_save_is_told(tenant: Tenant) -> None:
    whole = b"v" * 10_000
    await tenant.put("01", versions={"x": "1"}, values={"x": whole})
    for number in range(2, 31):
        patched = patch(f"{number - 1}", whole, instructions=b"i" * 10)
        await tenant.put(f"{number:02}", parent=f"{number - 1:02}", versions={"x": f"{number}"}, values={"x": patched})
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    assert found.bytes < 20_000
    assert 300_000 <= found.logical_bytes <= 310_000


async def test_of_many_threads_some_tell_for_all(tenant: Tenant) -> None:
    for number in range(60):
        thread = f"t{number}"
        await tenant.put("1", thread=thread, versions={"x": "1"}, values={"x": b"v" * (900 + number)})
        await tenant.put("2", thread=thread, parent="1", versions={"x": "1"})
        await tenant.writes("2", write("task", 0, "x", b"w"), thread=thread)
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    assert found.is_estimate
    assert found.writes == 60
    exact = sum(2 * (900 + number) for number in range(60))
    assert exact <= found.logical_bytes <= exact * 1.25


async def test_growth_is_spread_over_a_threads_life(tenant: Tenant) -> None:
    await tenant.put("1", thread="today")
    for number in range(1, 5):
        await tenant.put(f"{number}", thread="long")
    await tenant.select(AGED, tenant.name, "96 hours", "48 hours", "long")
    await tenant.put("1", thread="ancient")
    await tenant.select(AGED, tenant.name, "40 days", "30 days", "ancient")
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    assert len(found.days) == 7
    assert [day.threads for day in found.days[-1:]] == [1]
    assert sum(day.threads for day in found.days) == 2
    assert found.days[-1].checkpoints == 1
    assert sum(day.checkpoints for day in found.days[:-1]) == pytest.approx(4, abs=1)
    assert sum(1 for day in found.days if day.checkpoints) in (3, 4)
    assert found.oldest_at is not None
    assert found.mean_session_seconds == pytest.approx((48 * 3600 + 10 * 86400) / 3, rel=0.01)


async def test_nothing_is_nothing(tenant: Tenant) -> None:
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    assert (found.threads, found.checkpoints, found.writes, found.logical_bytes) == (0, 0, 0, 0)
    assert found.oldest_at is None
    assert not found.is_estimate


@pytest.mark.long
async def test_ten_million_checkpoints_are_a_row_a_thread(tenant: Tenant) -> None:
    await tenant.select(SIZE, tenant.name)
    begun = time.monotonic()
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    statistics = time.monotonic() - begun
    begun = time.monotonic()
    usage = await tenant.store.tenants.read_usage(tenant.name, timeout=TIMEOUT)
    print(f"statistics {statistics:.3f} s, usage {time.monotonic() - begun:.3f} s")
    assert (found.threads, found.checkpoints) == (100_000, 10_000_000)
    assert usage.bytes == found.bytes
    # It takes about a second; slow machines get more time.
    assert statistics < 30
