"""docs/langgraph-data.md describes what LangGraph writes: compared with what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PosixPath
from typing import Any, NamedTuple
from uuid import UUID

import ormsgpack
import pytest
from langchain_core.messages import HumanMessage
from langgraph._internal import _constants as constants
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Send

from tests.support.document import Document

DOCUMENT = Document("docs/langgraph-data.md")


@dataclass
class Point:
    x: int


class Pair(NamedTuple):
    a: int


def extension(value: Any) -> tuple[int, Any]:
    """Returns the number and the content of a value's extension."""
    found: list[tuple[int, Any]] = []

    def take(number: int, data: bytes) -> Any:
        content = ormsgpack.unpackb(data, ext_hook=lambda inner, raw: ormsgpack.unpackb(raw, ext_hook=take)[2])
        found.append((number, content))
        return content

    type_tag, data = JsonPlusSerializer().dumps_typed(value)
    assert type_tag == "msgpack"
    ormsgpack.unpackb(data, ext_hook=take)
    return found[-1]


@pytest.mark.parametrize(
    ("value", "number", "content"),
    [
        ({1}, 0, ["builtins", "set", [1]]),
        (UUID(int=1), 0, ["uuid", "UUID", UUID(int=1).hex]),
        (Decimal("1.5"), 0, ["decimal", "Decimal", "1.5"]),
        (date(2026, 1, 2), 1, ["datetime", "date", [2026, 1, 2]]),
        (timedelta(1, 2, 3), 1, ["datetime", "timedelta", [1, 2, 3]]),
        (re.compile("x"), 1, ["re", "compile", ["x", 32]]),
        (PosixPath("a/b"), 1, ["pathlib", "PosixPath", ["a", "b"]]),
        (Point(1), 2, [__name__, "Point", {"x": 1}]),
        (datetime(2026, 1, 2, tzinfo=UTC), 3, ["datetime", "datetime", "2026-01-02T00:00:00+00:00", "fromisoformat"]),
        (_DeltaSnapshot([1]), 7, [1]),
    ],
)
def test_extensions_are_as_documented(value: Any, number: int, content: Any) -> None:
    assert extension(value) == (number, content)


def test_objects_of_langgraph_and_langchain_are_as_documented() -> None:
    number, content = extension(HumanMessage("hi", id="1"))
    assert (number, content[:2], content[3]) == (
        5,
        ["langchain_core.messages.human", "HumanMessage"],
        "model_validate_json",
    )
    assert content[2].items() >= {"content": "hi", "type": "human", "id": "1", "name": None}.items()
    number, content = extension(Interrupt("?", id="i"))
    assert (number, content[:2]) == (2, ["langgraph.types", "Interrupt"])
    assert content[2].items() >= {"value": "?", "id": "i"}.items()
    number, content = extension(Send("node", 1))
    assert (number, content[:2], content[2][:2]) == (1, ["langgraph.types", "Send"], ["node", 1])
    assert extension(time(1, 2))[0] == 2
    pair: Callable[[], Any] = lambda: extension(Pair(1))  # noqa: E731
    assert pair() == (2, [__name__, "Pair", {"a": 1}])


def test_all_extensions_and_special_channels_are_in_the_tables() -> None:
    assert list(DOCUMENT.table("extension")) == [str(number) for number in range(8)]
    rows = [line.split("|")[1:3] for line in DOCUMENT.text.splitlines() if line.startswith("| `__")]
    documented = {channel.strip(" `"): idx.strip() for channel, idx in rows}
    for channel, idx in WRITES_IDX_MAP.items():
        assert documented[channel] == str(idx)
    for channel in (constants.NO_WRITES, constants.RETURN, constants.TASKS, constants.PREVIOUS):
        assert channel in documented
    assert constants.NULL_TASK_ID in DOCUMENT.text
