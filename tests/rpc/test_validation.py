"""The quick check of many texts never accepts a text that the slow check of a single one refuses."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.validation import (
    are_plain,
    check_distinct,
    check_text,
    check_texts,
    check_version,
    check_versions,
)
from tests.support.properties import given

texts = st.lists(st.text("ab\0é😀", max_size=10) | st.text("ab", max_size=16), max_size=4)


def accepted(value: str, limit: int) -> bool:
    return value != "" and "\0" not in value and len(value.encode()) <= limit


@given(texts, st.integers(1, 14))
def test_what_is_plain_is_accepted(values: list[str], limit: int) -> None:
    if are_plain(values, limit):
        assert all(accepted(value, limit) for value in values)


@given(texts, st.integers(1, 14))
def test_texts_are_accepted_exactly_if_each_is(values: list[str], limit: int) -> None:
    bad = [position for position, value in enumerate(values) if not accepted(value, limit)]
    if bad:
        with pytest.raises(InvalidArgument) as error:
            check_texts(values, "names[{}]", limit)
        assert error.value.field == f"names[{bad[0]}]"
    else:
        check_texts(values, "names[{}]", limit)


@given(st.text("ab\0é😀", max_size=10), st.integers(1, 14))
def test_one_text(value: str, limit: int) -> None:
    if accepted(value, limit):
        check_text(value, "name", limit)
    else:
        with pytest.raises(InvalidArgument) as error:
            check_text(value, "name", limit)
        assert (error.value.field, error.value.limit) == (
            "name",
            limit if value and len(value.encode()) > limit else None,
        )


LIMITS = Limits()
VERSIONS = [
    "s",
    "s00000000000000000000000000000003.0.8412",
    "s" + "x" * 128,
    "i0",
    "i-1",
    f"i{2**70}",
    "f0.5",
    "f-0.0",
    "f1e+22",
    "f1.5e-07",
    "f3",
    "finf",
    "f-inf",
]
NO_VERSIONS = [
    "",
    "x",
    "3",
    "s\0",
    "s" + "x" * 129,
    "s" + "é" * 65,
    "i",
    "i1.5",
    "i01",
    "i+1",
    "i 1",
    "i1_0",
    "i\u0663",
    "f",
    "fnan",
    "f1e",
    "f.5",
    "f0x1p3",
    "f 1",
    "f1_0",
    "f\u0663",
    "i" + "9" * 200,
]


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_of_each_kind_are_taken(version: str) -> None:
    check_versions([version, "s1"], "versions[{}]", LIMITS)


@pytest.mark.parametrize("version", NO_VERSIONS)
def test_what_is_no_version_is_refused(version: str) -> None:
    for versions in (["s1", version], ["i1", version]):
        with pytest.raises(InvalidArgument) as error:
            check_versions(versions, "versions[{}]", LIMITS)
        assert error.value.field == "versions[1]"


@given(st.integers() | st.floats(allow_nan=False))
def test_every_number_of_langgraph_is_a_version(number: float) -> None:
    version = f"i{number}" if isinstance(number, int) else f"f{number!r}"
    if len(version) <= 129:
        check_version(version, "version", 129)


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=6))
def test_what_comes_twice_is_refused(values: list[str]) -> None:
    repeated = [position for position, value in enumerate(values) if value in values[:position]]
    if repeated:
        with pytest.raises(InvalidArgument) as error:
            check_distinct(values, "names[{}]")
        assert error.value.field == f"names[{repeated[0]}]"
        assert f"repeats names[{values.index(values[repeated[0]])}]" in str(error.value)
    else:
        assert check_distinct(values, "names[{}]") == set(values)
