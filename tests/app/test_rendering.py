"""Stored values as plain data: output of LangGraph's serializer is readable, and no class is ever instantiated."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send

from checkpointd_server.rpc.conversion.plain_data import plain, text
from tests.support.properties import given


@dataclass
class Order:
    number: int
    note: bytes


class Color(Enum):
    RED = "red"


def stored(value: Any) -> Any:
    return plain(*JsonPlusSerializer().dumps_typed(value))


@pytest.mark.parametrize(
    "value", [None, True, 1, -(2**63), 1.5, "text", [1, [2]], {"a": {"b": None}}, "a\0b", [], {}], ids=repr
)
def test_json_values_are_shown_as_they_are(value: Any) -> None:
    assert stored(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Color.RED, "Color('red')"),
        (Order(number=1, note=b"abc"), "Order(number=1, note=<3 bytes>)"),
        (UUID(int=1), f"UUID('{UUID(int=1).hex}')"),
        (datetime(2026, 1, 2, tzinfo=UTC), "datetime('2026-01-02T00:00:00+00:00')"),
        (date(2026, 1, 2), "date(2026, 1, 2)"),
        (timedelta(days=1), "timedelta(1, 0, 0)"),
        (Path("/a/b"), "PosixPath('/', 'a', 'b')"),
        (deque([1, 2]), "deque([1, 2])"),
        ({3}, "set([3])"),
        (Send("node", {"x": 1}), "Send('node', {'x': 1})"),
        (Interrupt(value="sure?", id="7"), "Interrupt(value='sure?', id='7')"),
        (HumanMessage("hello", id="1"), "HumanMessage(content='hello', type='human', id='1')"),
        ([AIMessage("hi")], "[AIMessage(content='hi', type='ai')]"),
        ({1: "a", (2, 3): "b"}, "{'1': 'a', '[2, 3]': 'b'}"),
        (b"12345", "<5 bytes>"),
        (bytearray(b"12345"), "<5 bytes>"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ((1, 2), "[1, 2]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_are_shown_by_the_names_of_their_types(value: Any, expected: str) -> None:
    assert text(stored(value)) == expected


def test_the_type_s_full_name_is_in_the_json() -> None:
    assert stored(HumanMessage("hello"))["$type"] == "langchain_core.messages.human.HumanMessage"
    assert stored(Order(number=1, note=b"abc"))["note"] == {"$bytes": 3}


def test_a_stored_key_that_looks_like_ours_is_told_apart() -> None:
    assert stored({"$type": "os.system", "$bytes": 1}) == {"$$type": "os.system", "$$bytes": 1}


def test_no_module_is_imported_for_a_value() -> None:
    data = msgpack.packb(msgpack.ExtType(0, msgpack.packb(["antigravity", "fly", "now"])))
    assert plain("msgpack", data) == {"$type": "antigravity.fly", "$value": "now"}
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("type", ["pickle", "msgpack+aes", "something-new"])
def test_what_is_not_readable_is_shown_by_its_tag_and_size(type: str) -> None:
    assert plain(type, b"12345") == {"$serialized": type, "$bytes": 5}
    assert text(plain(type, b"12345")) == f"<{type}, 5 bytes>"


@pytest.mark.parametrize("type", ["msgpack", "json"])
def test_damaged_values_are_shown_by_their_size(type: str) -> None:
    assert plain(type, b"\xc1\xff") == {"$serialized": type, "$bytes": 2}


def test_control_characters_do_not_reach_the_terminal() -> None:
    dangerous = "\x1b[2J\x07"
    shown = text(stored([dangerous, {dangerous: 1}])) + text(plain(dangerous, b""))
    assert "\x1b" not in shown
    assert "\x07" not in shown


def nested_extensions(depth: int) -> bytes:
    data = b"\x01"
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(0, msgpack.packb(["m", "n", msgpack.ExtType(7, data)])))
    return data


@pytest.mark.parametrize(
    "data",
    [b"\x91" * 100_000 + b"\x01", nested_extensions(1000), b"\xdd\xff\xff\xff\xff" * 1000, b"\xc9\xff\xff\xff\xff\x00"],
    ids=["nested lists", "nested extensions", "claimed lengths", "claimed extension"],
)
def test_hostile_bytes_are_shown_by_their_size(data: bytes) -> None:
    assert plain("msgpack", data) == {"$serialized": "msgpack", "$bytes": len(data)}


@given(st.sampled_from(["msgpack", "json", "null", "bytes"]), st.binary())
def test_any_bytes_can_be_shown(type: str, data: bytes) -> None:
    value = plain(type, data)
    text(value)
    json.dumps(value, allow_nan=False)
