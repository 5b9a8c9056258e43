"""The quick check of many texts never accepts what the slow check of one refuses."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.rpc.validation import are_plain, check_text, check_texts
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
