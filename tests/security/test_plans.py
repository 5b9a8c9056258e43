"""Row-level security only filters rows that were found as usual: it doesn't change the plans of statements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asyncpg

from checkpointd_server.store import StoreOptions, open_store
from tests.support.long_history import fill
from tests.support.plans import VERBS, Meter, prepare
from tests.support.tenant import Tenant


async def costs(options: StoreOptions, admin: Any) -> dict[str, tuple[int, int]]:
    """Returns the rows that each verb scans and finds by index, in tables without planner statistics."""
    async with open_store(replace(options, pool_max_size=1)) as store:
        meter = Meter(Tenant(store, "t"), admin)
        for row in await admin.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'checkpointd'"):
            if row["tablename"] not in ("migrations", "identity"):
                await admin.execute(f"TRUNCATE checkpointd.{row['tablename']}")
        await prepare(meter.tenant, "thread")
        await admin.execute(fill("other", 1000))
        return {name: await meter.cost(verb(meter.tenant, "thread")) for name, (verb, _) in VERBS.items()}


async def test_rows_are_found_in_the_same_way(owner: StoreOptions, superuser_url: str) -> None:
    admin = await asyncpg.connect(superuser_url)
    try:
        unbound = await costs(replace(owner, dsn=superuser_url), admin)
        bound = await costs(owner, admin)
    finally:
        await admin.close()
    # The number of lookups while waiting for a lease depends on time.
    for name in VERBS.keys() - {"acquire in vain"}:
        (walked, found), (walked_unbound, found_unbound) = bound[name], unbound[name]
        assert walked == walked_unbound == 0, name
        if name.startswith("list threads"):
            # These also look at what changed within two seconds of a page's threads: at less where all takes longer.
            assert max(found, found_unbound) <= VERBS[name][1], name
        else:
            # The order of lookups may differ, but none finds many rows.
            assert abs(found - found_unbound) <= 20 + found_unbound / 10, name
