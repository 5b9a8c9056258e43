"""Patches reproduce the new bytes whatever changed, and are little larger than what is new."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc import CorruptValueError
from langgraph.checkpoint.grpc._transport.operation import varint
from langgraph.checkpoint.grpc._values.instructions import apply, compose
from langgraph.checkpoint.grpc._values.patches import MAX_INSTRUCTIONS, diff
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd_server.domain.patches import apply_patch, check_instructions
from tests.support.properties import PATIENT

WORDS = ["".join(random.Random(n).choices("etaoinshrdlu", k=1 + n % 8)) for n in range(2000)]
Corpus = Callable[[random.Random, int], bytes]


def noise(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(size)


def prose(dice: random.Random, size: int) -> bytes:
    return " ".join(dice.choices(WORDS, k=size // 4)).encode()[:size]


def hexadecimal(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(size // 2).hex().encode()


def chat(dice: random.Random, size: int) -> bytes:
    messages = [{"role": "user", "content": prose(dice, 400).decode(), "id": n} for n in range(size // 450)]
    return bytes(msgpack.packb(messages))


def records(dice: random.Random, size: int) -> bytes:
    return json.dumps([{"id": n, "price": dice.random(), "open": True} for n in range(size // 55)]).encode()


def floats(dice: random.Random, size: int) -> bytes:
    return struct.pack(f"<{size // 8}d", *(dice.random() for _ in range(size // 8)))


def counters(dice: random.Random, size: int) -> bytes:
    return struct.pack(f"<{size // 8}q", *range(size // 8))


def constant(dice: random.Random, size: int) -> bytes:
    return b"x" * size


def repeated(dice: random.Random, size: int) -> bytes:
    return (prose(dice, 300) * (size // 300 + 1))[:size]


CORPORA = [noise, prose, hexadecimal, chat, records, floats, counters, constant, repeated]
corpora = pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.__name__)


def cost(base: bytes, new: bytes) -> int:
    """Returns the size of the patch from `base` to `new`, in bytes, and checks that client and server can apply it."""
    patch = diff(base, new, len(new) + 64)
    assert patch is not None
    assert apply(base, patch, len(new), zlib.crc32(new)) == new
    assert check_instructions(patch, len(new), max_operations=MAX_INSTRUCTIONS).reach <= len(base)
    assert apply_patch(base, patch, size=len(new), checksum=zlib.crc32(new)) == new
    return len(patch)


def edited(dice: random.Random, data: bytes, new: bytes) -> bytes:
    """Inserts, removes and overwrites at random places."""
    at = dice.randrange(len(data))
    match dice.randrange(3):
        case 0:
            return data[:at] + new + data[at:]
        case 1:
            return data[:at] + data[at + len(new) :]
        case _:
            return data[:at] + new + data[at + len(new) :]


@corpora
@pytest.mark.parametrize("size", [0, 1, 63, 1000, 16_385, 300_000])
def test_a_patch_makes_the_new_bytes_whatever_they_are(corpus: Corpus, size: int) -> None:
    dice = random.Random(size)
    for other in CORPORA:
        cost(corpus(dice, size), other(dice, size // 2))


@corpora
@pytest.mark.parametrize("size", [2000, 100_000, 2_000_000])
def test_one_edit_anywhere_costs_what_is_new(corpus: Corpus, size: int) -> None:
    dice = random.Random(size)
    data = corpus(dice, size)
    for _ in range(20):
        piece = corpus(dice, 1000)
        new = edited(dice, data, piece)
        # It is found between the common beginning and the common end.
        assert cost(data, new) < len(piece) + 64
        data = new


@pytest.mark.parametrize("corpus", [noise, prose, chat, records, floats], ids=lambda corpus: corpus.__name__)
@pytest.mark.parametrize("edits", [2, 5, 40])
def test_edits_in_several_places_stay_small(corpus: Corpus, edits: int) -> None:
    dice = random.Random(edits)
    data = new = corpus(dice, 1_000_000)
    for _ in range(edits):
        new = edited(dice, new, corpus(dice, 500))
    assert cost(data, new) < edits * 1500


@pytest.mark.parametrize("corpus", [noise, prose, chat, records, floats], ids=lambda corpus: corpus.__name__)
def test_what_moves_is_found_again(corpus: Corpus) -> None:
    data = corpus(random.Random(7), 500_000)
    cuts = [0, 90_000, 200_000, 410_000, len(data)]
    blocks = [data[start:end] for start, end in itertools.pairwise(cuts)]
    assert cost(data, blocks[2] + blocks[0] + blocks[3] + blocks[1]) < 20_000


class TestNestedValues:
    """Values as LangGraph's serializer writes them."""

    dumps = staticmethod(lambda value: JsonPlusSerializer().dumps_typed(value)[1])

    @pytest.mark.parametrize("item", ["short", "x" * 900, {"role": "user", "content": "y" * 300}])
    def test_a_list_that_grows_costs_the_item(self, item: Any) -> None:
        """Its header grows as well: beyond 15 items, and beyond 65,535."""
        size = len(self.dumps(item))
        for count in (1, 14, 15, 16, 17, 300, 65_535 if item == "short" else 2000):
            items = [f"{n} {item}" for n in range(count)]
            assert cost(self.dumps(items), self.dumps([*items, item])) < size + 32

    def test_a_map_of_files_three_of_them_edited(self) -> None:
        dice = random.Random(11)
        files = {f"/src/module_{n}.py": prose(dice, 20_000).decode() for n in range(50)}
        for _ in range(10):
            new = dict(files)
            for name in dice.sample(sorted(files), 3):
                at = dice.randrange(20_000)
                new[name] = f"{files[name][:at]}{prose(dice, 200).decode()}{files[name][at + 100 :]}"
            assert cost(self.dumps(files), self.dumps(new)) < 4000
            files = new

    def test_a_window_that_moves_on_costs_what_enters_it(self) -> None:
        dice = random.Random(12)
        messages = [{"role": "user", "content": prose(dice, 600).decode(), "id": n} for n in range(400)]
        for start in range(0, 100, 7):
            old, new = messages[start : start + 300], messages[start + 7 : start + 307]
            assert cost(self.dumps(old), self.dumps(new)) < 6000

    leaves = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary()
    )
    values = st.recursive(
        leaves,
        lambda children: st.lists(children, max_size=20) | st.dictionaries(st.text(max_size=20), children, max_size=20),
        max_leaves=100,
    )

    @given(old=values, new=values, seed=st.integers(0, 2**32))
    @settings(PATIENT, max_examples=60)
    def test_edits_at_random_come_back_exactly(self, old: Any, new: Any, seed: int) -> None:
        dice = random.Random(seed)
        blob = [prose(dice, dice.randrange(3000)).decode() for _ in range(dice.randrange(40))]
        value: Any = {"a": old, "blob": blob, "z": [old, new]}
        data = self.dumps(value)
        for _ in range(6):
            changed = edit(dice, copy.deepcopy(value), new)
            changed_data = self.dumps(changed)
            cost(data, changed_data)
            # A fork continues from the previous value, the others from this one.
            if dice.random() < 0.7:
                value, data = changed, changed_data


def edit(dice: random.Random, value: Any, new: Any) -> Any:
    """Changes a nested value somewhere."""
    at = value
    while isinstance(at, dict | list) and at:
        key = dice.choice(list(at)) if isinstance(at, dict) else dice.randrange(len(at))
        if dice.random() < 0.4 or not isinstance(at[key], dict | list):
            match dice.randrange(5):
                case 0:
                    at[key] = new
                case 1:
                    del at[key]
                case 2 if isinstance(at, list):
                    at.insert(dice.randrange(len(at) + 1), new)
                case 3 if isinstance(at, list):
                    at.reverse()
                case _ if isinstance(at, dict):
                    at[str(dice.random())] = new
                case _:
                    at.append(new)
            break
        at = at[key]
    return value


class TestComposed:
    @corpora
    def test_one_patch_does_what_many_did(self, corpus: Corpus) -> None:
        dice = random.Random(5)
        data = first = corpus(dice, 50_000)
        patches = []
        for _ in range(40):
            new = edited(dice, data, corpus(dice, dice.randrange(200)))
            patch = diff(data, new, len(new) + 64)
            assert patch is not None
            patches.append(patch)
            data = new
        composed = compose(patches, len(data) + 1000)
        assert composed is not None
        assert apply(first, composed, len(data), zlib.crc32(data)) == data
        assert apply_patch(first, composed, size=len(data), checksum=zlib.crc32(data)) == data
        assert len(composed) <= sum(map(len, patches)) + 40 * 16
        assert check_instructions(composed, len(data), max_operations=MAX_INSTRUCTIONS).reach <= len(first)

    @given(base=st.binary(max_size=60), versions=st.lists(st.binary(max_size=60), min_size=1, max_size=5))
    @settings(PATIENT, max_examples=300)
    def test_whatever_they_do(self, base: bytes, versions: list[bytes]) -> None:
        # Each contains a part of the version before, so that there is something to copy.
        versions = [b"".join(pair) for pair in itertools.pairwise([base * 3, *versions])]
        patches = [diff(old, new, 1000) for old, new in itertools.pairwise([base * 3, *versions])]
        composed = compose([patch for patch in patches if patch is not None], 1000)
        assert composed is not None
        assert apply(base * 3, composed, len(versions[-1]), zlib.crc32(versions[-1])) == versions[-1]

    def test_what_was_appended_is_one_insertion(self) -> None:
        data, patches = b"x" * 100, []
        for number in range(10):
            patches.append(diff(data, data + bytes([number]) * 20, 1000) or b"")
            data += bytes([number]) * 20
        assert compose(patches, 1000) == diff(b"x" * 100, data, 1000)

    def test_it_gives_up_where_nothing_is_saved(self) -> None:
        patch = diff(b"x" * 100, b"x" * 100 + b"y" * 50, 1000) or b""
        assert compose([patch], 10) is None
        assert compose([patch], len(patch)) == patch

    def test_it_gives_up_where_it_would_take_long(self) -> None:
        patch = b"\x02x\x03\x00" * 600
        assert compose([patch], 10_000) == patch
        assert compose([patch, patch], 10_000) is None

    def test_it_gives_up_where_more_and_more_would_come_of_few(self) -> None:
        """Each patch copies all that there is twice."""
        patches = [b"".join(varint(number) for number in (2**step << 1 | 1, 0) * 2) for step in range(40)]
        assert compose(patches[:10], 10_000) == b"\x03\x00" * 2**10
        assert compose(patches, 10_000) is None

    @pytest.mark.parametrize(
        "patches",
        [
            [b"\x02x", b"\x05\x00"],
            [b"\x02x", b"\x03\x01"],
            [b"\x02x", b"\x03\x7f"],
            [b"\x04x"],
            [b"\x02"],
            [b"\x03"],
            [b"\x80"],
        ],
    )
    def test_what_no_patch_may_do(self, patches: list[bytes]) -> None:
        with pytest.raises(CorruptValueError):
            compose(patches, 10_000)


class TestBounds:
    def test_it_gives_up_where_nothing_is_saved(self) -> None:
        dice = random.Random(1)
        data = dice.randbytes(100_000)
        assert diff(data, dice.randbytes(100_000)) is None
        assert diff(data, data + dice.randbytes(120_000)) is None
        assert diff(data, data + dice.randbytes(80_000)) is not None
        assert diff(data, data + b"more", most=3) is None
        assert diff(b"", b"x" * 1000) is None

    def test_instructions_are_bounded_in_number(self) -> None:
        """A server accepts only so many. Here every other kilobyte is a separate copy."""
        dice = random.Random(2)
        blocks = [dice.randbytes(1000) for _ in range(20_000)]
        dice_order = dice.sample(blocks, len(blocks))
        patch = diff(b"".join(blocks), b"".join(dice_order))
        assert patch is None or check_instructions(patch, 20_000_000, max_operations=MAX_INSTRUCTIONS)

    @pytest.mark.parametrize(
        ("instructions", "says"),
        [
            (b"\x02", "not there"),
            (b"\x08ab", "not there"),
            (b"\x15", "is cut off"),
            (b"\x15\x80", "is cut off"),
            (b"\x81", "is cut off"),
            (b"\x15\x01", "not there"),
            (b"\x15\xff\xff\xff\xff\x0f", "not there"),
            (b"\xff" * 12, "too large"),
            (b"", "doesn't make the"),
            (b"\x13\x00", "doesn't make the"),
            (b"\x15\x00\x15\x00", "doesn't make the"),
            (b"\x14x123456789", "checksum"),
        ],
    )
    def test_broken_instructions_are_named(self, instructions: bytes, says: str) -> None:
        base = b"0123456789"
        with pytest.raises(CorruptValueError, match=says):
            apply(base, instructions, 10, zlib.crc32(base))

    @given(base=st.binary(max_size=200), instructions=st.binary(max_size=60), size=st.integers(0, 500))
    @settings(PATIENT, max_examples=500)
    def test_whatever_a_server_sends_is_a_value_or_an_error_of_ours(
        self, base: bytes, instructions: bytes, size: int
    ) -> None:
        with contextlib.suppress(CorruptValueError):
            assert len(apply(base, instructions, size, 0)) == size

    def test_copies_of_copies_make_no_more_than_was_announced(self) -> None:
        base = bytes(1_000_000)
        copy_all = b"\x81\x89\x7a\x00"
        assert apply(base, copy_all, 1_000_000, zlib.crc32(base)) == base
        with pytest.raises(CorruptValueError, match="doesn't make the"):
            apply(base, copy_all * 100_000, 1_000_000, 0)
