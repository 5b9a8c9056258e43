"""Items of long-term memory on real PostgreSQL: changes, reads, times to live and words."""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import Any

import pytest

from checkpointd_server.domain.errors import InvalidArgument, ItemVersionConflict
from checkpointd_server.domain.items import (
    Changed,
    DeleteItem,
    ItemKey,
    ItemSearch,
    ItemStore,
    ItemText,
    NamespaceCondition,
    NamespaceQuery,
    PutItem,
    TextQuery,
)
from checkpointd_server.store import PostgresStore, StoreOptions, open_store
from checkpointd_server.store.items.names import decode, encode
from tests.support.items import BIG, TIMEOUT, change, get, keys, put
from tests.support.tenant import a_connection

_numbers = itertools.count(1)


@pytest.mark.parametrize(
    "namespace", [("a",), ("a", "b"), ("\x01", "\x02"), ("a\x01b", "\x02\x03"), ("ü", "\U0010ffff"), ("a.b", "*")]
)
def test_a_namespace_comes_back_as_it_went_in(namespace: tuple[str, ...]) -> None:
    assert decode(encode(namespace)) == namespace


def test_namespaces_compare_as_their_labels_do() -> None:
    labels = ["\x01", "\x01\x02", "\x02", "a", "a\x01", "a\x02", "ab", "b", "\U0010ffff"]
    namespaces = [path for size in (1, 2) for path in itertools.product(labels, repeat=size)]
    assert sorted(namespaces) == sorted(namespaces, key=lambda path: encode(path).encode())


class TestChanges:
    async def test_callers_at_once_share_commits_and_each_is_told_its_own(self, items: ItemStore) -> None:
        results = await asyncio.gather(*[change(items, put(f"{n}"), put(f"{n}b")) for n in range(40)])
        assert all(isinstance(result, Changed) for pair in results for result in pair)
        assert await items.count((), {}, timeout=TIMEOUT) == 80

    async def test_one_that_cannot_be_stored_takes_nobody_along(self, items: ItemStore) -> None:
        bad = PutItem(key=ItemKey(("ns",), "bad"), type="json", data=b"{}", doc="no JSON")
        results = await asyncio.gather(
            *[change(items, put(f"{n}")) for n in range(5)], change(items, bad), return_exceptions=True
        )
        assert [isinstance(result, list) for result in results] == [True] * 5 + [False]
        assert await items.count((), {}, timeout=TIMEOUT) == 5

    async def test_of_many_who_expect_a_version_one_wins(self, items: ItemStore) -> None:
        ((version, _),) = await change(items, put("k", expected_version=0))
        results = await asyncio.gather(
            *[change(items, put("k", {"n": n}, expected_version=version)) for n in range(10)]
        )
        outcomes = [result for (result,) in results]
        assert sum(isinstance(outcome, Changed) for outcome in outcomes) == 1
        assert all(
            outcome.current_version > version for outcome in outcomes if isinstance(outcome, ItemVersionConflict)
        )

    async def test_a_put_that_is_sent_again_changes_nothing(self, items: ItemStore) -> None:
        ((version, _),) = await change(items, put("k", expected_version=0, request_id=b"one"))
        for expected in (0, None, 7):
            again = put("k", {"n": 9}, expected_version=expected, request_id=b"one")
            assert await change(items, again) == [Changed(version, True)]
        assert (await get(items, "k")).data == b"{}"
        await change(items, put("k", {"n": 1}, request_id=b"two"))
        (late,) = await change(items, put("k", expected_version=0, request_id=b"one"))
        assert isinstance(late, ItemVersionConflict)

    async def test_many_puts_at_once_are_told_their_own_versions_in_their_order(self, items: ItemStore) -> None:
        names = [f"{n}" for n in range(50)]
        Random(2).shuffle(names)
        before = await change(items, *[put(name, request_id=name.encode()) for name in names])
        stored = {name: (await get(items, name)).version for name in names}
        assert before == [Changed(stored[name], True) for name in names]
        # Puts that are sent again change nothing, except on items that were stored again since.
        await change(items, put("7", {"n": 7}))
        again = await change(items, *[put(name, {"n": 1}, request_id=name.encode()) for name in names], put("new"))
        for name, old, new in zip(names, before, again, strict=False):
            assert (new.version > old.version) == (name == "7")
            assert (await get(items, name)).data == (b'{"n": 1}' if name == "7" else b"{}")
        assert (await keys(items, limit=2)) == ["new", "7"]

    async def test_of_many_puts_those_put_last_are_found_first(self, items: ItemStore) -> None:
        names = ["c", "a", "d", "b"]
        await change(items, *[put(name) for name in names])
        assert await keys(items) == names[::-1]

    async def test_deletions_heed_versions_too(self, items: ItemStore) -> None:
        ((version, _),) = await change(items, put("k"))
        key = ItemKey(("ns",), "k")
        (conflict,) = await change(items, DeleteItem(key=key, expected_version=version - 1))
        assert isinstance(conflict, ItemVersionConflict)
        assert conflict.current_version == version
        (deleted,) = await change(items, DeleteItem(key=key, expected_version=version))
        assert deleted.found
        (conflict,) = await change(items, DeleteItem(key=key, expected_version=version))
        assert isinstance(conflict, ItemVersionConflict)
        assert conflict.current_version == 0
        (absent,) = await change(items, DeleteItem(key=key))
        assert not absent.found

    async def test_a_new_item_of_the_same_name_has_a_greater_version_and_its_own_time(self, items: ItemStore) -> None:
        ((first, _),) = await change(items, put("k"))
        before = await get(items, "k")
        await change(items, DeleteItem(key=ItemKey(("ns",), "k")))
        ((second, _),) = await change(items, put("k"))
        assert second > first
        assert (await get(items, "k")).created_at > before.created_at

    async def test_servers_on_one_database_never_wait_for_each_other_in_a_circle(
        self, store: PostgresStore, shared_options: StoreOptions
    ) -> None:
        tenant, names, random = f"two-servers-{next(_numbers)}", [f"{n}" for n in range(12)], Random(1)
        async with open_store(shared_options) as other:
            sides = [one.items(tenant) for one in (store, other)]

            async def turn(items: ItemStore) -> None:
                some = random.sample(names, 8)
                await change(items, *[put(name, ttl=60) for name in some])
                wanted = [(ItemKey(("ns",), name), True) for name in random.sample(names, 8)]
                await items.get(wanted, max_bytes=BIG, timeout=TIMEOUT)
                await change(items, *[DeleteItem(key=ItemKey(("ns",), name)) for name in random.sample(names, 4)])

            before = [one.connections.metrics.retries for one in (store, other)]
            await asyncio.gather(*[turn(sides[number % 2]) for number in range(60)])
            # The database would have ended a deadlock, and the call would have been retried.
            assert [one.connections.metrics.retries for one in (store, other)] == before


class TestTimesToLive:
    async def test_what_has_expired_is_read_by_nobody_and_swept(self, items: ItemStore, store: PostgresStore) -> None:
        await change(items, put("short", ttl=0.2), put("long", ttl=60), put("ever"))
        item = await get(items, "long")
        assert 55 < (item.expires_at - item.updated_at).total_seconds() < 65
        await asyncio.sleep(0.3)
        assert await get(items, "short") is None
        assert set(await keys(items)) == {"long", "ever"}
        assert await items.count((), {}, timeout=TIMEOUT) == 2
        ((version, _),) = await change(items, put("short", expected_version=0, ttl=0.1))
        assert version
        await asyncio.sleep(0.2)
        await store.run_gc()
        async with a_connection(store) as connection:
            await connection.execute(f"SELECT set_config('checkpointd.tenant', '{items._database._first[0]}', false)")  # type: ignore[attr-defined]
            assert await connection.fetchval("SELECT count(*) FROM checkpointd.items") == 2
            await connection.execute("SELECT set_config('checkpointd.tenant', '', false)")

    async def test_a_read_lets_it_begin_anew_if_it_is_asked_to(self, items: ItemStore) -> None:
        await change(items, put("k", ttl=60))
        first = (await get(items, "k")).expires_at
        assert (await get(items, "k")).expires_at == first
        refreshed = (await get(items, "k", refreshes=True)).expires_at
        assert refreshed > first
        assert (await get(items, "k")).expires_at == refreshed
        await keys(items, refreshes=True)
        assert (await get(items, "k")).expires_at > refreshed


class TestSearchesWithoutAQuery:
    @pytest.mark.parametrize("namespaces", [1, 3, 8, 9, 20])
    async def test_list_what_was_stored_last_first_in_few_and_many_namespaces(
        self, items: ItemStore, namespaces: int
    ) -> None:
        numbers = list(range(60))
        Random(namespaces).shuffle(numbers)
        for number in numbers:
            await change(items, put(f"{number}", {"odd": number % 2}, "a", f"{number % namespaces}"))
        await change(items, put("beside", None, "b"), put("gone", None, "a", "0", ttl=0.001))
        await asyncio.sleep(0.01)
        wanted = [f"{number}" for number in reversed(numbers)]
        assert await keys(items, prefix=("a",), limit=100) == wanted
        assert await keys(items, prefix=("a",), limit=7, offset=5) == wanted[5:12]
        odd = [key for key in wanted if int(key) % 2]
        assert await keys(items, prefix=("a",), filter={"odd": 1}, limit=7, offset=20) == odd[20:27]

    async def test_order_those_stored_at_once_by_namespace_and_key(self, items: ItemStore) -> None:
        await change(items, *[put(key, None, "a", label) for key, label in [("k", "y"), ("l", "x"), ("k", "x")]])
        async with a_connection(items) as connection, connection.transaction():  # type: ignore[arg-type]
            await _act_as(connection, items)
            await connection.execute("UPDATE checkpointd.items SET updated_at = '2026-01-01'")
        assert [await keys(items, prefix=("a",), limit=1, offset=at) for at in range(3)] == [["k"], ["l"], ["k"]]
        assert await keys(items, prefix=("a", "x")) == ["k", "l"]

    async def test_look_at_no_more_items_than_they_need(self, items: ItemStore) -> None:
        """Not even if the plans were made when there were no items."""
        assert await keys(items) == []
        await change(items, *[put(f"{number}", {"odd": number % 2}, "ns") for number in range(250)])
        assert len(await keys(items, filter={"odd": 1}, limit=5)) == 5
        call = "SELECT * FROM checkpointd.search_items($1, $2, $3, $4, 0, 5, NULL, false, 1000)"
        place = encode(("ns",))
        assert await _looked_at(items, call, place, place + "\2", 'strict $."odd" == 1') <= 5 * 4
        call = "SELECT * FROM checkpointd.get_items($1, ARRAY[$2], ARRAY[$3], ARRAY[false], 1000)"
        assert await _looked_at(items, call, place, "7") == 1


class TestNamespaces:
    async def test_are_listed_by_prefix_suffix_wildcards_and_depth(self, items: ItemStore) -> None:
        paths = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "x", "c"), ("ab",), ("d", "b", "c"), (".*", "[", "\\")]
        await change(items, *[put("k", None, *path) for path in paths], put("gone", None, "z", ttl=0.001))
        await asyncio.sleep(0.01)

        async def listed(*conditions: NamespaceCondition, depth: int | None = None, **page: int) -> list[Any]:
            query = NamespaceQuery(conditions=conditions, max_depth=depth, **{"limit": 100, **page})
            return await items.list_namespaces(query, timeout=TIMEOUT)

        def prefix(*path: str) -> NamespaceCondition:
            return NamespaceCondition(path=path)

        def suffix(*path: str) -> NamespaceCondition:
            return NamespaceCondition(path=path, at_end=True)

        assert await listed() == sorted(paths)
        assert await listed(prefix("a")) == [("a",), ("a", "b"), ("a", "b", "c"), ("a", "x", "c")]
        assert await listed(prefix("a", "*", "c")) == [("a", "b", "c"), ("a", "x", "c")]
        assert await listed(prefix("*", "b")) == [("a", "b"), ("a", "b", "c"), ("d", "b", "c")]
        assert await listed(suffix("b", "c")) == [("a", "b", "c"), ("d", "b", "c")]
        assert await listed(suffix("*", "c"), prefix("a")) == [("a", "b", "c"), ("a", "x", "c")]
        assert await listed(prefix(".*")) == [(".*", "[", "\\")]
        assert await listed(suffix("[", "\\")) == [(".*", "[", "\\")]
        assert await listed(suffix("\\")) == [(".*", "[", "\\")]
        assert await listed(depth=1) == [(".*",), ("a",), ("ab",), ("d",)]
        assert await listed(depth=2) == [(".*", "["), ("a",), ("a", "b"), ("a", "x"), ("ab",), ("d", "b")]
        assert await listed(depth=1, limit=2, offset=1) == [("a",), ("ab",)]
        assert await listed(suffix("c"), depth=1) == [("a",), ("d",)]


class TestWords:
    async def test_find_items_by_rank(self, items: ItemStore) -> None:
        await change(
            items,
            put("a", {"n": 1}, text=ItemText(text="The user likes dark chocolate\nand coffee", language="english")),
            put("b", {"n": 2}, text=ItemText(text="chocolates", language="english")),
            put("c", {"n": 3}, text=ItemText(text="it's \\ 'quoted' & | ! odd", language="simple")),
            put("none"),
        )
        words = TextQuery(query="chocolate or coffee?", language="english")
        assert await keys(items, text=words) == ["a", "b"]
        assert await keys(items, text=words, filter={"n": {"$gt": 1}}) == ["b"]
        assert await keys(items, text=TextQuery(query="chocolate coffee", language="english", web=True)) == ["a"]
        assert await keys(items, text=TextQuery(query="chocolate -coffee", language="english", web=True)) == ["b"]
        assert await keys(items, text=TextQuery(query="'QUOTED' \\ &", language="simple")) == ["c"]
        assert await keys(items, text=TextQuery(query="the", language="english")) == []
        await change(items, put("b", {"n": 2}))
        assert await keys(items, text=words) == ["a"]

    async def test_an_unknown_language_is_refused_by_name(self, items: ItemStore) -> None:
        for wanted in (
            put("a", text=ItemText(text="x", language="klingon")),
            ItemSearch(prefix=(), limit=1, text=TextQuery(query="x", language="pg_catalog.english")),
        ):
            with pytest.raises(InvalidArgument) as refused:
                await items.check(wanted, timeout=TIMEOUT)
            assert refused.value.field == "text.language"


async def _act_as(connection: Any, items: ItemStore) -> None:
    """Lets a transaction see a tenant's rows."""
    await connection.execute("SELECT set_config('checkpointd.tenant', $1, true)", items._database.tenant)  # type: ignore[attr-defined]


async def _looked_at(items: ItemStore, call: str, *args: object) -> int:
    """Returns the number of item rows that a call of the tenant reads."""
    counted = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'items'"
    async with a_connection(items) as connection, connection.transaction():  # type: ignore[arg-type]
        before = await connection.fetchval(counted)
        await connection.fetch(call, items._database.tenant, *args)  # type: ignore[attr-defined]
        return int(await connection.fetchval(counted) - before)
