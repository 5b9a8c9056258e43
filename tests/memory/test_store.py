"""GrpcStore implements all of LangGraph's BaseStore: what LangGraph's own stores do, and what they don't."""

from __future__ import annotations

import math
import pickle
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from langgraph.checkpoint.grpc import (
    Encryption,
    FoundItem,
    GrpcSaver,
    GrpcStore,
    InvalidArgumentError,
    ItemConflictError,
    StoredItem,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
    TTLConfig,
)

from tests.support.stores import Build

Call = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, store: GrpcStore) -> Call:
    """Calls a method of the store, blocking or awaiting."""

    async def call(name: str, *args: Any, of: GrpcStore | None = None, **options: Any) -> Any:
        if request.param == "sync":
            return getattr(of or store, name)(*args, **options)
        return await getattr(of or store, f"a{name}")(*args, **options)

    return call


async def test_items_are_put_read_replaced_and_deleted(call: Call, root: str) -> None:
    place = (root, "users")
    before = datetime.now(UTC) - timedelta(seconds=5)
    assert await call("get", place, "1") is None
    await call("put", place, "1", {"name": "Ada", "nested": {"a": [1, None, True]}})
    first = await call("get", place, "1")
    assert isinstance(first, StoredItem)
    assert (first.namespace, first.key, first.value) == (place, "1", {"name": "Ada", "nested": {"a": [1, None, True]}})
    assert before < first.created_at <= first.updated_at < datetime.now(UTC) + timedelta(seconds=5)
    assert first.expires_at is None
    await call("put", place, "1", {"name": "Bea"})
    second = await call("get", place, "1")
    assert second.value == {"name": "Bea"}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    assert second.version > first.version
    await call("delete", place, "1")
    await call("delete", place, "1")
    assert await call("get", place, "1") is None


async def test_keys_are_texts(call: Call, root: str) -> None:
    await call("put", (root,), 17, {"a": 1})
    assert (await call("get", (root,), "17")).value == {"a": 1}


VALUES: list[dict[str, Any]] = [
    {},
    {"nul": "a\0b", "": "empty key", "\ue000": "escape"},
    {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zero": -0.0},
    {"small": 5e-324, "large": 1.5e308, "one": 1.0, "int": 1, "bool": True},
    {"64 bits": [2**64 - 1, -(2**63)], "more": [2**64, -(2**63) - 1, 10**300]},
    {"lone": "\ud800", "pair": "\U0001f600"},
    {"deep": {"a": {"b": {"c": [[[{"d": None}]]]}}}},
    {"bytes": b"\0\xff"},
    {"at": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "id": uuid4(), "set": {1, 2}},
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: next(iter(value), "empty") or "empty key")
async def test_values_come_back_as_they_went_in(call: Call, root: str, value: dict[str, Any]) -> None:
    await call("put", (root,), "k", value)
    found = (await call("get", (root,), "k")).value
    assert repr(found) == repr(value)  # NaN is not equal to itself, and 1 is to 1.0 and True
    (item,) = await call("search", (root,))
    assert repr(item.value) == repr(value)


async def test_a_value_that_cannot_be_stored_is_refused(call: Call, root: str) -> None:
    for value in ([1], "text", {"a": object()}, {"a": [2**70, b"bytes"]}):
        with pytest.raises(InvalidArgumentError, match="value: "):
            await call("put", (root,), "k", value)
    assert await call("count", (root,)) == 0


async def test_namespaces_follow_the_rules_of_base_store(call: Call, root: str) -> None:
    wrong: tuple[Any, ...] = ((), ("langgraph", "a"), ("a.b",), ("",), ("a", 3), ("a\0",))
    for namespace in wrong:
        with pytest.raises(InvalidNamespaceError):
            await call("put", namespace, "k", {})
    for namespace in wrong[2:]:
        for method, args in (("get", ["k"]), ("delete", ["k"]), ("search", []), ("count", [])):
            with pytest.raises(InvalidNamespaceError):
                await call(method, namespace, *args)
        with pytest.raises(InvalidNamespaceError):
            await call("list_namespaces", prefix=namespace)
        with pytest.raises(InvalidNamespaceError):
            await call("batch", [GetOp(namespace, "k")])
    with pytest.raises(InvalidNamespaceError):
        await call("batch", [PutOp((), "k", {})])
    assert await call("get", (), "k") is None
    await call("delete", (), "k")
    for key in ("", "x" * 1000, "a\0b", "\ud800"):
        with pytest.raises(InvalidArgumentError) as refused:
            await call("put", (root,), key, {})
        assert refused.value.field == "key"


async def fill(call: Call, root: str) -> None:
    for number in (9, 10, 100):
        await call("put", (root, "n", str(number)), "k", {"n": number, "x": {"y": [number]}, "odd": bool(number % 2)})
    await call("put", (root, "n", "text"), "k", {"n": "10", "at": "2026-01-01"})
    await call("put", (root, "n", "none"), "k", {"n": None})


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({"n": {"$gt": 9}}, {"10", "100"}),
        ({"n": {"$gte": 9.5, "$lt": 100.0}}, {"10"}),
        ({"n": {"$lte": 10}}, {"9", "10"}),
        ({"n": 10.0}, {"10"}),
        ({"n": {"$eq": 10}}, {"10"}),
        ({"n": "10"}, {"text"}),
        ({"n": {"$ne": 10}}, {"9", "100", "text", "none"}),
        ({"n": {"$in": [9, "10"]}}, {"9", "text"}),
        ({"n": {"$nin": [9, "10", None]}}, {"10", "100"}),
        ({"odd": {"$exists": True}}, {"9", "10", "100"}),
        ({"odd": {"$exists": False}}, {"text", "none"}),
        ({"x": {"y": [10]}}, {"10"}),
        ({"x": {"y": {"$ne": [10]}}}, {"9", "100"}),
        ({"n": {"$gt": 9}, "odd": False}, {"10", "100"}),
        ({"at": {"$gt": "2025"}}, {"text"}),
        ({"n": {"$lt": 2**70}}, {"9", "10", "100"}),
        ({"n": None}, {"none"}),
        ({}, {"9", "10", "100", "text", "none"}),
        (None, {"9", "10", "100", "text", "none"}),
    ],
)
async def test_filters_compare_numbers_as_numbers(
    call: Call, root: str, filter: dict[str, Any] | None, found: set[str]
) -> None:
    await fill(call, root)
    assert {item.namespace[-1] for item in await call("search", (root,), filter=filter)} == found
    assert await call("count", (root,), filter=filter) == len(found)


async def test_exact_values_can_be_filtered_by(call: Call, root: str) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    await call("put", (root,), "big", {"n": 2**80, "nul": "a\0b", "lone": "\ud800", "nan": math.nan})
    await call("put", (root,), "time", {"at": at, "bytes": b"\1", "tags": ("a", "b")})
    for filter, key in (
        ({"n": 2**80}, "big"),
        ({"n": {"$gt": 2**79}}, "big"),
        ({"nul": "a\0b"}, "big"),
        ({"lone": "\ud800"}, "big"),
        ({"at": at}, "time"),
        ({"at": {"$gt": at - timedelta(days=1)}}, "time"),
        ({"bytes": b"\1"}, "time"),
        ({"tags": ["a", "b"]}, "time"),
    ):
        assert [item.key for item in await call("search", (root,), filter=filter)] == [key], filter


async def test_wrong_filters_are_refused(call: Call, root: str) -> None:
    wrong: list[Any] = [{"a": {"$regex": "x"}}, {"a": {"$in": 3}}, {"$gt": 3}, {"a": object()}, [1]]
    for filter in wrong:
        with pytest.raises(InvalidArgumentError, match="filter"):
            await call("search", (root,), filter=filter)
    for options in ({"limit": -1}, {"offset": -1}, {"limit": 1.5}):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            await call("search", (root,), **options)


async def test_searches_are_paged(call: Call, root: str) -> None:
    await call("batch", [PutOp((root, str(number % 3)), str(number), {"n": number}) for number in range(1200)])
    assert len(await call("search", (root,))) == 10
    assert await call("search", (root,), limit=0) == []
    found = await call("search", (root,), limit=5000)
    assert sorted(item.value["n"] for item in found) == list(range(1200))
    assert isinstance(found[0], FoundItem)
    assert found[0].score is None
    rest = await call("search", (root,), limit=1100, offset=150)
    assert [item.key for item in rest] == [item.key for item in found[150:]]
    assert len(await call("search", (root, "1"), limit=5000)) == 400
    assert await call("count", (root, "1"), filter={"n": {"$lt": 10}}) == 3


async def test_namespaces_are_listed(call: Call, root: str) -> None:
    for path in (("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"), ("a", "b", "f"), ("a", "c", "f"), ("b",)):
        await call("put", (root, *path), "k", {})

    async def listed(**options: Any) -> list[tuple[str, ...]]:
        return [namespace[1:] for namespace in await call("list_namespaces", **options)]

    assert await listed(prefix=(root, "a", "b"), max_depth=4) == [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]
    assert await listed(prefix=(root,), max_depth=2) == [("a",), ("b",)]
    await call("put", (root, "a"), "k", {})
    assert await listed(prefix=(root,), max_depth=3) == [("a",), ("a", "b"), ("a", "c"), ("b",)]
    await call("delete", (root, "a"), "k")
    assert await listed(prefix=(root,), suffix=("f",)) == [("a", "b", "f"), ("a", "c", "f")]
    assert await listed(prefix=(root, "*", "c")) == [("a", "c", "f")]
    assert await listed(prefix=(root,), suffix=("d", "*")) == [("a", "b", "d", "e"), ("a", "b", "d", "i")]
    assert await listed(prefix=(root,), limit=2, offset=1) == [("a", "b", "d", "e"), ("a", "b", "d", "i")]
    assert await listed(prefix=(root,), limit=0) == []
    await call("delete", (root, "b"), "k")
    assert ("b",) not in await listed(prefix=(root,))
    with pytest.raises(InvalidArgumentError, match="max_depth"):
        await listed(max_depth=0)


async def test_a_batch_answers_in_order_and_reads_what_was_before(call: Call, root: str) -> None:
    await call("put", (root,), "a", {"n": 1})
    results = await call(
        "batch",
        [
            PutOp((root,), "a", {"n": 2}),
            GetOp((root,), "a"),
            SearchOp((root,), filter={"n": {"$lt": 3}}),
            PutOp((root,), "b", {"n": 1}),
            ListNamespacesOp(match_conditions=(MatchCondition("prefix", (root,)),)),
            PutOp((root,), "b", {"n": 2}),
            GetOp((root,), "b"),
            PutOp((root,), "c", {"n": 1}),
            PutOp((root,), "c", None),
        ],
    )
    assert [getattr(one, "value", one) for one in (results[1], *results[2])] == [{"n": 1}, {"n": 1}]
    assert results[4] == [(root,)]
    assert [results[at] for at in (0, 3, 5, 6, 7, 8)] == [None] * 6
    values = {key: item and item.value for key in "abc" if (item := await call("get", (root,), key)) or True}
    assert values == {"a": {"n": 2}, "b": {"n": 2}, "c": None}
    assert await call("batch", []) == []
    with pytest.raises(InvalidArgumentError, match="ops"):
        await call("batch", ["get"])


async def test_a_large_batch_goes_in_several_calls(call: Call, root: str) -> None:
    large = "x" * 1_500_000
    await call("batch", [PutOp((root,), str(number), {"n": number, "text": large}) for number in range(4)])
    await call("put", (root,), "small", {"n": 4})
    results = await call(
        "batch", [GetOp((root,), str(number)) for number in range(4)] + [GetOp((root,), "small")] * 400
    )
    assert [item.value["n"] for item in results] == [0, 1, 2, 3] + [4] * 400
    await call("delete", (root,), "small")
    found = await call("search", (root,), limit=4)
    assert {len(item.value["text"]) for item in found} == {len(large)}


async def test_items_expire(call: Call, root: str, store_with: Build) -> None:
    short = store_with(ttl=TTLConfig(default_ttl=1 / 60 / 5, refresh_on_read=False))
    assert short.supports_ttl
    await call("put", (root,), "default", {}, of=short)
    await call("put", (root,), "own", {}, ttl=60, of=short)
    await call("put", (root,), "never", {}, ttl=None, of=short)
    own = await call("get", (root,), "own", of=short)
    assert timedelta(minutes=59) < own.expires_at - own.created_at <= timedelta(minutes=60)
    assert (await call("get", (root,), "own")).expires_at > own.expires_at  # refreshed where that is the default
    again = await call("get", (root,), "own", refresh_ttl=False)
    assert (await call("get", (root,), "own", of=short)).expires_at == again.expires_at
    while await call("get", (root,), "default", of=short) is not None:
        pass
    assert {item.key for item in await call("search", (root,))} == {"own", "never"}
    assert await call("count", (root,)) == 2
    with pytest.raises(InvalidArgumentError, match="ttl"):
        await call("put", (root,), "k", {}, ttl=0)


async def test_two_writers_do_not_lose_an_update(call: Call, root: str) -> None:
    place = (root, "profiles")
    await call("put", place, "ada", {"n": 1}, if_version_match=0)
    with pytest.raises(ItemConflictError) as there:
        await call("put", place, "ada", {"n": 9}, if_version_match=0)
    item = await call("get", place, "ada")
    assert there.value.current_version == item.version
    await call("put", place, "ada", {"n": 2}, if_version_match=item.version)
    with pytest.raises(ItemConflictError, match="another writer") as late:
        await call("put", place, "ada", {"n": 3}, if_version_match=item.version)
    error = late.value
    assert (error.namespace, error.key, error.expected_version) == (place, "ada", item.version)
    assert error.current_version > item.version
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(ItemConflictError):
        await call("delete", place, "ada", if_version_match=item.version)
    assert (await call("get", place, "ada")).value == {"n": 2}
    await call("delete", place, "ada", if_version_match=error.current_version)
    with pytest.raises(ItemConflictError, match="isn't there"):
        await call("delete", place, "ada", if_version_match=error.current_version)


async def test_update_reads_again_until_nobody_comes_between(call: Call, root: str, store: GrpcStore) -> None:
    others = [3]

    def add_one(value: dict[str, Any] | None) -> dict[str, Any]:
        if others and others.pop():
            store.put((root,), "k", {"n": 10})
        return {"n": (value or {"n": 0})["n"] + 1}

    await call("update", (root,), "k", add_one)
    assert (await call("get", (root,), "k")).value == {"n": 11}
    await call("update", (root,), "k", lambda value: None)
    await call("update", (root,), "k", lambda value: None)
    assert await call("get", (root,), "k") is None

    def never(value: dict[str, Any] | None) -> dict[str, Any]:
        store.put((root,), "k", {"n": 0})
        return {"n": 1}

    with pytest.raises(ItemConflictError):
        await call("update", (root,), "k", never, attempts=2)


def test_a_store_shares_a_savers_connections(shared_server: Any, root: str) -> None:
    saver = GrpcSaver(shared_server.target)
    with GrpcStore.from_saver(saver) as store:
        store.put((root,), "k", {"a": 1})
        store.setup()
        store.ping()
        saver.close()
        assert store.get((root,), "k") is not None
    with pytest.raises(Exception, match="closed"):
        store.get((root,), "k")


async def test_serializers_of_the_users_hide_values(call: Call, root: str, store_with: Build) -> None:
    hidden = store_with(serde=EncryptedSerializer.from_pycryptodome_aes(key=bytes(32)))
    await call("put", (root,), "k", {"kind": "a", "secret": "s"}, of=hidden)
    assert (await call("get", (root,), "k", of=hidden)).value == {"kind": "a", "secret": "s"}
    assert await call("search", (root,), filter={"kind": "a"}, of=hidden) == []
    some = store_with(serde=EncryptedSerializer.from_pycryptodome_aes(key=bytes(32)), searchable={"kind"})
    await call("put", (root,), "k", {"kind": "a", "secret": "s"}, of=some)
    assert len(await call("search", (root,), filter={"kind": "a"}, of=some)) == 1
    with pytest.raises(InvalidArgumentError, match="searchable"):
        await call("search", (root,), filter={"secret": "s"}, of=some)
    encryption = Encryption(keys={"k": bytes(32)}, current="k")
    with GrpcSaver(encryption=encryption) as saver, pytest.raises(InvalidArgumentError, match="serde"):
        GrpcStore.from_saver(saver)
