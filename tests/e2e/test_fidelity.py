"""Values come back as the serializer gave them, to the last bit and type: rules 11 to 16 of README.md."""

from __future__ import annotations

import dataclasses
import enum
import math
import struct
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send
from pydantic import BaseModel

from tests.support.calls import Calls, checkpoint, config_of
from tests.support.normal_form import Names, normal_form


class Colour(enum.StrEnum):
    """An enum that is text."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum that is a number."""

    HIGH = 3


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: float


@dataclasses.dataclass(frozen=True)
class Order:
    """A dataclass."""

    number: int
    items: list[str]


class Customer(BaseModel):
    """A pydantic model."""

    name: str
    orders: list[int] = []


VALUES: dict[str, Any] = {
    "nothing": None,
    "yes and no": [True, False],
    "nul": "a\x00b",
    "empty text": "",
    "lone surrogate": "a\ud800b",
    "all planes": "\u00e9\u4e2d\U0001f600\uffff\ue000",
    "nan": math.nan,
    "infinities": [math.inf, -math.inf],
    "minus zero": -0.0,
    "large float": 1.5e308,
    "small float": 5e-324,
    "float that is whole": 1.0,
    "large int": 2**64 - 1,
    "small int": -(2**63),
    "str enum": Colour.RED,
    "int enum": Level.HIGH,
    "bytes": b"\x00\xff\x80",
    "no bytes": b"",
    "bytearray": bytearray(b"\x00\xff"),
    "nested bytes": {"a": [b"\x00", bytearray(b"\xff")]},
    "tuple": (1, ("a", None)),
    "named tuple": Point(1, 2.5),
    "set": {1, 2, 3},
    "frozenset": frozenset({"a"}),
    "deque": deque([1, 2], maxlen=None),
    "dataclass": Order(1, ["a", "b"]),
    "pydantic": Customer(name="Ada", orders=[1]),
    "dict with odd keys": {1: "int", 1.5: "float", None: "none", False: "bool", b"b": "bytes", "": "empty"},
    "uuid": uuid.UUID(int=5),
    "decimal": Decimal("1.10"),
    "datetime": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "timedelta": timedelta(days=1, microseconds=1),
    "path": Path("/a/b"),
    "messages": [HumanMessage("hi", id="1"), AIMessage("", tool_calls=[{"name": "t", "args": {"a": 1}, "id": "2"}])],
    "send": Send("node", {"a": 1}),
    "interrupt": Interrupt(value={"a": 1}, id="i"),
    "deep": [[[[[[[[[[[[["deep"]]]]]]]]]]]]],
    "long": "x" * 2_000_000,
    "many": list(range(20_000)),
}


def shown(value: Any) -> str:
    """Shows a value with all its types, so that two can be compared although NaN equals nothing."""
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    return f"{type(value)} {normal_form(value, Names())!r}"


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_values_come_out_as_the_serializer_gives_them(calls: Calls, value: Any) -> None:
    # contract 15
    serde = JsonPlusSerializer()
    expected = shown(serde.loads_typed(serde.dumps_typed(value)))
    await calls.put(checkpoint("1", {"channel": value}))
    await calls.write("1", [("channel", value)])
    found = await calls.get()
    assert shown(found.checkpoint["channel_values"]["channel"]) == expected
    assert found.pending_writes is not None
    assert shown(found.pending_writes[0][2]) == expected


async def test_langgraphs_serializer_loses_lone_surrogates_and_the_saver_nothing_more(calls: Calls) -> None:
    # contract 15: the serializer writes "?" before the saver sees the bytes.
    assert JsonPlusSerializer().dumps_typed("a\ud800b") == ("msgpack", b"\xa3a?b")
    await calls.put(checkpoint("1", {"text": "a\ud800b", "list": ["\udfff"]}), metadata={"step": 1, "note": "\ud83d"})
    await calls.write("1", [("text", "\ude00c")])
    found = await calls.get()
    assert found.checkpoint["channel_values"] == {"text": "a?b", "list": ["?"]}
    assert found.metadata["note"] == "?"  # type: ignore[typeddict-item]
    assert found.pending_writes == [("task", "text", "?c")]


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, object(), lambda: None], ids=["big", "small", "object", "code"])
async def test_what_the_serializer_refuses_is_refused_with_its_own_error(calls: Calls, value: Any) -> None:
    # contract 15
    with pytest.raises(Exception) as refused:
        JsonPlusSerializer().dumps_typed(value)
    with pytest.raises(type(refused.value), match=str(refused.value)):
        await calls.put(checkpoint("1", {"channel": value}))
    with pytest.raises(type(refused.value)):
        await calls.write("1", [("channel", value)])
    assert await calls.find(config_of(calls.thread_id)) is None


async def test_an_empty_channel_is_not_none(calls: Calls) -> None:
    # contract 11
    versions = {"holds None": 1, "empty": 1}
    await calls.put(checkpoint("1", {"holds None": None}, versions))
    assert (await calls.get()).checkpoint["channel_values"] == {"holds None": None}
    assert (await calls.get()).checkpoint["channel_versions"] == versions


async def test_a_channel_that_is_emptied(calls: Calls) -> None:
    # contract 11
    await calls.put(checkpoint("1", {"a": "full"}))
    await calls.put(checkpoint("2", {}, {"a": 2}), parent="1")
    await calls.put(checkpoint("3", {"a": "again"}, {"a": 3}), parent="2")
    found = [saved.checkpoint["channel_values"] for saved in await calls.listed(config_of(calls.thread_id))]
    assert found == [{"a": "again"}, {}, {"a": "full"}]


async def test_a_channel_that_is_gone_does_not_reappear(calls: Calls) -> None:
    # contract 11
    await calls.put(checkpoint("1", {"gone": 1, "stays": 1}))
    await calls.put(checkpoint("2", {}, {"stays": 1}), parent="1", new={})
    assert (await calls.get()).checkpoint["channel_values"] == {"stays": 1}
    assert (await calls.get()).checkpoint["channel_versions"] == {"stays": 1}


async def test_versions_keep_their_types(calls: Calls) -> None:
    # contract 12: 1, 1.0 and "1" are three versions, with three values.
    versions: list[Any] = [1, 1.0, "1", 0, -1, 2**63 - 1, 0.1, 1e300, math.inf, "", f"{1:032}.{2:017}", "\u00e9"]
    for number, version in enumerate(versions):
        await calls.put(checkpoint(f"{number:02}", {"a": f"value {number}"}, {"a": version}))
    found = (await calls.listed(config_of(calls.thread_id)))[::-1]
    assert [repr(saved.checkpoint["channel_versions"]["a"]) for saved in found] == [repr(given) for given in versions]
    assert [saved.checkpoint["channel_values"]["a"] for saved in found] == [
        f"value {number}" for number in range(len(versions))
    ]


async def test_versions_seen_keep_their_types_and_order_of_nodes_does_not_matter(calls: Calls) -> None:
    # contract 12
    seen = {"node": {"a": 1, "b": 1.0, "c": "1"}, "__input__": {}, "\u00e9": {"": 1}}
    seen["\u00e9"] = {"d": 2}
    await calls.put(checkpoint("1", versions_seen=seen))
    found = (await calls.get()).checkpoint["versions_seen"]
    assert shown(found) == shown(seen)


@pytest.mark.parametrize("current", [None, 1, 41, "5", f"{7:032}.{123:016}", "00000000000000000000000000000009.0.25"])
def test_the_next_version_sorts_after_the_current_one(current: Any) -> None:
    # contract 12
    saver = GrpcSaver("127.0.0.1:1")
    following = saver.get_next_version(current)
    assert isinstance(following, str)
    number = 0 if current is None else int(str(current).partition(".")[0])
    assert int(following.partition(".")[0]) == number + 1
    assert following < saver.get_next_version(following) < saver.get_next_version(saver.get_next_version(following))
    if isinstance(current, str) and "." in current:
        assert current < following
    # It continues from InMemorySaver's versions, and the other way round.
    assert following < InMemorySaver().get_next_version(following, None)


def test_two_branches_never_make_the_same_version() -> None:
    # contract 12: the same version would be the same value.
    import random

    saver = GrpcSaver("127.0.0.1:1")
    made = set()
    for _ in range(1000):
        random.seed(1)
        made.add(saver.get_next_version(None))
    assert len(made) == 1000


@pytest.mark.parametrize("updated", [None, [], ["b", "a"], ["\u00e9"]])
async def test_updated_channels(calls: Calls, updated: list[str] | None) -> None:
    # contract 13
    await calls.put(checkpoint("1", updated_channels=updated))
    assert (await calls.get()).checkpoint["updated_channels"] == updated
    [listed] = await calls.listed(config_of(calls.thread_id))
    assert listed.checkpoint["updated_channels"] == updated


async def test_unknown_keys_of_a_checkpoint_survive(calls: Calls) -> None:
    # contract 13
    more: dict[str, Any] = {"pending_sends": [Send("a", 1)], "from the future": {"x": (1, b"2")}, "none": None}
    await calls.put(checkpoint("1", **more))
    found = dict((await calls.get()).checkpoint)
    assert found["pending_sends"] == [Send("a", 1)]
    assert found["from the future"] == {"x": [1, b"2"]}
    assert found["none"] is None


@pytest.mark.parametrize("odd", [{"v": 2.5}, {"v": "4"}, {"v": 2**40}, {"v": True}, {"ts": None}, {"ts": 5}], ids=str)
async def test_known_keys_with_odd_values_survive(calls: Calls, odd: dict[str, Any]) -> None:
    # contract 13
    await calls.put(checkpoint("1", **odd))
    found = dict((await calls.get()).checkpoint)
    for key, value in odd.items():
        assert repr(found[key]) == repr(value)


@pytest.mark.parametrize("v", [1, 2, 3, 4, 5])
async def test_pending_sends_of_old_checkpoints_come_from_the_parent(calls: Calls, v: int) -> None:
    # contract 13: for v < 4 they are among the parent's writes, since then in the checkpoint itself.
    await calls.put(checkpoint("1"))
    await calls.write("1", [("__pregel_tasks", Send("b", 2)), ("other", 3)], "t2", "b")
    await calls.write("1", [("__pregel_tasks", Send("a", 1))], "t1", "a")
    await calls.put(checkpoint("2", {"a": 1}, {"a": "00002.5"}, v=v), parent="1")
    [listed, _] = await calls.listed(config_of(calls.thread_id))
    found = await calls.get()
    assert listed == found
    if v < 4:
        assert found.checkpoint["channel_values"]["__pregel_tasks"] == [Send("a", 1), Send("b", 2)]
        assert found.checkpoint["channel_versions"] == {"a": "00002.5", "__pregel_tasks": "00002.5"}
    else:
        assert found.checkpoint["channel_values"] == {"a": 1}
        assert found.checkpoint["channel_versions"] == {"a": "00002.5"}


async def test_metadata_as_small_as_can_be(calls: Calls) -> None:
    # contract 14
    await calls.put(checkpoint("1"), metadata={"step": -2})
    await calls.put(checkpoint("2"), metadata={})
    assert [dict(saved.metadata) for saved in await calls.listed(config_of(calls.thread_id))] == [{}, {"step": -2}]
    assert await calls.ids(config_of(calls.thread_id), filter={"step": -2}) == ["1"]


async def test_metadata_keeps_its_types_and_its_order(calls: Calls) -> None:
    # contract 14
    metadata = {
        "source": "loop",
        "step": 3,
        "parents": {"": "1", "child:x": "2"},
        "float": 1.0,
        "int": 1,
        "bool": True,
        "large": 1.5e308,
        "nan": math.nan,
        "huge": 2**64 - 1,
        "bytes": b"\x00\xff",
        "nested": {"z": [None, {"nul": "a\x00b"}], "a": (1, 2), 7: "odd key"},
        "enum": Colour.RED,
        "writes": {"node": [HumanMessage("hi", id="1")]},
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "counters_since_delta_snapshot": {"log": (1, 2)},
        "key with \u00e9 and .": "",
    }
    reference = InMemorySaver()
    reference.put(config_of("t"), checkpoint("1"), metadata, {})  # type: ignore[arg-type]
    stored = reference.get_tuple(config_of("t"))
    assert stored is not None
    expected = dict(stored.metadata)
    await calls.put(checkpoint("1"), metadata=metadata)
    found = dict((await calls.get()).metadata)
    assert shown(found) == shown(expected)
    assert list(found) == list(metadata)
    [listed] = await calls.listed(config_of(calls.thread_id), filter={"large": 1.5e308, "parents": {"child:x": "2"}})
    assert shown(dict(listed.metadata)) == shown(expected)


async def test_metadata_is_merged_with_the_config(calls: Calls) -> None:
    # contract 14: as in the base package, and therefore as with LangGraph's own savers.
    config = config_of(calls.thread_id, "", "0")
    config["configurable"].update(user="ada", __private="no", number=1, langgraph_node="no", skipped=["no"])
    config["metadata"] = {"source": "mine loses", "nul": "a\x00b", "ratio": 0.5}
    metadata = {"source": "loop", "step": 1, "nul too": "c\x00d"}
    await calls.put(checkpoint("1"), config=config, metadata=metadata)
    reference = InMemorySaver()
    reference.put(config, checkpoint("1"), metadata, {})  # type: ignore[arg-type]
    expected = reference.get_tuple(config_of(calls.thread_id))
    assert expected is not None
    assert (await calls.get()).metadata == expected.metadata
    assert expected.metadata["user"] == "ada"  # type: ignore[typeddict-item]


async def test_metadata_that_is_large_or_deep(calls: Calls) -> None:
    # contract 14: metadata that is too large to be searched is stored nevertheless.
    deep: Any = "bottom"
    for _ in range(60):
        deep = [deep]
    metadata = {"step": 1, "deep": deep, "large": "x" * 200_000}
    await calls.put(checkpoint("1"), metadata=metadata)
    assert dict((await calls.get()).metadata) == metadata
    assert await calls.ids(config_of(calls.thread_id), filter={"step": 1}) == ["1"]
