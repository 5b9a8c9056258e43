"""Large lists of threads: any page of 100,000 threads with 300,000 checkpoints, by an index, within 50 ms."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from checkpointd_server.domain.thread_lists import ThreadFilter, ThreadPosition, ThreadStatus
from checkpointd_server.store import StoreOptions, open_store
from tests.support.cluster import PostgresCluster
from tests.support.plans import Meter
from tests.support.tenant import Tenant

pytestmark = pytest.mark.long

THREADS = 100_000
PAGE = 50
MOST_SECONDS = 0.05
TRIES = 5
"""The fastest try counts: other work on the machine may slow down the rest."""

# Threads of 1,000 users, one second apart, with three checkpoints each; every hundredth waits for an answer, every
# thousandth has failed, every tenth is archived. The other tenant has as many.
_FILL = """
INSERT INTO checkpointd.threads (
    thread, tenant, thread_id, active_at, listed_at, created_at, checkpoints, bytes, signal, fingerprint, archived_at,
    is_archived
) SELECT
    md5('{tenant}' || n)::uuid, '{tenant}', 'user-' || n % 1000 || ':' || n, t, t, t, 3, 3000,
    CASE WHEN n % 1000 = 0 THEN 2 WHEN n % 100 = 0 THEN 1 END, 1, CASE WHEN n % 10 = 5 THEN t END, n % 10 = 5
    FROM generate_series(1, {threads}) AS n, LATERAL (SELECT now() - n * interval '1 second' AS t) AS at;
INSERT INTO checkpointd.namespaces (tenant, thread, checkpoint_ns, version, last_checkpoint_id)
    SELECT '{tenant}', md5('{tenant}' || n)::uuid, '', 1, '3' FROM generate_series(1, {threads}) AS n;
INSERT INTO checkpointd.checkpoints (
    tenant, thread, checkpoint_ns, checkpoint_id, version, body, channels, channel_versions, metadata_type, metadata,
    metadata_index, size
) SELECT '{tenant}', md5('{tenant}' || n)::uuid, '', i, i, 'body', '{{messages,branch:to:agent}}',
    ARRAY['s' || i, 's' || i], 'msgpack', 'metadata', jsonb_build_object(
        'user', 'u' || n % 1000, 'app', CASE WHEN n % 2 = 0 THEN 'chat' ELSE 'mail' END, 'step', i, 'source', 'loop'
    ), 1000
    FROM generate_series(1, {threads}) AS n, generate_series(1, 3) AS i;
INSERT INTO checkpointd.task_writes (
    tenant, thread, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, data
) SELECT '{tenant}', md5('{tenant}' || n)::uuid, '', '3', 'task', -3, '',
    CASE WHEN n % 1000 = 0 THEN '__error__' ELSE '__interrupt__' END, 'msgpack', '\\xc3'
    FROM generate_series(100, {threads}, 100) AS n;
INSERT INTO checkpointd.thread_labels (tenant, thread, label)
    SELECT '{tenant}', md5('{tenant}' || n)::uuid, checkpointd.label_of('{tenant}', found.path, found.value)
    FROM generate_series(1, {threads}) AS n, LATERAL (
        SELECT E'metadata\\x1fuser' AS path, to_jsonb('u' || n % 1000) AS value
        UNION ALL
        SELECT E'metadata\\x1fapp', to_jsonb(CASE WHEN n % 2 = 0 THEN 'chat' ELSE 'mail' END)
        UNION ALL
        SELECT 'signal', to_jsonb(CASE WHEN n % 1000 = 0 THEN 2 ELSE 1 END) WHERE n % 100 = 0
    ) AS found;
"""


@pytest.fixture(scope="module")
def filled(postgres_cluster: PostgresCluster) -> StoreOptions:
    """A database with threads of two tenants."""
    name = postgres_cluster.create_migrated_database()
    for tenant in ("t", "other"):
        postgres_cluster.execute(_FILL.format(tenant=tenant, threads=THREADS), database=name)
    postgres_cluster.execute("VACUUM ANALYZE", database=name)
    return StoreOptions(dsn=postgres_cluster.dsn(name), pool_max_size=1)


@pytest.fixture
async def meter(filled: StoreOptions) -> AsyncIterator[Meter]:
    admin = await asyncpg.connect(filled.dsn)
    async with open_store(filled) as store:
        yield Meter(Tenant(store, "t"), admin)
    await admin.close()


SEARCHES: dict[str, tuple[ThreadFilter, int, int]] = {
    # The filter, the number of matching threads, and the most rows that a page may read.
    "all": (ThreadFilter(), 90_000, 1500),
    "archived": (ThreadFilter(is_archived=True), 10_000, 1500),
    "a user's, by the beginning of ids": (ThreadFilter(prefix="user-7:"), 100, 2500),
    "many users', by the beginning of ids": (ThreadFilter(prefix="user-"), 90_000, 5000),
    "one thread's, by its whole id": (ThreadFilter(prefix="user-8:98008"), 1, 50),
    "a user's, by metadata": (ThreadFilter(metadata='{"user": "u7"}'), 100, 2500),
    "an app's, by metadata": (ThreadFilter(metadata='{"app": "chat"}'), 50_000, 6000),
    "an app's and a user's": (ThreadFilter(metadata='{"app": "mail", "user": "u7"}'), 100, 6000),
    "nobody's": (ThreadFilter(metadata='{"user": "nobody"}'), 0, 50),
    "of a step": (ThreadFilter(metadata='{"step": 3}'), 90_000, 2500),
    "interrupted": (ThreadFilter(statuses=[ThreadStatus.INTERRUPTED]), 900, 12_000),
    "failed": (ThreadFilter(statuses=[ThreadStatus.FAILED]), 100, 2500),
    "failed of a user's": (ThreadFilter(statuses=[ThreadStatus.FAILED], metadata='{"user": "u0"}'), 100, 4000),
    "idle": (ThreadFilter(statuses=[ThreadStatus.IDLE]), 89_000, 3000),
}


@pytest.mark.parametrize("name", SEARCHES)
async def test_any_page_comes_by_an_index_within_50_ms(name: str, meter: Meter) -> None:
    wanted, number, most = SEARCHES[name]
    tenant = meter.tenant
    await tenant.threads(wanted, page_size=PAGE)  # connects, and plans
    newest = (await tenant.threads(page_size=1)).threads[0].active_at
    first = await tenant.threads(wanted, page_size=PAGE)
    assert len(first.threads) == min(number, PAGE)
    positions: list[ThreadPosition | None] = [None]
    if number > PAGE:
        assert first.after is not None
        positions.append(first.after)
    if number >= 10_000:
        # Any position will do, not only the end of a page: it consists of an activity and a key.
        assert first.after is not None
        positions += [first.after._replace(active_at=newest - timedelta(seconds=n)) for n in (50_000, 99_000)]
    for after in positions:
        walked, found = await meter.cost(tenant.threads(wanted, after=after, page_size=PAGE))
        assert walked == 0, (name, after)
        assert found <= most, (name, after, found)
        took = []
        for _ in range(TRIES):
            begun = time.perf_counter()
            page = await tenant.threads(wanted, after=after, page_size=PAGE)
            took.append(time.perf_counter() - begun)
        print(f"{name}: {min(took) * 1000:.1f} ms, {found} rows, {len(page.threads)} threads")
        assert min(took) < MOST_SECONDS, (name, after, took)


async def test_counts_are_quick_and_of_one_tenant_alone(meter: Meter) -> None:
    store = meter.tenant.store
    for wanted, number in ((ThreadFilter(), 90_000), (ThreadFilter(prefix="user-7:"), 100)):
        found = await store.count_threads("t", wanted, timeout=60)
        assert (found.number, found.is_complete) == (number, True)
    found = await store.count_threads("t", ThreadFilter(metadata='{"app": "chat"}'), timeout=60)
    assert (found.number, found.is_complete) == (10_000, False)


async def test_another_tenant_s_threads_cost_nothing(meter: Meter, filled: StoreOptions) -> None:
    """For a tenant with one thread few rows are read, however many matching threads others have."""
    async with open_store(replace(filled)) as store:
        small = Meter(Tenant(store, "small"), meter._admin)
        await small.tenant.put("1", thread="user-7:1", metadata={"user": "u7", "app": "chat"})
        for wanted, _, _ in SEARCHES.values():
            await small.tenant.threads(wanted)
            walked, found = await small.cost(small.tenant.threads(wanted))
            assert (walked, found <= 40) == (0, True), (wanted, found)
