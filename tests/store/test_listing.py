"""Listing: order, pages, bounds and filters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tenant import Tenant, write


async def _fill(tenant: Tenant) -> None:
    """Two threads with two namespaces each; ids overlap between them."""
    for thread in ("t1", "t2"):
        for ns in ("", "child"):
            for n in range(6):
                await tenant.put(
                    f"{n}",
                    thread=thread,
                    ns=ns,
                    parent=str(n - 1) if n else None,
                    versions={"a": str(n)},
                    values={"a": f"{thread}{ns}{n}".encode()},
                    metadata={"n": n, "thread": thread, "odd": n % 2 == 1, "tags": ["x", str(n)], "deep": {"n": n}},
                )
                await tenant.writes(str(n), write("task", 0, "a", f"{thread}{ns}{n}".encode()), thread=thread, ns=ns)


def _keys(checkpoints: list[Any]) -> list[tuple[str, str, str]]:
    return [(c.checkpoint_id, c.thread_id, c.checkpoint_ns) for c in checkpoints]


def _expected(threads: list[str], namespaces: list[str], ids: list[int]) -> list[tuple[str, str, str]]:
    """Newest first by id, then by the thread's key and the namespace."""
    return [(str(n), t, ns) for n in sorted(ids, reverse=True) for t in threads for ns in sorted(namespaces)]


SCOPES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"thread_id": "t1", "checkpoint_ns": ""}, ["t1"], [""]),
    ({"thread_id": "t1", "checkpoint_ns": "child"}, ["t1"], ["child"]),
    ({"thread_id": "t2"}, ["t2"], ["", "child"]),
    ({}, ["t1", "t2"], ["", "child"]),
    ({"checkpoint_ns": "child"}, ["t1", "t2"], ["child"]),
    ({"thread_id": "unknown"}, [], []),
]
BOUNDS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3, 4, 5]),
    ({"before_checkpoint_id": "3"}, [0, 1, 2]),
    ({"before_checkpoint_id": "0"}, []),
    ({"checkpoint_id": "4"}, [4]),
    ({"checkpoint_id": "4", "before_checkpoint_id": "4"}, []),
    ({"checkpoint_id": "unknown"}, []),
    ({"metadata_filter": '{"odd": true}'}, [1, 3, 5]),
    ({"metadata_filter": '{"odd": true}', "before_checkpoint_id": "5"}, [1, 3]),
    ({"metadata_filter": '{"tags": ["2"]}'}, [2]),
    ({"metadata_filter": '{"deep": {}}', "checkpoint_id": "2"}, [2]),
    ({"metadata_filter": '{"deep": {"n": 9}}'}, []),
    ({"metadata_filter": '{"unknown": null}'}, []),
]


async def test_every_scope_and_bound_gives_the_same_in_pages_of_any_size(tenant: Tenant) -> None:
    await _fill(tenant)
    for scope, threads, namespaces in SCOPES:
        for bounds, ids in BOUNDS:
            for page_size in (1, 2, 3, 100):
                listed = await tenant.listed(**scope, **bounds, page_size=page_size)
                by_key = sorted(threads, key=lambda thread: str(tenant.key(thread)))
                assert _keys(listed) == _expected(by_key, namespaces, ids), (scope, bounds, page_size)


async def test_listed_checkpoints_are_whole(tenant: Tenant) -> None:
    await _fill(tenant)
    for query in ({"thread_id": "t1", "checkpoint_ns": "child"}, {"thread_id": "t1"}, {}):
        for listed, values in await tenant.listed_whole(**query, page_size=4):
            one = {"thread": listed.thread_id, "ns": listed.checkpoint_ns}
            assert listed == await tenant.read(listed.checkpoint_id, **one)
            assert values == await tenant.values(listed.checkpoint_id, **one)


async def test_the_metadata_view_has_neither_values_nor_writes(tenant: Tenant) -> None:
    await _fill(tenant)
    page = await tenant.page(thread_id="t1", metadata_only=True)
    assert (len(page.checkpoints), page.values) == (12, [])
    assert all(c.pending_writes == [] and c.channel_versions and c.metadata for c in page.checkpoints)


async def test_a_page_tells_where_the_next_one_starts(tenant: Tenant) -> None:
    await _fill(tenant)
    page = await tenant.page(thread_id="t1", checkpoint_ns="", page_size=6)
    assert (len(page.checkpoints), page.after) == (6, None)
    page = await tenant.page(thread_id="t1", checkpoint_ns="", page_size=5)
    assert page.after == ("1", "t1", "")


async def test_a_page_is_cut_by_bytes_but_holds_at_least_one(tenant: Tenant) -> None:
    for n in range(6):
        await tenant.put(f"{n}", versions={"a": str(n), "b": "0"}, values={"a": b"x" * 1000, "b": b"y" * 1000})
    query = {"thread_id": "t", "checkpoint_ns": ""}
    # The first checkpoint brings both values, the others only one: shared values are sent once.
    assert len((await tenant.page(**query, page_bytes=5000)).checkpoints) == 3
    assert len((await tenant.page(**query, page_bytes=1)).checkpoints) == 1
    assert [c.checkpoint_id for c in await tenant.listed(**query, page_bytes=5000)] == ["5", "4", "3", "2", "1", "0"]
    assert len((await tenant.page(**query, page_bytes=5000, metadata_only=True)).checkpoints) == 6


async def test_writes_count_as_bytes_of_a_page(tenant: Tenant) -> None:
    for n in range(4):
        await tenant.put(f"{n}")
        await tenant.writes(f"{n}", write("task", 0, "a", b"x" * 1000))
    assert len((await tenant.page(thread_id="t", page_bytes=2500)).checkpoints) == 2


async def test_each_checkpoint_carries_its_namespaces_version(tenant: Tenant) -> None:
    await tenant.put("1")
    version = await tenant.put("2")
    child = await tenant.put("1", ns="child")
    listed = await tenant.listed(thread_id="t")
    assert [(c.checkpoint_ns, c.version) for c in listed] == [("", version), ("", version), ("child", child)]


async def test_a_list_of_one_namespace_tells_its_version_even_if_it_is_empty(tenant: Tenant) -> None:
    version = await tenant.put("1")
    assert (await tenant.page(thread_id="t", checkpoint_ns="")).version == version
    assert (await tenant.page(thread_id="t", checkpoint_ns="", before_checkpoint_id="0")).version == version
    assert (await tenant.page(thread_id="t")).version == 0
    assert (await tenant.page(checkpoint_ns="")).version == 0
    assert (await tenant.page(thread_id="unknown", checkpoint_ns="")).version == 0


@pytest.mark.parametrize("metadata_filter", ['{"a": "\' OR true --"}', '{"$7": 1}', '{"a\\"b": {}}'])
async def test_a_hostile_filter_matches_nothing_else(tenant: Tenant, metadata_filter: str) -> None:
    await tenant.put("1", metadata={"a": "b"})
    assert await tenant.listed(metadata_filter=metadata_filter) == []
