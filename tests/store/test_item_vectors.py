"""Vectors of items: how searches rank by them, with and without an index."""

from __future__ import annotations

import itertools
import math

import pytest

from checkpointd_server.domain.errors import VectorsUnavailable
from checkpointd_server.domain.items import (
    DeleteItem,
    Distance,
    ItemKey,
    ItemSearch,
    ItemStore,
    ItemText,
    TextQuery,
    VectorQuery,
)
from checkpointd_server.store import PostgresStore
from checkpointd_server.store.items.features import ItemFeatures
from tests.support.items import TIMEOUT, change, found, keys, put, vectors

_numbers = itertools.count(1)


@pytest.mark.parametrize(
    ("distance", "scores"),
    [(Distance.COSINE, [1, 0.7071, 0]), (Distance.L2, [0, -1, -1.4142]), (Distance.INNER_PRODUCT, [1, 1, 0])],
)
async def test_rank_by_each_distance(distance: Distance, scores: list[float], vectored: ItemStore) -> None:
    await change(
        vectored,
        put("same", vectors=vectors([1, 0])),
        put("half", vectors=vectors([1, 1])),
        put("other", vectors=vectors([0, 1])),
        put("longer", vectors=vectors([1, 0, 0])),
    )
    query = VectorQuery(components=[1, 0], distance=distance)
    ranked = await found(vectored, vector=query)
    assert [score for _, score in ranked[:3]] == pytest.approx(scores, abs=1e-4)
    assert {key for key, _ in ranked[:2]} == {"same", "half"}


async def test_the_best_of_an_items_vectors_counts_and_those_without_come_last(vectored: ItemStore) -> None:
    await change(
        vectored,
        put("old"),
        put("none"),
        put("two", vectors=vectors([0, 1], [1, 0.1])),
        put("one", vectors=vectors([1, 1])),
    )
    query = VectorQuery(components=[1, 0], distance=Distance.COSINE)
    assert await keys(vectored, vector=query) == ["two", "one", "none", "old"]
    assert (await found(vectored, vector=query))[2:] == [("none", None), ("old", None)]
    pages = [await keys(vectored, vector=query, limit=1, offset=offset) for offset in range(5)]
    assert pages == [["two"], ["one"], ["none"], ["old"], []]


async def test_a_put_without_vectors_takes_the_old_ones_away(vectored: ItemStore) -> None:
    query = VectorQuery(components=[1, 0], distance=Distance.COSINE)
    await change(vectored, put("k", vectors=vectors([1, 0], [0, 1])))
    await change(vectored, put("k", vectors=vectors([0, 1])))
    assert await found(vectored, vector=query) == [("k", 0)]
    await change(vectored, put("k"))
    assert await found(vectored, vector=query) == [("k", None)]
    await change(vectored, put("k", vectors=vectors([1, 0])))
    await change(vectored, DeleteItem(key=ItemKey(("ns",), "k")))
    await change(vectored, put("k"))
    assert await found(vectored, vector=query) == [("k", None)]


async def test_below_a_namespace_and_with_a_filter(vectored: ItemStore) -> None:
    await change(
        vectored,
        *[put(f"{n}", {"n": n}, "a" if n % 2 else "b", vectors=vectors([1, n])) for n in range(8)],
    )
    query = VectorQuery(components=[1, 0], distance=Distance.COSINE)
    assert await keys(vectored, vector=query, prefix=("a",)) == ["1", "3", "5", "7"]
    assert await keys(vectored, vector=query, prefix=("a",), filter={"n": {"$gte": 5}}) == ["5", "7"]


async def test_with_words_both_rankings_are_fused(vectored: ItemStore) -> None:
    tea = ItemText(text="tea", language="simple")
    await change(
        vectored,
        put("both", vectors=vectors([1, 0.5]), text=tea),
        put("near", vectors=vectors([1, 0])),
        put("worded", text=tea),
        put("neither"),
    )
    query = VectorQuery(components=[1, 0], distance=Distance.COSINE)
    ranked = await found(vectored, vector=query, text=TextQuery(query="tea", language="simple"))
    assert ranked[0][0] == "both"
    assert {key for key, _ in ranked} == {"both", "near", "worded"}
    assert ranked[0][1] == pytest.approx(1 / 62 + 1 / 62, abs=1e-3)


async def test_an_index_finds_what_comparing_all_finds(vectored: ItemStore) -> None:
    size = 384
    batch = [
        put(f"{n}", {"n": n}, vectors=vectors([float((n * 7 + i * i) % 97) for i in range(size)])) for n in range(1200)
    ]
    for start in range(0, len(batch), 200):
        await change(vectored, *batch[start : start + 200])
    components = [float((i * i + 50) % 97) for i in range(size)]
    by_index = await found(vectored, vector=VectorQuery(components=components, distance=Distance.COSINE))
    exact = await found(vectored, vector=VectorQuery(components=components, distance=Distance.COSINE, exact=True))
    common = {key for key, _ in by_index} & {key for key, _ in exact}
    assert len(common) >= 8
    # The index has half the precision, scores don't.
    scores = dict(exact)
    assert {key: score for key, score in by_index if key in common} == {key: scores[key] for key in common}
    assert [score for _, score in by_index] == sorted([score or 0 for _, score in by_index], reverse=True)


@pytest.mark.parametrize("length", [1e-10, 1e10])
async def test_an_index_by_angles_finds_vectors_of_any_length(vectored: ItemStore, length: float) -> None:
    size = 384
    batch = [put(f"{n}", vectors=vectors([math.sin(n * i) for i in range(size)])) for n in range(1, 1200)]
    wanted = [math.cos(i) for i in range(size)]
    batch.append(put("wanted", vectors=vectors([component * length for component in wanted])))
    for start in range(0, len(batch), 200):
        await change(vectored, *batch[start : start + 200])
    query = VectorQuery(components=[component / length for component in wanted], distance=Distance.COSINE)
    key, score = (await found(vectored, vector=query))[0]
    assert key == "wanted"
    assert score == pytest.approx(1)


async def test_without_pgvector_vectors_are_refused_by_name_and_all_else_works(store: PostgresStore) -> None:
    without = PostgresStore(store.connections, store._options, ItemFeatures()).items(f"without-{next(_numbers)}")
    assert not without.has_vectors
    query = VectorQuery(components=[1], distance=Distance.L2)
    for wanted in (put("k", vectors=vectors([1])), ItemSearch(prefix=(), limit=1, vector=query)):
        with pytest.raises(VectorsUnavailable):
            await without.check(wanted, timeout=TIMEOUT)
    await change(without, put("k", {"n": 1}, text=ItemText(text="tea", language="simple")))
    assert await keys(without, filter={"n": 1}) == ["k"]
    assert await keys(without, text=TextQuery(query="tea", language="simple")) == ["k"]


async def test_vectors_of_many_puts_are_those_of_what_was_stored(vectored: ItemStore) -> None:
    first = [put(f"{n}", vectors=vectors([float(n), 1.0], [1.0, 0.0]), request_id=b"%d" % n) for n in range(20)]
    await change(vectored, *first)
    query = VectorQuery(components=[0.0, 1.0], distance=Distance.COSINE)
    assert (await keys(vectored, vector=query, limit=3)) == ["0", "1", "2"]
    # 0 and 1 are sent again, 2 loses its vectors, 3 gets others.
    again = [*first[:2], put("2"), put("3", vectors=vectors([0.0, 5.0]))]
    await change(vectored, *again)
    assert await found(vectored, vector=query, limit=3) == [("0", 1.0), ("3", 1.0), ("1", 0.7071)]
    assert await keys(vectored, vector=query, limit=100, offset=19) == ["2"]
