"""Metadata as it is searched: different values never look alike, and no input can do harm."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.values import TypedValue
from checkpointd_server.rpc.conversion import metadata_index
from checkpointd_server.rpc.conversion.metadata_index import Projection, project_filter
from tests.support.properties import given

LIMITS = Limits()


def pack(value: Any) -> bytes:
    return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))


def filter_json(data: bytes) -> Any:
    text = project_filter(data, LIMITS)
    assert text is not None
    return json.loads(text)


def project(data: bytes, *, type: str = "msgpack", index: bytes = b"") -> Projection:
    return metadata_index.project_metadata(TypedValue(type, data), index, LIMITS)


texts = st.text(st.characters(exclude_categories=[]), max_size=8) | st.text("\0\ue000\ud800\udfffuebd0", max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | texts
    | st.binary(max_size=8)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8))
    | st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
maps = st.dictionaries(texts, values, max_size=5)


def same(left: Any, right: Any) -> bool:
    """Returns whether two values are equal for filters: as in Python, but NaN equals NaN, and no bool a number."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float) and left != left:
        return right != right
    numbers = (int, float)
    if type(left) in numbers and type(right) in numbers:
        return bool(left == right)
    return type(left) is type(right) and bool(left == right)


def strictly_same(left: Any, right: Any) -> bool:
    """Returns whether two values are equal in JSON: `==`, but for Python's `1 == True`."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(strictly_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(strictly_same, left, right))
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)


@given(maps, maps)
def test_different_values_are_projected_differently(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert strictly_same(filter_json(pack(left)), filter_json(pack(right))) is same(left, right)


@given(values, values)
def test_a_value_alone_tells_maps_apart(left: Any, right: Any) -> None:
    assume(not same(left, right))
    assert not strictly_same(filter_json(pack({"key": left})), filter_json(pack({"key": right})))


@given(maps)
def test_what_postgresql_refuses_never_comes_out(content: dict[str, Any]) -> None:
    text = project_filter(pack(content), LIMITS)
    assert text is not None
    text.encode()  # no lone surrogates
    assert "\\u0000" not in text.replace("\\\\", "")
    json.loads(text, parse_constant=pytest.fail)


@given(maps)
def test_index_and_filter_are_projected_alike(content: dict[str, Any]) -> None:
    data = pack(content)
    assert project(data).json == project_filter(data, LIMITS)
    assert project(b"", type="json", index=data).json == project_filter(data, LIMITS)


@pytest.mark.parametrize(
    ("content", "projected"),
    [
        ({"step": -2, "source": "loop", "parents": {}}, {"step": -2, "source": "loop", "parents": {}}),
        ({"big": 2**64 - 1, "small": -(2**63)}, {"big": 2**64 - 1, "small": -(2**63)}),
        ({"yes": True, "none": None, "half": 0.5}, {"yes": True, "none": None, "half": 0.5}),
        ({"nan": float("nan")}, {"nan": "\ue000dnan"}),
        ({"inf": [float("inf"), float("-inf")]}, {"inf": ["\ue000dinf", "\ue000d-inf"]}),
        ({"nul": "a\0b"}, {"nul": "a\ue000u0000b"}),
        ({"surrogate": "\ud83d"}, {"surrogate": "\ue000ud83d"}),
        ({"\ue000": "\ue000"}, {"\ue000\ue000": "\ue000\ue000"}),
        ({"bytes": b"\x00\xff"}, {"bytes": "\ue000bAP8="}),
        ({"ext": msgpack.ExtType(5, b"x")}, {"ext": "\ue000x5:eA=="}),
        ({"time": msgpack.Timestamp(7, 5)}, {"time": "\ue000t7.000000005"}),
        ({b"key": 1}, {"\ue000ba2V5": 1}),
        ({1: "one"}, {"\ue000k1": "one"}),
        ({None: 1}, {"\ue000knull": 1}),
    ],
)
def test_how_values_are_written(content: dict[Any, Any], projected: dict[str, Any]) -> None:
    assert filter_json(pack(content)) == projected


@given(maps)
def test_what_is_read_back_is_projected_to_the_same_again(content: dict[str, Any]) -> None:
    text = project_filter(pack(content), LIMITS)
    assert text is not None
    assert filter_json(metadata_index.unproject(text)) == json.loads(text)


def test_a_key_that_is_no_text_is_not_read_back() -> None:
    text = project_filter(pack({1: "one", "two": {3: 4}, "four": 5}), LIMITS)
    assert text is not None
    assert msgpack.unpackb(metadata_index.unproject(text)) == {"four": 5}


def test_keys_that_python_would_merge_stay_apart() -> None:
    one_true_list = b"\x83\x01\xa1a\xc3\xa1b\x91\x01\xa1c"  # {1: "a", true: "b", [1]: "c"}
    assert filter_json(one_true_list) == {"\ue000k1": "a", "\ue000ktrue": "b", "\ue000k[1]": "c"}


def test_an_empty_filter_is_no_filter() -> None:
    assert project_filter(b"", LIMITS) is None


def nested(depth: int) -> bytes:
    """Returns a map nested `depth` deep, itself included."""
    return b"\x81\xa1k" * (depth - 1) + b"\x80"


def nested_lists(depth: int) -> bytes:
    return b"\x81\xa1k" + b"\x91" * (depth - 2) + b"\x90"


BAD = {
    "not msgpack": b"\xc1",
    "cut short": pack({"key": "value"})[:-1],
    "trailing bytes": pack({"key": "value"}) + b"\x00",
    "a list": pack([1, 2]),
    "a text": pack("key"),
    "not UTF-8": b"\x81\xa1k\xa1\xff",
    "a timestamp of odd length": b"\x81\xa1k\xc7\x05\xff12345",
    "a timestamp out of range": b"\x81\xa1k\xd7\xff" + struct.pack(">Q", 0xFFFF_FFFF_FFFF_FFFF),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument) as filter_error:
        project_filter(data, LIMITS)
    assert filter_error.value.field == "filter"
    with pytest.raises(InvalidArgument) as index_error:
        project(b"", index=data)
    assert index_error.value.field == "metadata.index"
    with pytest.raises(InvalidArgument) as value_error:
        project(data)
    assert value_error.value.field == "metadata.value"


@given(st.binary(max_size=200))
def test_any_bytes_are_projected_or_refused(data: bytes) -> None:
    with suppress(InvalidArgument):
        assert json.loads(project(data).json) is not None


@pytest.mark.parametrize("make", [nested, nested_lists], ids=["maps", "lists"])
def test_depth_is_limited(make: Callable[[int], bytes]) -> None:
    filter_json(make(32))
    for depth in (33, 500, 5000):
        with pytest.raises(InvalidArgument) as error:
            project_filter(make(depth), LIMITS)
        assert error.value.field == "filter"


def test_depth_names_its_limit() -> None:
    with pytest.raises(InvalidArgument) as error:
        project_filter(nested(33), LIMITS)
    assert error.value.limit == 32


def test_size_is_limited() -> None:
    overhead = len(pack({"k": b"x" * 60_000})) - 60_000
    exact = pack({"k": b"x" * (65_536 - overhead)})
    project_filter(exact, LIMITS)
    with pytest.raises(InvalidArgument) as error:
        project_filter(pack({"k": b"x" * (65_537 - overhead)}), LIMITS)
    assert (error.value.field, error.value.limit) == ("filter", 65_536)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x81\xa1k" + b"\xdd\x00\x00\xff\xff" * 1000,
        b"\x81\xa1k" + b"\xdf\x00\x00\x7f\xff" * 1000,
        b"\x81\xa1k\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1k\xdb\xff\xff\xff\xff",
        b"\x81\xa1k\xc6\xff\xff\xff\xff",
        b"\x81\xa1k\xc9\xff\xff\xff\xff\x05",
    ],
    ids=["nested arrays", "nested maps", "array", "map", "str", "bin", "ext"],
)
@pytest.mark.parametrize("padding", [0, 60_000, 200_000])
def test_claimed_lengths_allocate_nothing(bomb: bytes, padding: int) -> None:
    data = bomb + b"\x01" * padding
    size = len(data)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument):
            project(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * size + 200_000


class TestImplicitIndex:
    """The index is made from the metadata's own value, which may have any size; the index keeps what fits."""

    def test_the_value_must_be_msgpack_or_json(self) -> None:
        with pytest.raises(InvalidArgument, match="not 'msgpack' or 'json' but 'pickle'") as error:
            project(b"{}", type="pickle")
        assert error.value.field == "metadata.index"

    def test_an_explicit_index_wins(self) -> None:
        projection = project(b"\xc1 sealed", type="msgpack+aes", index=pack({"a": 1}))
        assert json.loads(projection.json) == {"a": 1}

    def test_the_largest_entries_are_left_out_until_the_rest_fits(self) -> None:
        content = {"prompt": "x" * 50_000, "step": 3, "image": b"y" * 1_000_000, "note": "z" * 20_000, "source": "loop"}
        projection = project(pack(content))
        assert json.loads(projection.json) == {"step": 3, "source": "loop", "note": "z" * 20_000}

    def test_entries_that_nest_too_deep_are_left_out(self) -> None:
        deep: Any = 1
        for _ in range(40):
            deep = [deep]
        projection = project(pack({"deep": deep, "step": 3}))
        assert json.loads(projection.json) == {"step": 3}

    def test_an_entry_may_nest_as_deep_as_a_filter_can(self) -> None:
        projection = project(nested(32))
        assert projection.json == project_filter(nested(32), LIMITS)
        assert project(nested(33)).json == "{}"

    def test_of_very_many_entries_the_first_are_looked_at(self) -> None:
        content = {"source": "loop", **{f"key-{i:08}": i for i in range(20_000)}}
        index = json.loads(project(pack(content)).json)
        assert index["source"] == "loop"
        assert 1000 < len(index) < 10_000
        # The counters may be among the entries that weren't read: with a "step", the store would take them for
        # complete.
        assert "step" not in json.loads(project(pack({"step": 3, **content})).json)

    def test_langgraphs_own_entries_go_in_whatever_else_there_is(self) -> None:
        own = {
            "source": "loop",
            "step": 3,
            "parents": {"": "x" * 100},
            "run_id": "r" * 300,
            "counters_since_delta_snapshot": {f"channel-{number:04}": [number, 1] for number in range(3000)},
        }
        others = {f"key-{i:06}": i for i in range(8000)}
        for content in ({**own, **others}, {**others, **own}):
            projection = project(pack(content))
            index = json.loads(projection.json)
            assert {key: index[key] for key in own} == own
            assert 1000 < len(index) < 8000
            assert projection.run_id == "r" * 300

    def test_without_the_counters_there_is_no_step(self) -> None:
        """If there is a step, the store takes the counters for complete."""
        counters = {f"channel-{number:05}": [number, 1] for number in range(10_000)}
        index = json.loads(project(pack({"step": 3, "source": "loop", "counters_since_delta_snapshot": counters})).json)
        assert index == {"source": "loop"}
        deep: Any = 1
        for _ in range(40):
            deep = [deep]
        assert json.loads(project(pack({"counters_since_delta_snapshot": deep, "step": 3})).json) == {}
        assert json.loads(project(pack({"step": 3, "counters_since_delta_snapshot": deep})).json) == {}

    @pytest.mark.parametrize("name", [name for name in BAD if name not in ("a list", "a text")])
    def test_large_garbage_is_refused_too(self, name: str) -> None:
        large = b"\x82\xa1f\xc6" + struct.pack(">I", 100_000) + b"x" * 100_000 + b"\xa1g" + BAD[name]
        with pytest.raises(InvalidArgument) as error:
            project(large)
        assert error.value.field == "metadata.value"

    def test_a_large_value_that_is_no_map_is_refused(self) -> None:
        with pytest.raises(InvalidArgument) as error:
            project(pack([b"x" * 100_000]))
        assert error.value.field == "metadata.value"

    @given(maps)
    def test_a_large_value_is_projected_like_a_small_one(self, content: dict[str, Any]) -> None:
        assume("filler" not in content)
        large = pack({**content, "filler": b"x" * 100_000})
        assert json.loads(project(large).json) == filter_json(pack(content))


@pytest.mark.parametrize(
    ("run_id", "found"),
    [
        ("0198f6a0-run", "0198f6a0-run"),
        ("é" * 256, "é" * 256),
        ("\ue000", "\ue000"),
        ("\ue000u0000", "\ue000u0000"),
        ("é" * 257, None),
        ("", None),
        ("a\0", None),
        ("\ud800", None),
        ("\ue000\0", None),
        (b"bytes", None),
        (7, None),
        (None, None),
        (float("nan"), None),
        (["run"], None),
    ],
)
def test_the_run_id_is_what_a_request_can_name(run_id: Any, found: str | None) -> None:
    assert project(pack({"run_id": run_id})).run_id == found


@given(maps)
def test_the_short_way_says_the_same_as_the_long_one(content: dict[str, Any]) -> None:
    short = metadata_index._project_ordinary(pack(content), LIMITS)
    if short is not None:
        text = project_filter(pack(content), LIMITS)
        assert text is not None
        assert strictly_same(json.loads(short.json), json.loads(text))
        assert short.run_id == metadata_index._run_id(json.loads(text), LIMITS)


def test_ordinary_metadata_goes_the_short_way() -> None:
    content = {"source": "loop", "step": 3, "parents": {"": "id"}, "run_id": "run", "tags": ["a", "é"], "ok": True}
    assert metadata_index._project_ordinary(pack(content), LIMITS) is not None


def test_without_a_run_id_there_is_none() -> None:
    assert project(pack({"step": 1})).run_id is None


def nested_keys(levels: int) -> bytes:
    """Returns a map whose key is a map whose key is a map, and so on."""
    data = b"\xa1a"
    for _ in range(levels):
        data = b"\x81" + data + b"\x01"
    return data


class TestKeysInKeys:
    """Each level quotes the one inside it once more: the text of 30 levels would have gigabytes."""

    @pytest.mark.parametrize("levels", [5, 25, 31])
    def test_too_many_are_refused_as_a_filter_and_left_out_of_an_index(self, levels: int) -> None:
        with pytest.raises(InvalidArgument, match="keys in keys"):
            project_filter(nested_keys(levels), LIMITS)
        assert project(nested_keys(levels)).json == "{}"

    def test_some_are_told_apart(self) -> None:
        found = {project_filter(nested_keys(levels), LIMITS) for levels in (1, 2, 3)}
        assert len(found) == 3

    @given(st.lists(st.sampled_from([b"\x81", b"\x91", b"\x80", b"\x90", b"\xa1\0", b"\xa1\\", b'\xa1"', b"\x01"])))
    def test_what_is_searched_is_never_much_larger_than_what_it_is_made_from(self, parts: list[bytes]) -> None:
        data = b"\x81" * 3 + b"".join(parts)
        try:
            text = project_filter(data, LIMITS)
        except InvalidArgument:
            return
        assert len(text or "") <= 64 * len(data)
