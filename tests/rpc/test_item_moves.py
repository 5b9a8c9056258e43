"""ListItems and RestoreItems: complete items, in order, exact, and refused by field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from checkpointd.v1 import store_service_pb2 as pb
from checkpointd_server.domain.items import ItemWord
from checkpointd_server.store.items.moves import read_words, write_words
from tests.support.properties import given
from tests.support.rpc_client import Client

TIME = Timestamp(seconds=1_700_000_000, nanos=123_456_000)


def whole(key: str = "k", data: bytes = b'{"a": 1}', **fields: Any) -> pb.WholeItem:
    item = pb.Item(namespace=["ns"], key=key, created_at=TIME, updated_at=TIME)
    item.value.type, item.value.data = "json", data
    return pb.WholeItem(item=item, **fields)


async def restore(client: Client, *items: pb.WholeItem, replace: bool = False) -> list[str]:
    response = await client.store.RestoreItems(pb.RestoreItemsRequest(items=items, replace=replace))
    return [pb.RestoreOutcome.Name(outcome).removeprefix("RESTORE_OUTCOME_") for outcome in response.outcomes]


async def listed(client: Client, **fields: Any) -> list[pb.WholeItem]:
    found = list((await client.store.ListItems(pb.ListItemsRequest(**fields))).items)
    for one in found:
        assert one.item.version > 0
        one.item.ClearField("version")
    return found


async def test_what_is_restored_is_listed_as_it_was(client: Client) -> None:
    words = [pb.ItemWord(lexeme="it's \\", positions=[1, 3]), pb.ItemWord(lexeme="tea")]
    sealed = pb.ItemValue(type="msgpack+aes", data=b"\0\xff", index=b"\x81\xa1a\xc4\x01\xff")
    items = [
        whole("1"),
        whole("2", vectors=[pb.ItemVector(path="p", values=[0.5, -0.1]), pb.ItemVector(values=[0.1, 1])]),
        whole("3", has_words=True),
        whole("4", has_words=True, words=words, ttl=Duration(seconds=90, nanos=1000)),
        whole("5"),
    ]
    items[3].item.expires_at.FromSeconds(4_000_000_000)
    items[4].item.value.CopyFrom(sealed)
    assert await restore(client, *reversed(items)) == ["RESTORED"] * 5
    assert await listed(client) == items
    assert await restore(client, *items) == ["SAME"] * 5
    assert [one.item.key for one in await listed(client, after=pb.ItemPosition(namespace=["ns"], key="2"))] == [*"345"]
    assert [one.item.key for one in await listed(client, page_size=2)] == [*"12"]
    (keys,) = await listed(client, page_size=1, view=pb.ITEM_VIEW_KEYS)
    assert keys == pb.WholeItem(item=pb.Item(namespace=["ns"], key="1"))
    without = (await listed(client, view=pb.ITEM_VIEW_WITHOUT_VECTORS))[1]
    assert (list(without.vectors), without.vectors_left_out) == ([], True)
    assert await restore(client, without) == ["SAME"]


@pytest.mark.parametrize("what", ["value", "vectors", "words", "ttl", "index"])
async def test_another_item_is_left_alone_unless_told_otherwise(what: str, client: Client) -> None:
    full = whole(has_words=True, words=[pb.ItemWord(lexeme="tea")], vectors=[pb.ItemVector(values=[1, 2])])
    full.item.value.index = b"\x81\xa1a\x03"
    await restore(client, full)
    other = pb.WholeItem()
    other.CopyFrom(full)
    match what:
        case "value":
            other.item.value.data = b'{"a": 2}'
        case "vectors":
            other.vectors[0].values[1] = 3
        case "words":
            other.words[0].positions.append(7)
        case "ttl":
            other.ttl.FromSeconds(60)
            other.item.expires_at.FromSeconds(4_000_000_000)
        case "index":
            other.item.value.index = b"\x80"
    assert await restore(client, other) == ["DIFFERENT"]
    assert await listed(client) == [full]
    assert await restore(client, other, replace=True) == ["RESTORED"]
    assert await listed(client) == [other]


async def test_an_item_that_has_expired_is_not_stored(client: Client) -> None:
    item = whole(ttl=Duration(seconds=60))
    item.item.expires_at.CopyFrom(TIME)
    assert await restore(client, item) == ["EXPIRED"]
    assert await listed(client) == []


def _set(item: pb.WholeItem, change: Callable[[pb.WholeItem], Any]) -> pb.WholeItem:
    change(item)
    return item


def give_words(item: pb.WholeItem, *words: pb.ItemWord) -> None:
    item.has_words = True
    item.words.extend(words)


BAD: dict[str, Callable[[pb.WholeItem], Any]] = {
    "item.namespace": lambda one: one.item.ClearField("namespace"),
    "item.key": lambda one: one.item.ClearField("key"),
    "item.value": lambda one: one.item.ClearField("value"),
    "item.value.data": lambda one: setattr(one.item.value, "data", b"["),
    "item.value.index": lambda one: setattr(one.item.value, "type", "sealed"),
    "item.created_at": lambda one: one.item.ClearField("created_at"),
    "item.updated_at": lambda one: setattr(one.item.updated_at, "seconds", 2**60),
    "item.expires_at": lambda one: setattr(one.item.expires_at, "nanos", -5),
    "ttl": lambda one: one.ttl.FromSeconds(60),
    "has_words": lambda one: one.words.add(lexeme="tea"),
    "vectors[0].values": lambda one: one.vectors.add(values=[float("nan")]),
    "words[0].lexeme": lambda one: give_words(one, pb.ItemWord(lexeme="\0")),
    "words[0].positions": lambda one: give_words(one, pb.ItemWord(lexeme="a", positions=[16384])),
    "words": lambda one: give_words(one, *(pb.ItemWord(lexeme=f"{number:0>2000}") for number in range(600))),
}


@pytest.mark.parametrize("field", BAD)
async def test_what_can_not_be_stored_is_refused_by_field_and_nothing_is_stored(field: str, client: Client) -> None:
    request = pb.RestoreItemsRequest(items=[whole("good"), _set(whole("bad"), BAD[field])])
    error = await client.refused(client.store.RestoreItems(request))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert error.metadata["field"] == f"items[1].{field}"
    assert await listed(client) == []


async def test_an_item_that_comes_twice_is_refused(client: Client) -> None:
    error = await client.refused(client.store.RestoreItems(pb.RestoreItemsRequest(items=[whole(), whole()])))
    assert error.metadata["field"] == "items[1]"


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("page_size", pb.ListItemsRequest(page_size=1001)),
        ("page_size", pb.ListItemsRequest(page_size=-1)),
        ("view", pb.ListItemsRequest(view=9)),  # type: ignore[arg-type]  # on purpose
        ("after.namespace", pb.ListItemsRequest(after=pb.ItemPosition(key="a"))),
        ("after.key", pb.ListItemsRequest(after=pb.ItemPosition(namespace=["a"]))),
        ("namespace_prefix[0]", pb.ListItemsRequest(namespace_prefix=[""])),
    ],
)
async def test_a_list_that_makes_no_sense_is_refused_by_field(
    field: str, request_: pb.ListItemsRequest, client: Client
) -> None:
    error = await client.refused(client.store.ListItems(request_))
    assert error.metadata["field"] == field


WORDS = st.builds(
    ItemWord,
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    st.lists(st.integers(1, 16383), max_size=5),
)


@given(st.lists(WORDS, max_size=5))
def test_words_read_back_as_they_were_written(words: list[ItemWord]) -> None:
    assert read_words(write_words(words)) == words
