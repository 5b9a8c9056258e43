"""Channel versions keep their type and their value through the store's text."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st

from checkpointd.v1.values_pb2 import ChannelVersion
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.versions import read_plain_versions, read_version, write_version
from tests.support.properties import given

LIMITS = Limits()
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
versions = (
    st.builds(lambda text: ChannelVersion(text=text), words)
    | st.builds(lambda integer: ChannelVersion(integer=integer), st.integers(-(2**63), 2**63 - 1))
    | st.builds(lambda number: ChannelVersion(number=number), st.floats(allow_nan=False))
)


@given(versions)
def test_a_version_comes_back_as_it_went_in(version: ChannelVersion) -> None:
    written = ChannelVersion()
    write_version(read_version(version, "version", LIMITS), written)
    assert written.WhichOneof("value") == version.WhichOneof("value")
    assert written.SerializeToString() == version.SerializeToString()  # tells -0.0 from 0.0


@given(versions, versions)
def test_different_versions_are_different_texts(left: ChannelVersion, right: ChannelVersion) -> None:
    same_text = read_version(left, "v", LIMITS) == read_version(right, "v", LIMITS)
    assert same_text is (left.SerializeToString() == right.SerializeToString())


@given(st.lists(versions, max_size=4))
def test_many_versions_at_once_are_read_like_each_alone(many: list[ChannelVersion]) -> None:
    at_once = read_plain_versions(many, LIMITS)
    assert at_once is None or at_once == [read_version(version, "v", LIMITS) for version in many]


def test_ordinary_versions_are_read_at_once() -> None:
    text = "00000000000000000000000000000003.0.8412"
    assert read_plain_versions([ChannelVersion(text=text)] * 2, LIMITS) == ["s" + text] * 2


@pytest.mark.parametrize(
    ("version", "field"),
    [
        (ChannelVersion(), "v"),
        (ChannelVersion(number=math.nan), "v.number"),
        (ChannelVersion(text="x" * 129), "v.text"),
        (ChannelVersion(text="a\0"), "v.text"),
    ],
)
def test_unusable_versions_are_refused(version: ChannelVersion, field: str) -> None:
    assert read_plain_versions([ChannelVersion(text="1"), version], LIMITS) is None
    with pytest.raises(InvalidArgument) as error:
        read_version(version, "v", LIMITS)
    assert error.value.field == field
