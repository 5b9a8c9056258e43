"""Garbage collection: abandoned uploads, abandoned waiters, and the rows of empty threads."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from checkpointd_server.domain.errors import BaseMissing, InvalidArgument, VersionConflict
from checkpointd_server.store import StoreOptions, open_store
from checkpointd_server.store.gc import TOMBSTONE_SECONDS
from tests.store.leases import pass_time
from tests.support.tenant import Tenant, uploaded, write
from tests.support.until import auntil


async def count(tenant: Tenant, table: str) -> int:
    """The number of the tenant's rows in a table."""
    return int((await tenant.select(f"SELECT count(*) FROM checkpointd.{table} WHERE tenant = $1", tenant.name))[0][0])


async def age(tenant: Tenant, seconds: float) -> None:
    """Makes a tenant's threads, uploads, waiters and due dates older by some seconds."""
    await tenant.select(
        "UPDATE checkpointd.threads SET floor = floor - $2::bigint, lease_token = lease_token - $2::bigint, "
        "lease_expires_at = lease_expires_at - make_interval(secs => $2 / 1000000.0) WHERE tenant = $1",
        tenant.name,
        seconds * 1_000_000,
    )
    for table, column in (("uploads", "updated_at"), ("lease_waiters", "seen_at"), ("gc_queue", "due_at")):
        await tenant.select(
            f"UPDATE checkpointd.{table} SET {column} = {column} - make_interval(secs => $2) WHERE tenant = $1",
            tenant.name,
            float(seconds),
        )


async def collect(tenant: Tenant) -> None:
    """Runs garbage collection until nothing is due."""
    while await tenant.store.run_gc():
        pass


class TestUploads:
    async def test_that_nothing_names_are_kept_for_a_while(self, tenant: Tenant) -> None:
        await tenant.upload(b"one", b"part", b"part")
        await age(tenant, 1800)
        await collect(tenant)
        assert await count(tenant, "value_parts") == 2
        await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(b"one", 8)})
        assert await tenant.value("a", "1") == b"partpart"

    async def test_that_nothing_names_go_after_that(self, tenant: Tenant) -> None:
        await tenant.upload(b"old", b"part", b"part")
        await age(tenant, 1800)
        await tenant.upload(b"new", b"part")
        await age(tenant, 1801)
        await collect(tenant)
        assert [
            row["upload_id"].rstrip()
            for row in await tenant.select(
                "SELECT DISTINCT upload_id FROM checkpointd.value_parts WHERE tenant = $1", tenant.name
            )
        ] == [b"new"]
        with pytest.raises(BaseMissing):
            await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(b"old", 8)})
        await age(tenant, 3600)
        await collect(tenant)
        assert await count(tenant, "value_parts") == await count(tenant, "gc_queue") == 0

    async def test_that_a_value_names_are_its_own(self, tenant: Tenant) -> None:
        await tenant.upload(b"one", b"part")
        await tenant.upload(b"two", b"part")
        await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(b"one", 4)})
        await tenant.writes("1", write("task", 0, "a", uploaded(b"two", 4)))
        # A part that comes late, again or in excess changes nothing.
        await tenant.upload(b"one", b"part", b"more")
        await tenant.upload(b"two", b"else")
        await age(tenant, 10_000)
        await collect(tenant)
        assert await tenant.value("a", "1") == await tenant.written("1", "task", 0) == b"part"

    async def test_must_be_whole(self, tenant: Tenant) -> None:
        put = tenant.store.put_part
        for upload_id, parts in {
            b"gap": [(0, b"12"), (3, b"45")],
            b"overlap": [(0, b"123"), (2, b"345")],
            b"gap and overlap": [(0, b"12"), (1, b"2"), (4, b"45")],
            b"late": [(1, b"2345")],
            b"short": [(0, b"1234")],
            b"long": [(0, b"123456")],
        }.items():
            for offset, data in parts:
                await put(tenant.name, "t", upload_id.ljust(16), offset, data, timeout=60)
            with pytest.raises(BaseMissing):
                await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(upload_id, 5)})
            with pytest.raises(BaseMissing):
                await tenant.writes("1", write("task", 0, "a", uploaded(upload_id, 5)))
        await tenant.upload(b"right", b"12", b"345")
        with pytest.raises(BaseMissing):
            await tenant.put("1", thread="another", versions={"a": "1"}, values={"a": uploaded(b"right", 5)})
        await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(b"right", 5)})
        assert await tenant.value("a", "1") == b"12345"

    async def test_are_for_one_value(self, tenant: Tenant) -> None:
        await tenant.upload(b"one", b"part")
        put: dict[str, Any] = {"versions": {"a": "1"}, "values": {"a": uploaded(b"one", 4)}}
        await tenant.put("1", **put)
        await tenant.put("1", **put)  # the same again
        with pytest.raises(BaseMissing):
            await tenant.put("2", versions={"a": "2"}, values={"a": uploaded(b"one", 4)})
        with pytest.raises(BaseMissing):
            await tenant.writes("1", write("task", 0, "a", uploaded(b"one", 4)))

    async def test_can_not_be_named_twice_by_a_put(self, tenant: Tenant) -> None:
        await tenant.upload(b"one", b"part")
        twice = dict.fromkeys("ab", uploaded(b"one", 4))
        for call in (
            tenant.put("1", versions={"a": "1", "b": "1"}, values=twice),
            tenant.writes("1", *(write("task", n, "a", uploaded(b"one", 4)) for n in range(2))),
        ):
            with pytest.raises(InvalidArgument, match="upload_id"):
                await call
        await tenant.put("1", versions={"a": "1"}, values={"a": uploaded(b"one", 4)})

    async def test_of_a_refused_put_are_still_there(self, tenant: Tenant) -> None:
        await tenant.upload(b"one", b"part")
        put: dict[str, Any] = {"versions": {"a": "1"}, "values": {"a": uploaded(b"one", 4)}}
        with pytest.raises(VersionConflict):
            await tenant.put("1", expect=1, **put)
        await tenant.put("1", expect=0, **put)

    async def test_go_with_their_values(self, tenant: Tenant) -> None:
        for n in range(4):
            await tenant.upload(b"v%d" % n, b"part")
            await tenant.upload(b"w%d" % n, b"part")
            await tenant.put(
                f"{n}",
                parent=f"{n - 1}",
                versions={"a": f"{n}"},
                values={"a": uploaded(b"v%d" % n, 4)},
                metadata={"run_id": f"{n}"},
            )
            await tenant.writes(f"{n}", write("task", -1, "a", uploaded(b"w%d" % n, 4)))
        assert await count(tenant, "value_parts") == 8
        await tenant.writes("3", write("task", -1, "a", b"small"))
        await tenant.put("2", parent="1", versions={"a": "2"}, values={"a": b"small"})
        assert await count(tenant, "value_parts") == 6
        await tenant.delete_runs("0")
        assert await count(tenant, "value_parts") == 4
        await tenant.copy("t", "copy")
        assert await tenant.value("a", "3", thread="copy") == b"part"
        assert await count(tenant, "value_parts") == 8
        await tenant.prune("t")
        assert await count(tenant, "value_parts") == 5
        await tenant.delete("copy")
        assert await count(tenant, "value_parts") == 1
        assert await tenant.value("a", "3") == b"part"
        await tenant.delete()
        assert await count(tenant, "value_parts") == 0


class TestRowsOfThreads:
    async def test_that_hold_nothing_go_when_the_clock_has_taken_their_floor_s_place(self, tenant: Tenant) -> None:
        version = await tenant.put("1")
        await tenant.delete()
        await collect(tenant)
        assert await count(tenant, "threads") == 1
        with pytest.raises(VersionConflict):
            await tenant.put("2", expect=version)
        await age(tenant, TOMBSTONE_SECONDS + 1)
        await collect(tenant)
        assert await count(tenant, "threads") == await count(tenant, "gc_queue") == 0
        assert await tenant.put("1") > version

    async def test_that_hold_anything_stay(self, tenant: Tenant) -> None:
        await tenant.put("1", thread="checkpoint")
        await tenant.writes("1", write("task", 0, "a", b""), thread="writes")
        await tenant.acquire("me", thread="lease", ttl=3600 * 10)
        for thread in ("checkpoint", "writes", "lease"):
            await tenant.upload(b"one", b"part", thread=thread)
        await age(tenant, 2 * 3600)
        await collect(tenant)
        kept = await tenant.select(
            "SELECT thread_id FROM checkpointd.threads WHERE tenant = $1 ORDER BY 1", tenant.name
        )
        assert [row[0] for row in kept] == ["checkpoint", "lease", "writes"]
        assert (await tenant.lease(thread="lease")).lease is not None

    async def test_a_version_is_not_given_twice_over_deletions_of_all_kinds(self, tenant: Tenant) -> None:
        versions = []
        for n in range(12):
            versions.append(await tenant.put("1", metadata={"run_id": "r"}))
            if n % 3 == 0:
                await tenant.delete()
            elif n % 3 == 1:
                await tenant.delete_runs("r")
            # Also as if the clock of another machine were behind.
            await tenant.select(
                "UPDATE checkpointd.threads SET floor = floor + 3600000000::bigint WHERE tenant = $1", tenant.name
            )
        assert versions == sorted(set(versions))

    async def test_what_was_left_in_a_line_goes(self, tenant: Tenant) -> None:
        await tenant.acquire("dead", ttl=60)
        waiter = asyncio.create_task(tenant.acquire("dead too", wait=30))
        await auntil(tenant.lease, lambda state: state.waiting == 1)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        await pass_time(tenant, 1000)
        await age(tenant, 300)
        await collect(tenant)
        assert await count(tenant, "lease_waiters") == 0

    async def test_it_is_nobody_s_business_twice(self, tenant: Tenant, shared_options: StoreOptions) -> None:
        """Servers that collect at once share the work."""
        for n in range(30):
            await tenant.upload(b"one", b"part", thread=f"{n}")
        await age(tenant, 4000)
        async with open_store(replace(shared_options)) as other:
            looked_at = await asyncio.gather(*(store.run_gc() for store in (tenant.store, other) * 4))
        assert sum(looked_at) >= 30
        assert await count(tenant, "value_parts") == 0
