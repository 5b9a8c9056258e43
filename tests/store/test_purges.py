"""Purges: nothing is left, and others lose nothing."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from importlib.resources import files

import asyncpg
import pytest

from checkpointd_server import store as store_package
from checkpointd_server.domain.errors import LeaseLost
from checkpointd_server.domain.tenants import PurgePosition, PurgeReport, Quotas
from checkpointd_server.domain.thread_lists import ThreadChange, ThreadFilter, ThreadStatus
from checkpointd_server.store import PostgresStore, open_store
from checkpointd_server.store.options import StoreOptions
from checkpointd_server.store.purges import PAGE
from tests.support.tenant import TIMEOUT, Tenant
from tests.support.verbs import contents, fill

TABLES = {
    *("threads", "thread_labels", "namespaces", "checkpoints", "channel_values", "task_writes", "replaced_writes"),
    *("value_parts", "uploads", "lease_waiters", "gc_queue", "tenants", "items", "item_sweeps"),
    *("retention_holds", "retention_policies", "retention_tenants"),
}
"""Tables into which `fill` and these tests put rows of a tenant."""

UNCOUNTED = {"item_vectors"}
"""Tables whose rows are deleted with others and not counted. They don't exist without pgvector."""

RETENTION = (
    "INSERT INTO checkpointd.retention_policies (tenant, name, prefix, deletes_interrupted, keep_last_of_run, "
    "hold_seconds) VALUES ($1, 'p', '', false, false, 60) ON CONFLICT DO NOTHING",
    "INSERT INTO checkpointd.retention_tenants (tenant, changed_at, next_at) VALUES ($1, now(), now()) "
    "ON CONFLICT DO NOTHING",
    "INSERT INTO checkpointd.retention_holds "
    "(thread, tenant, policy, reason, checkpoints, idle_since, held_by, deadline_at) "
    "VALUES ($2, $1, 'p', 'idle', 1, now(), 'p', now()) ON CONFLICT DO NOTHING",
)
"""Inserts a tenant's rows of retention."""


async def purge(tenant: Tenant, wanted: ThreadFilter | None = None, **options: bool) -> PurgeReport:
    """Purges all pages, of what a filter finds or of everything, and returns the sum of the pages."""
    total, start = PurgeReport(), PurgePosition()
    while True:
        chosen = {"takes_pinned": False, "is_dry_run": False, **options}
        if wanted is None:
            page = await tenant.store.tenants.purge_all(tenant.name, start=start, timeout=TIMEOUT, **chosen)
        else:
            page = await tenant.store.tenants.purge_found(tenant.name, wanted, start=start, timeout=TIMEOUT, **chosen)
        total.threads += page.threads
        total.checkpoints += page.checkpoints
        total.bytes += page.bytes
        total.pinned_threads += page.pinned_threads
        total.rows += page.rows
        if page.next is None:
            return total
        start = page.next


async def fill_every_table(store: PostgresStore, name: str) -> Tenant:
    tenant = await fill(store, name)
    await tenant.store.tenants.note([name], timeout=TIMEOUT)
    with pytest.raises(Exception, match="has the lease"):
        await tenant.acquire("waits", thread="leased", wait=0.2)
    await tenant.put("1", thread="deleted", versions={"a": "1"}, values={"a": b"x"})
    await tenant.delete("deleted")  # its row stays
    await tenant.put("1", thread="stored")
    await tenant.archive("stored")
    return tenant


async def test_a_tenant_leaves_no_row_in_any_table(own_options: StoreOptions) -> None:
    async with open_store(own_options) as store:
        mine = await fill_every_table(store, "mine")
        other = await fill_every_table(store, "other")
        # Waiters are inserted directly: those that stop waiting give up their place.
        connection = await asyncpg.connect(own_options.dsn)
        try:
            for tenant in (mine, other):
                await connection.execute(
                    "INSERT INTO checkpointd.lease_waiters (thread, holder, tenant, ticket, seen_at) "
                    "VALUES ($1, 'gone', $2, 1, now())",
                    tenant.key("leased"),
                    tenant.name,
                )
                await connection.execute(
                    "INSERT INTO checkpointd.items (tenant, namespace, key, version, type, data, doc, vectors, "
                    "created_at, updated_at) VALUES ($1, 'notes', 'one', 1, 'json', '{}', '{}', 0, now(), now())",
                    tenant.name,
                )
                await connection.execute(
                    "INSERT INTO checkpointd.item_sweeps VALUES ($1, now()) ON CONFLICT DO NOTHING", tenant.name
                )
                for insert in RETENTION:
                    await connection.execute(insert, tenant.name, *([tenant.key()] if "$2" in insert else []))
            before = {name: await contents(connection, name) for name in ("mine", "other")}
            assert {table for table, rows in before["mine"].items() if rows} >= TABLES
            would = await purge(mine, is_dry_run=True)
            assert (would.threads, would.checkpoints) == (2, 3)
            assert await contents(connection, "mine") == before["mine"]
            done = await purge(mine)
            await store.tenants.purge_rest("mine", done, timeout=TIMEOUT)
            assert (done.threads, done.checkpoints) == (would.threads, would.checkpoints)
            after = await contents(connection, "mine")
            assert {table: rows for table, rows in after.items() if rows} == {}
            assert {table: rows for table, rows in done.rows.items() if rows} == {
                table: len(rows) for table, rows in before["mine"].items() if rows and table not in UNCOUNTED
            }
            assert await contents(connection, "other") == before["other"]
        finally:
            await connection.close()


def test_every_table_that_has_a_tenant_is_purged() -> None:
    """Add a new table to purge_thread or purge_tenant: migrations/0011_tenants/02_purges.sql, or a later one."""
    folder = files(store_package.__name__).joinpath("migrations")
    sql = "\n".join(file.read_text() for step in folder.iterdir() for file in step.iterdir())
    created = re.findall(r"CREATE TABLE __schema__\.(\w+) \((.*?)\n\)", sql, re.DOTALL)
    tables = {name for name, body in created if "tenant" in body}
    purges = "".join(re.findall(r"FUNCTION __schema__\.purge_\w+\(.*?\n\$\$;", sql, re.DOTALL))
    assert tables | UNCOUNTED == set(re.findall(r"DELETE FROM __schema__\.(\w+)", purges))


async def test_what_a_filter_finds_goes_archived_or_not_and_the_rest_stays(tenant: Tenant) -> None:
    for number in range(5):
        await tenant.put("1", thread=f"ann-{number}", metadata={"user": "ann"})
        await tenant.put("1", thread=f"bob-{number}", metadata={"user": "bob"})
    await tenant.archive("ann-0")
    wanted = ThreadFilter(metadata='{"user": "ann"}')
    would = await purge(tenant, wanted, is_dry_run=True)
    assert (would.threads, would.checkpoints) == (5, 5)
    assert would.bytes > 0
    assert not would.rows
    done = await purge(tenant, wanted)
    assert (done.threads, done.checkpoints, done.bytes) == (5, 5, would.bytes)
    assert done.rows["threads"] == done.rows["checkpoints"] == done.rows["namespaces"] == 5
    found = await tenant.select("SELECT thread_id FROM checkpointd.threads ORDER BY 1")
    assert [row[0] for row in found] == [f"bob-{number}" for number in range(5)]


async def test_archived_ones_alone_if_they_are_asked_for(tenant: Tenant) -> None:
    for name in ("kept", "old"):
        await tenant.put("1", thread=name)
    await tenant.archive("old")
    assert (await purge(tenant, ThreadFilter(is_archived=True))).threads == 1
    assert [thread.thread_id for thread in (await tenant.threads()).threads] == ["kept"]


async def test_pages_go_on_where_they_ended(tenant: Tenant) -> None:
    many = 2 * PAGE + 1
    await asyncio.gather(*[tenant.put("1", thread=f"t{number}") for number in range(many)])
    wanted = ThreadFilter(statuses=[ThreadStatus.IDLE])
    page = await tenant.store.tenants.purge_found(
        tenant.name, wanted, start=PurgePosition(), takes_pinned=False, is_dry_run=True, timeout=TIMEOUT
    )
    assert page.threads == PAGE
    assert page.next is not None
    assert (await purge(tenant, wanted, is_dry_run=True)).threads == many
    assert (await purge(tenant, wanted)).threads == many
    await asyncio.gather(*[tenant.put("1", thread=f"t{number}") for number in range(many)])
    assert (await purge(tenant)).threads == many


async def test_pinned_threads_stay_unless_they_are_meant(tenant: Tenant) -> None:
    for name in ("held", "free"):
        await tenant.put("1", thread=name)
    change = ThreadChange(tenant=tenant.name, thread_id="held", set_tags={}, removed_tags=(), is_pinned=True)
    await tenant.store.update_thread(change, timeout=TIMEOUT)
    for wanted in (None, ThreadFilter(prefix="")):
        for is_dry_run in (True, False):
            report = await purge(tenant, wanted, is_dry_run=is_dry_run)
            assert (report.threads, report.pinned_threads) == (1, 1)
        await tenant.put("1", thread="free")
    report = await purge(tenant, takes_pinned=True)
    assert (report.threads, report.pinned_threads) == (2, 0)


async def test_who_has_a_lease_finds_that_it_is_gone(tenant: Tenant) -> None:
    lease = await tenant.acquire("me")
    version = await tenant.put("1", lease=lease.token)
    await purge(tenant)
    with pytest.raises(LeaseLost):
        await tenant.put("2", parent="1", lease=lease.token, expect=version)
    with pytest.raises(Exception, match="found version 0"):
        await tenant.put("2", parent="1", expect=version)
    assert not await tenant.select("SELECT FROM checkpointd.threads WHERE tenant = $1", tenant.name)


async def test_what_is_written_after_the_purge_began_stays(tenant: Tenant) -> None:
    await tenant.put("1", thread="before")
    page = await tenant.store.tenants.purge_all(
        tenant.name, start=PurgePosition(), takes_pinned=False, is_dry_run=False, timeout=TIMEOUT
    )
    assert page.next is not None
    assert page.next.began_at is not None
    assert page.next.began_at <= datetime.now(UTC)
    await tenant.put("1", thread="after")
    page = await tenant.store.tenants.purge_all(
        tenant.name, start=page.next, takes_pinned=False, is_dry_run=False, timeout=TIMEOUT
    )
    assert (page.threads, page.next) == (0, None)
    assert (await tenant.ids(thread="after")) == ["1"]


async def test_quotas_are_the_tenants_own_until_they_are_purged(tenant: Tenant) -> None:
    tenants = tenant.store.tenants
    await tenants.note([tenant.name], timeout=TIMEOUT)
    (found,) = await tenants.read_quotas([tenant.name, "nobody"], timeout=TIMEOUT)
    assert found.quotas == Quotas()
    await tenants.set_quotas(tenant.name, Quotas(max_bytes=5, max_threads=0), resets=False, timeout=TIMEOUT)
    changed = await tenants.set_quotas(tenant.name, Quotas(max_bytes=6), resets=False, timeout=TIMEOUT)
    assert changed.quotas == Quotas(max_bytes=6, max_threads=0)
    assert changed.quotas.over(Quotas(max_threads=7, max_calls_per_second=8)) == Quotas(
        max_bytes=6, max_threads=0, max_calls_per_second=8
    )
    changed = await tenants.set_quotas(tenant.name, Quotas(max_threads=9), resets=True, timeout=TIMEOUT)
    assert changed.quotas == Quotas(max_threads=9)
    listed = await tenants.list(after=tenant.name[:-1], limit=100, timeout=TIMEOUT)
    assert changed in listed
    await tenants.purge_rest(tenant.name, PurgeReport(), timeout=TIMEOUT)
    assert not await tenants.read_quotas([tenant.name], timeout=TIMEOUT)
