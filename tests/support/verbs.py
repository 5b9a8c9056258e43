"""A store's operations for a tenant, and all of a tenant's data in its tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from checkpointd_server.domain.items import (
    DeleteItem,
    Distance,
    ItemKey,
    ItemSearch,
    ItemText,
    ItemVector,
    ItemWord,
    NamespaceQuery,
    PutItem,
    TextQuery,
    VectorQuery,
    WholeItem,
)
from checkpointd_server.domain.retention import RetentionPolicy
from checkpointd_server.domain.tenants import PurgePosition, PurgeReport
from checkpointd_server.domain.thread_lists import ThreadFilter
from checkpointd_server.domain.threads import PruneStrategy
from checkpointd_server.store import PostgresStore
from tests.support.tenant import TIMEOUT, Tenant, gather_results, patch, uploaded, write


async def fill(store: PostgresStore, name: str) -> Tenant:
    """Gives a tenant data of every kind, under the same names as any other."""
    tenant = Tenant(store, name)
    own = f"of {name}".encode()
    version = await tenant.put(
        "1", versions={"a": "1", "b": "1"}, values={"a": own, "b": None}, body=own, metadata={"run_id": "run"}
    )
    patched = patch("1", b"AA", instructions=own)
    await tenant.put(
        "2",
        parent="1",
        versions={"a": "2"},
        values={"a": patched},
        body=own,
        expect=version,
        metadata={"run_id": "run"},
    )
    for _ in range(2):
        await tenant.writes("2", write("task", 0, "a", own), write("task", -1, "a", own))
    await tenant.upload(b"one", own)
    await tenant.acquire("holder", thread="leased", ttl=3600)
    await tenant.set_policy(keep_newest=1000, metadata=json.dumps({"of": f"of {name}"}))
    await tenant.tag("t", owner=f"of {name}", kind="any")
    await tenant.store.items(name).change([_item(name), _item(name, f"of {name}")], timeout=TIMEOUT)
    return tenant


def _item(name: str, label: str = "ns") -> PutItem:
    """Returns an item that can be found in every possible way."""
    own = f"of {name}"
    return PutItem(
        key=ItemKey((label,), "k"),
        type="json",
        data=own.encode(),
        doc="{}",
        vectors=[ItemVector(path=own, components=[1.0, 0.0])],
        text=ItemText(text="word", language="simple"),
        ttl=3600,
    )


def _whole(name: str, label: str = "ns") -> WholeItem:
    """Returns an item to be restored."""
    own, time = f"restored of {name}", datetime(2026, 1, 1, tzinfo=UTC)
    return WholeItem(
        key=ItemKey((label,), "k"),
        type="json",
        data=own.encode(),
        doc="{}",
        vectors=[ItemVector(path=own, components=[1.0, 0.0])],
        words=[ItemWord("word", [1])],
        created_at=time,
        updated_at=time,
    )


async def _search(tenant: Tenant, **wanted: Any) -> Any:
    search = ItemSearch(prefix=(), limit=9, refreshes=True, **wanted)
    return await tenant.store.items(tenant.name).search(search, max_bytes=1000, timeout=TIMEOUT)


async def nodes(tenant: Tenant) -> str:
    """Names the owner of the checkpoints, if there are any."""
    found, _ = await tenant.store.list_nodes(tenant.name, "t", after=None, page_size=9, timeout=TIMEOUT)
    return f"{len(found)} of {tenant.name}" if found else ""


async def find(tenant: Tenant) -> str:
    """Names the owner of the threads, if there are any."""
    found = await tenant.store.tenants.find_threads(tenant.name, ["t", "x"], timeout=TIMEOUT)
    return f"{found} of {tenant.name}" if found else ""


async def statistics(tenant: Tenant) -> str:
    """Describes the statistics, except for times."""
    found = await tenant.store.tenants.read_statistics(tenant.name, timeout=TIMEOUT)
    return (
        f"{found.threads} {found.checkpoints} {found.bytes} {found.writes} {[one.thread_id for one in found.largest]}"
    )


async def purge(tenant: Tenant, wanted: ThreadFilter | None) -> str:
    """Purges what a filter finds, or everything, and returns the counts."""
    start = PurgePosition()
    options: Any = {"start": start, "takes_pinned": True, "is_dry_run": False, "timeout": TIMEOUT}
    if wanted is None:
        report = await tenant.store.tenants.purge_all(tenant.name, **options)
    else:
        report = await tenant.store.tenants.purge_found(tenant.name, wanted, **options)
    return f"{report.threads} {report.checkpoints}"


async def contents(connection: Any, tenant: str) -> dict[str, list[str]]:
    """Returns all rows of a tenant, by table."""
    tables = await connection.fetch(
        "SELECT table_name FROM information_schema.columns "
        "WHERE table_schema = 'checkpointd' AND column_name = 'tenant'"
    )
    return {
        table: [
            row[0]
            for row in await connection.fetch(
                f"SELECT t::text FROM checkpointd.{table} AS t WHERE tenant = $1 ORDER BY 1", tenant
            )
        ]
        for (table,) in tables
    }


KEY = ItemKey(("ns",), "k")


async def apply_policies(tenant: Tenant) -> object:
    """Sets a policy that deletes, and applies it."""
    await tenant.set_policy(keep_newest=1)
    return await tenant.retain()


async def announce(tenant: Tenant) -> object:
    """Announces a deletion, acknowledges it, and applies it."""
    await tenant.set_policy(keep_newest=1, hold_seconds=3600)
    await tenant.retain()
    found = await tenant.expiring()
    for entry in found:
        await tenant.store.retention.acknowledge(tenant.name, entry.thread_id, entry.below, timeout=TIMEOUT)
    return found, await tenant.retain()


VERBS: dict[str, Callable[[Tenant], Awaitable[Any]]] = {
    "put an item": lambda t: t.store.items(t.name).change([_item(t.name)], timeout=TIMEOUT),
    "put a new item": lambda t: t.store.items(t.name).change([_item(t.name, "new")], timeout=TIMEOUT),
    "delete an item": lambda t: t.store.items(t.name).change([DeleteItem(key=KEY)], timeout=TIMEOUT),
    "get an item": lambda t: t.store.items(t.name).get([(KEY, True)], max_bytes=1000, timeout=TIMEOUT),
    "search items": _search,
    "search items by words": lambda t: _search(t, text=TextQuery(query="word", language="simple")),
    "search items by a vector": lambda t: _search(
        t, vector=VectorQuery(components=[1.0, 0.0], distance=Distance.COSINE)
    ),
    "list keys of items": lambda t: t.store.items(t.name).list_keys((), after=None, limit=9, timeout=TIMEOUT),
    "list items": lambda t: t.store.items(t.name).list_whole(
        (), after=None, limit=9, vectors=True, max_bytes=1000, timeout=TIMEOUT
    ),
    "restore an item": lambda t: t.store.items(t.name).restore([_whole(t.name)], replace=True, timeout=TIMEOUT),
    "restore a new item": lambda t: t.store.items(t.name).restore(
        [_whole(t.name, "new")], replace=False, timeout=TIMEOUT
    ),
    "count items": lambda t: t.store.items(t.name).count((), {}, timeout=TIMEOUT),
    "list namespaces": lambda t: t.store.items(t.name).list_namespaces(NamespaceQuery(limit=9), timeout=TIMEOUT),
    "put": lambda t: t.put("3", parent="2", versions={"a": "3"}, values={"a": b"new"}),
    "put what is there": lambda t: t.put("2", versions={"a": "2"}, values={"a": b"other"}),
    "put with a precondition": lambda t: t.put("3", expect=1),
    "puts at once": lambda t: asyncio.gather(*[t.put(f"{n}", thread=f"t{n}") for n in range(9)]),
    "write": lambda t: t.writes("2", write("task", -1, "a", b"other")),
    "get": lambda t: t.get(),
    "get by id": lambda t: t.get("1"),
    "list": lambda t: t.page(),
    "list a thread": lambda t: t.page(thread_id="t"),
    "history": lambda t: t.history("a"),
    "delete": lambda t: t.delete("t"),
    "delete what is leased": lambda t: t.delete("leased"),
    "delete runs": lambda t: t.delete_runs("run"),
    "prune": lambda t: t.prune("t"),
    "prune all": lambda t: t.store.prune_threads(t.name, ["t"], PruneStrategy.DELETE, timeout=TIMEOUT),
    "copy": lambda t: t.copy("t", "copied"),
    "copy onto it": lambda t: t.copy("copied", "t"),
    "put a part": lambda t: t.upload(b"two", b"more"),
    "put an upload": lambda t: t.put("4", versions={"a": "4"}, values={"a": uploaded(b"one", 5)}),
    "get a value": lambda t: t.value("a", "1"),
    "get a task write": lambda t: t.written("2", "task", 0),
    "acquire": lambda t: t.acquire("me", thread="t"),
    "acquire what is held": lambda t: t.acquire("holder", thread="leased"),
    "release": lambda t: t.release("holder", thread="leased"),
    "see the lease": lambda t: t.lease(thread="leased"),
    "list threads": lambda t: t.threads(),
    "list threads by name": lambda t: t.threads(ThreadFilter(prefix="t")),
    "list threads by tag": lambda t: t.threads(ThreadFilter(tags={"kind": "any"})),
    "count threads": lambda t: t.store.count_threads(t.name, ThreadFilter(), timeout=TIMEOUT),
    "list nodes": nodes,
    "tag": lambda t: gather_results(t.tag("t", colour="blue")),
    "set a policy": lambda t: t.set_policy("new", max_idle_seconds=1),
    "list policies": lambda t: t.store.retention.list_policies(t.name, timeout=TIMEOUT),
    "delete a policy": lambda t: t.store.retention.delete_policy(t.name, "p", timeout=TIMEOUT),
    "try a policy": lambda t: t.preview(RetentionPolicy(name="new", keep_newest=1)),
    "apply policies": apply_policies,
    "announce": announce,
    "count a read": lambda t: t.store.note_read(t.name, "t", timeout=TIMEOUT),
    "archive": lambda t: gather_results(t.archive("t")),
    "find threads": find,
    "add up": lambda t: t.store.tenants.read_usage(t.name, timeout=TIMEOUT),
    "statistics": statistics,
    "purge what is found": lambda t: purge(t, ThreadFilter(prefix="t")),
    "purge all": lambda t: purge(t, None),
    "purge the rest": lambda t: t.store.tenants.purge_rest(t.name, PurgeReport(), timeout=TIMEOUT),
    "unarchive": lambda t: gather_results(t.archive("t", archives=False)),
}
