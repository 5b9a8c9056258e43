"""Items are found by vectors that the client makes, by words, and by both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.checkpoint.grpc import GrpcStore, InvalidArgumentError
from langgraph.store.base import PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from tests.support.embeddings import DIMS, aembed, embed
from tests.support.stores import Build

INDEX: Any = {"dims": DIMS, "embed": embed, "fields": ["text"]}
TEXTS = {"bees": "bees buzz", "apes": "apes peel bananas", "cats": "cats nap", "zebra": "zebras graze"}


def fill(store: GrpcStore, root: str) -> None:
    store.batch([PutOp((root,), key, {"text": text, "legs": len(text)}) for key, text in TEXTS.items()])


def keys(items: Sequence[Any]) -> list[str]:
    return [item.key for item in items]


@pytest.mark.parametrize("how", [embed, aembed, "embeddings"])
async def test_items_are_found_by_their_nearest_vector(store_with: Build, root: str, how: Any) -> None:
    class Letters(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embed(texts)

        def embed_query(self, text: str) -> list[float]:
            return embed([text])[0]

    options: Any = {**INDEX, "embed": Letters() if how == "embeddings" else how}
    store = store_with(index=options)
    assert store.embeddings is not None
    fill(store, root)
    reference = InMemoryStore(index=INDEX)
    reference.batch([PutOp((root,), key, {"text": text}) for key, text in TEXTS.items()])
    for query in ("banana", "buzz", "nap cat"):
        expected = reference.search((root,), query=query)
        for found in (store.search((root,), query=query), await store.asearch((root,), query=query)):
            assert keys(found) == keys(expected)
            assert [item.score for item in found] == pytest.approx([item.score for item in expected], abs=1e-5)
    found = await store.asearch((root,), query="banana", filter={"legs": {"$lt": 10}}, limit=1, offset=1, exact=True)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("distance", "scores"), [("cosine", [1.0, 0.0]), ("l2", [0.0, -(5.0**0.5)]), ("inner_product", [1.0, 0.0])]
)
def test_distances(store_with: Build, root: str, distance: Any, scores: list[float]) -> None:
    vectors = {"x": [1.0, 0.0], "y": [0.0, 2.0]}
    index: Any = {"dims": 2, "embed": lambda texts: [vectors[text] for text in texts], "fields": ["t"]}
    store = store_with(index={**index, "distance_type": distance})
    store.batch([PutOp((root,), text, {"t": text}) for text in vectors])
    found = store.search((root,), query="x")
    assert keys(found) == ["x", "y"]
    assert [item.score for item in found] == pytest.approx(scores)


def test_the_best_of_several_vectors_counts_and_paths_choose_them(store_with: Build, root: str) -> None:
    store = store_with(index={**INDEX, "fields": ["parts[*].text", "title"]})
    store.put((root,), "many", {"title": "qqqq", "parts": [{"text": "aaaa"}, {"text": "zzzz"}]})
    store.put((root,), "one", {"title": "zz qq"})
    store.put((root,), "other", {"title": "none", "elsewhere": "zzzz"}, index=["elsewhere"])
    store.put((root,), "no", {"title": "zzzz"}, index=False)
    found = store.search((root,), query="zzzz")
    assert keys(found)[:2] in (["many", "other"], ["other", "many"])
    assert keys(found)[2:] == ["one", "no"]
    assert found[-1].score is None  # items without a vector come last
    store.put((root,), "other", {"title": "zzzz"}, index=False)
    store.delete((root,), "many")
    found = store.search((root,), query="zzzz")
    assert keys(found)[0] == "one"
    assert {item.key: item.score for item in found}["other"] is None  # its old vector is gone


async def test_a_batch_embeds_each_text_once(store_with: Build, root: str) -> None:
    asked: list[list[str]] = []

    def counted(texts: Sequence[str]) -> list[list[float]]:
        asked.append(list(texts))
        return embed(texts)

    store = store_with(index={**INDEX, "embed": counted})
    store.batch([PutOp((root,), str(number), {"text": f"text {number % 2}"}) for number in range(6)])
    await store.abatch([SearchOp((root,), query="a"), SearchOp((root,), query="a"), SearchOp((root,), query="b")])
    assert asked == [["text 0", "text 1"], ["a"], ["b"]]
    store.put((root,), "k", {"other": 1})
    store.search((root,), filter={"a": 1})
    assert len(asked) == 3


async def test_embedding_neither_blocks_the_loop_nor_sees_later_changes(store_with: Build, root: str) -> None:
    loop_thread, threads = threading.get_ident(), []
    value = {"text": "before"}

    def slow(texts: Sequence[str]) -> list[list[float]]:
        threads.append(threading.get_ident())
        value["text"] = "after"
        return embed(texts)

    store = store_with(index={**INDEX, "embed": slow})
    await store.aput((root,), "k", value)
    assert threads
    assert loop_thread not in threads
    item = await store.aget((root,), "k")
    assert item is not None
    assert item.value == {"text": "before"}


async def test_what_embed_raises_reaches_the_caller(store_with: Build, root: str) -> None:
    def fails(texts: Sequence[str]) -> list[list[float]]:
        raise RuntimeError("no model")

    async def fails_awaiting(texts: Sequence[str]) -> list[list[float]]:
        raise RuntimeError("no model")

    for how in (fails, fails_awaiting):
        store = store_with(index={**INDEX, "embed": how})
        with pytest.raises(RuntimeError, match="no model"):
            store.put((root,), "k", {"text": "a"})
        with pytest.raises(RuntimeError, match="no model"):
            await store.asearch((root,), query="a")
        assert store.count((root,)) == 0
    for wrong, problem in ((lambda texts: [[1.0]], "index.dims"), (lambda texts: [], "returned 0 vectors")):
        store = store_with(index={**INDEX, "embed": wrong})
        with pytest.raises(InvalidArgumentError, match=problem):
            store.put((root,), "k", {"text": "a"})


def test_items_are_found_by_words(store_with: Build, root: str) -> None:
    store = store_with(text={"fields": ["text"], "language": "english"})
    store.put((root,), "run", {"text": "She was running in the rain"})
    store.put((root,), "rain", {"text": "Rain, rain, and more rain\0\ud800"})
    store.put((root,), "sun", {"text": "The sun", "note": "runs"})
    store.put((root,), "hidden", {"text": "rain"}, index=False)
    assert keys(store.search((root,), query="the run")) == ["run"]
    found = store.search((root,), query="rains")
    assert keys(found) == ["rain", "run"]
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)  # type: ignore[type-var]
    assert keys(store.search((root,), query="snow")) == []
    store.put((root,), "sun", {"text": "The sun", "note": "runs"}, index=["note"])
    assert set(keys(store.search((root,), query="run", mode="text"))) == {"run", "sun"}
    with pytest.raises(InvalidArgumentError, match=r"text\.language"):
        store_with(text={"language": "klingon"}).put((root,), "k", {"a": "b"})


def test_hybrid_search_merges_both_lists(store_with: Build, root: str) -> None:
    store = store_with(index=INDEX, text={"fields": ["text"]})
    fill(store, root)
    by_vector = store.search((root,), query="bananas", mode="vector")
    by_words = store.search((root,), query="bananas", mode="text")
    merged = store.search((root,), query="bananas")
    assert keys(by_words) == ["apes"]
    assert keys(merged)[0] == "apes"
    place = keys(by_vector).index("apes") + 1
    assert merged[0].score == pytest.approx(1 / 61 + 1 / (60 + place))
    assert keys(store.search((root,), query="bananas", mode="hybrid")) == keys(merged)


def test_a_query_without_an_index_is_passed_over(store_with: Build, root: str) -> None:
    store = store_with()
    assert store.embeddings is None
    fill(store, root)
    found = store.search((root,), query="bananas")
    assert keys(found) == list(reversed(TEXTS)) or len(found) == len(TEXTS)
    assert {item.score for item in found} == {None}


def test_configurations_that_cannot_be_are_refused(store_with: Build) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"index": {"dims": 3}}, "index.embed"),
        ({"index": {**INDEX, "dims": -1}}, "index.dims"),
        ({"index": {**INDEX, "distance_type": "manhattan"}}, "index.distance_type"),
        ({"index": {**INDEX, "fields": "text"}}, "index.fields"),
        ({"text": {"fields": "text"}}, "text.fields"),
        ({"searchable": "kind"}, "searchable"),
    ]
    for options, field in wrong:
        with pytest.raises(InvalidArgumentError) as refused:
            store_with(**options)
        assert refused.value.field == field
    for store, mode in ((store_with(), "vector"), (store_with(index=INDEX), "text"), (store_with(text={}), "hybrid")):
        with pytest.raises(InvalidArgumentError, match="mode"):
            store.search(("a",), query="b", mode=mode)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="mode"):
        store_with().search(("a",), query="b", mode="psychic")  # type: ignore[arg-type]


async def test_many_searches_at_once(store_with: Build, root: str) -> None:
    store = store_with(index={**INDEX, "embed": aembed})
    fill(store, root)
    found = await asyncio.gather(*(store.asearch((root,), query=text, limit=1) for text in TEXTS.values()))
    assert [keys(items) for items in found] == [[key] for key in TEXTS]
