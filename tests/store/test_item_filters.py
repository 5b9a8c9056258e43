"""Filters of items: the JSON path that PostgreSQL applies agrees with their definition."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import strategies as st

from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.item_index import read_filter
from checkpointd_server.store.items.filters import is_operators, to_path
from tests.support.cluster import PostgresCluster
from tests.support.properties import given

SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 1.0, -1, 9, 10, 100, 2**70, 0.5, 1.5e308, "", "9", "10", "a", "b", 'q"\\', "ü", "\n", "$"]
)
KEYS = st.sampled_from(["a", "b", 'c"\\.', "ü", "0"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
DOCS = st.dictionaries(KEYS, VALUES, max_size=3)
OPERATORS = st.fixed_dictionaries(
    {},
    optional={
        "$eq": VALUES,
        "$ne": VALUES,
        "$in": st.lists(VALUES, max_size=3),
        "$nin": st.lists(VALUES, max_size=3),
        "$exists": st.booleans(),
        **{
            operator: st.sampled_from([0, 1, 9.5, 10, -(2**70), "", "9", "a", "ü"])
            for operator in ("$gt", "$gte", "$lt", "$lte")
        },
    },
).filter(bool)
CONDITIONS = st.recursive(
    SCALARS | OPERATORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | OPERATORS,
    max_leaves=4,
)
FILTERS = st.dictionaries(KEYS, CONDITIONS, max_size=2)
MISSING = object()


def matches(value: Any, condition: Any) -> bool:
    """The definition in store_service.proto."""
    if is_operators(condition):
        return all(applies(value, operator, operand) for operator, operand in condition.items())
    if isinstance(condition, dict):
        return isinstance(value, dict) and all(
            matches(value.get(key, MISSING), entry) for key, entry in condition.items()
        )
    if isinstance(condition, list):
        return isinstance(value, list) and len(value) == len(condition) and all(map(matches, value, condition))
    return equal(value, condition)


def applies(value: Any, operator: str, operand: Any) -> bool:
    if operator == "$exists":
        return (value is not MISSING) is operand
    if operator in ("$eq", "$ne"):
        return equal(value, operand) is (operator == "$eq")
    if operator in ("$in", "$nin"):
        return any(equal(value, one) for one in operand) is (operator == "$in")
    if is_number(value) and is_number(operand):
        pass
    elif isinstance(value, str) and isinstance(operand, str):
        value, operand = value.encode(), operand.encode()
    else:
        return False
    return bool(
        {
            "$gt": value > operand,
            "$gte": value >= operand,
            "$lt": value < operand,
            "$lte": value <= operand,
        }[operator]
    )


def equal(value: Any, other: Any) -> bool:
    """Returns whether two values are equal: 1 and 1.0 are, 1 and true aren't. A missing value counts as null."""
    if value is MISSING:
        value = None
    if is_number(value) and is_number(other):
        return bool(value == other)
    if type(value) is not type(other):
        return False
    if isinstance(value, list):
        return len(value) == len(other) and all(map(equal, value, other))
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(equal(value[key], other[key]) for key in value)
    return bool(value == other)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Database:
    """A connection for tests that aren't coroutines."""

    def __init__(self, dsn: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(dsn))

    def select(self, doc: str, path: str | None) -> bool:
        query = "SELECT $2::text IS NULL OR coalesce($1::text::jsonb @@ $2::text::jsonpath, false)"
        return bool(self._loop.run_until_complete(self._connection.fetchval(query, doc, path)))

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


@pytest.fixture(scope="module")
def database(postgres_cluster: PostgresCluster) -> Iterator[Database]:
    opened = Database(postgres_cluster.dsn())
    yield opened
    opened.close()


@given(DOCS, FILTERS)
def test_a_filter_finds_what_its_definition_says(database: Database, doc: Any, wanted: Any) -> None:
    read = read_filter(b"", json.dumps(wanted), Limits()) if wanted else {}
    expected = all(matches(doc.get(key, MISSING), condition) for key, condition in wanted.items())
    assert database.select(json.dumps(doc), to_path(read)) is expected


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"n": {"$gt": 9}}, [10, 100]),
        ({"n": {"$gte": 9, "$lt": 100}}, [9, 10]),
        ({"n": {"$ne": 9}}, [10, 100, "9", None]),
        ({"n": {"$in": [9, "9"]}}, [9, "9"]),
        ({"n": {"$exists": False}}, []),
        ({"n": None}, [None]),
    ],
)
def test_numbers_are_compared_as_numbers(database: Database, wanted: Any, found: list[Any]) -> None:
    values = [9, 10, 100, "9", None]
    assert [one for one in values if database.select(json.dumps({"n": one}), to_path(wanted))] == found
