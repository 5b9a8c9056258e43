"""Patches as bytes: the results of instructions, refusals, and chains that become whole values."""

from __future__ import annotations

import random
from contextlib import suppress
from time import thread_time
from zlib import crc32

import pytest

from checkpointd_server.domain.errors import BrokenPatch
from checkpointd_server.domain.patches import Assembler, Budget, apply_patch, check_instructions
from checkpointd_server.domain.values import ChannelValueKey, Parts, Patch, TypedValue

MOST = 1000


def number(value: int) -> bytes:
    """Encodes unsigned LEB128."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def insert(data: bytes) -> bytes:
    return number(len(data) << 1) + data


def copy(offset: int, length: int) -> bytes:
    return number(length << 1 | 1) + number(offset)


def made(base: bytes, instructions: bytes, expected: bytes) -> bytes:
    check_instructions(instructions, len(expected), max_operations=MOST)
    return apply_patch(base, instructions, size=len(expected), checksum=crc32(expected))


def test_instructions_make_the_value() -> None:
    base = bytes(range(256)) * 300
    instructions = copy(0, 70_000) + insert(b"new") + copy(70_010, 5) + insert(b"x" * 200) + copy(3, 1)
    expected = base[:70_000] + b"new" + base[70_010:70_015] + b"x" * 200 + base[3:4]
    assert made(base, instructions, expected) == expected
    assert check_instructions(instructions, len(expected), max_operations=5) == (5, 70_015)


def test_a_value_may_be_empty_or_made_of_nothing_old() -> None:
    assert made(b"base", b"", b"") == b""
    assert made(b"", insert(b"all new"), b"all new") == b"all new"
    assert check_instructions(insert(b"all new"), 7, max_operations=1).reach == 0


def test_random_edits_are_exact() -> None:
    rng = random.Random(5)
    for _ in range(300):
        base = rng.randbytes(rng.randrange(1, 400))
        instructions, expected = b"", b""
        for _ in range(rng.randrange(8)):
            if rng.random() < 0.5:
                start = rng.randrange(len(base))
                length = rng.randrange(1, len(base) - start + 1)
                instructions += copy(start, length)
                expected += base[start : start + length]
            else:
                data = rng.randbytes(rng.randrange(1, 300))
                instructions += insert(data)
                expected += data
        assert made(base, instructions, expected) == expected


@pytest.mark.parametrize(
    ("instructions", "size", "problem"),
    [
        (insert(b"abc"), 2, "make 3 bytes"),
        (insert(b"abc"), 4, "make 3 bytes"),
        (copy(0, 3), 4, "make 3 bytes"),
        (b"", 1, "make 0 bytes"),
        (insert(b"abc")[:-1], 3, "end within"),
        (copy(0, 3)[:-1], 3, "end within"),
        (number(1 << 20)[:-1], 3, "end within"),
        (copy(1 << 20, 3)[:-1], 3, "end within"),
        (b"\x00", 0, "makes no bytes"),
        (b"\x01\x00", 0, "makes no bytes"),
        (b"\x80\x00", 0, "makes no bytes"),
        (b"\xff" * 20, 1, "too large"),
        (copy(0, 1) * (MOST + 1), MOST + 1, "more than 1000"),
    ],
)
def test_instructions_that_cannot_be_are_refused_without_the_base(instructions: bytes, size: int, problem: str) -> None:
    with pytest.raises(BrokenPatch, match=problem):
        check_instructions(instructions, size, max_operations=MOST)


def test_any_bytes_are_instructions_or_refused() -> None:
    rng = random.Random(6)
    for _ in range(3000):
        garbage = rng.randbytes(rng.randrange(12))
        with suppress(BrokenPatch):
            check_instructions(garbage, rng.randrange(20), max_operations=5)
        with suppress(BrokenPatch):
            apply_patch(b"0123456789", garbage, size=rng.randrange(20), checksum=0)


@pytest.mark.parametrize(
    ("base", "instructions", "size", "checksum", "problem"),
    [
        (b"abc", copy(0, 4), 4, 0, "base of 3 bytes"),
        (b"abc", copy(1 << 40, 4), 4, 0, "base of 3 bytes"),
        (b"abc", copy(0, 3), 3, crc32(b"abd"), "checksum"),
        (b"abc", copy(0, 3), 2, crc32(b"ab"), "more than the 2"),
        (b"abc", copy(0, 3), 4, crc32(b"abc"), "make 3 bytes"),
    ],
)
def test_what_a_patch_does_not_make_is_never_returned(
    base: bytes, instructions: bytes, size: int, checksum: int, problem: str
) -> None:
    with pytest.raises(BrokenPatch, match=problem):
        apply_patch(base, instructions, size=size, checksum=checksum)


def test_a_large_value_takes_no_longer_than_its_copy() -> None:
    base = bytes(10_000_000)
    instructions = copy(0, 4_000_000) + insert(b"x" * 1000) + copy(4_001_000, 5_999_000)
    expected = base[:4_000_000] + b"x" * 1000 + base[4_001_000:]
    checksum = crc32(expected)
    begun = thread_time()
    for _ in range(5):
        apply_patch(base, instructions, size=len(expected), checksum=checksum)
    assert (thread_time() - begun) / 5 < 0.25  # 10 ms on the machine that this was written on


CHANNEL = "messages"


def chain(*values: bytes) -> dict[ChannelValueKey, TypedValue]:
    """Returns rows of one channel, each of which appends to the previous one. Versions are "s0", "s1" and so on."""
    rows = {ChannelValueKey(CHANNEL, "s0"): TypedValue("msgpack", values[0])}
    whole = values[0]
    for place, tail in enumerate(values[1:], 1):
        patch = Patch(f"s{place - 1}", len(whole + tail), crc32(whole + tail), sealed=False)
        rows[ChannelValueKey(CHANNEL, f"s{place}")] = TypedValue("msgpack", copy(0, len(whole)) + insert(tail), patch)
        whole += tail
    return rows


def key(version: str) -> ChannelValueKey:
    return ChannelValueKey(CHANNEL, version)


def test_chains_become_whole_values() -> None:
    assembler = Assembler(chain(b"a", b"b", b"c"), largest=100, budget=Budget(100))
    assert assembler.value(key("s2")) == TypedValue("msgpack", b"abc")
    assert assembler.value(key("s1")) == TypedValue("msgpack", b"ab")
    assert assembler.value(key("s0")) == TypedValue("msgpack", b"a")
    assert assembler.value(key("s3")) is None


def test_what_would_be_large_is_left_out_with_its_size() -> None:
    rows = chain(b"a" * 50, b"b" * 60, b"c")
    assembler = Assembler(rows, largest=100, budget=Budget(1000))
    assert assembler.value(key("s2")) == TypedValue("msgpack", b"", None, Parts(b"", 111))
    assert assembler.value(key("s0")) == TypedValue("msgpack", b"a" * 50)
    # Together they exceed the budget.
    assembler = Assembler(chain(b"a", b"b", b"c"), largest=100, budget=Budget(4))
    assert assembler.value(key("s1")) == TypedValue("msgpack", b"ab")
    assert assembler.value(key("s2")) == TypedValue("msgpack", b"", None, Parts(b"", 3))


def test_what_builds_on_what_was_left_out_is_left_out() -> None:
    rows = chain(b"a", b"b")
    rows[key("s0")] = TypedValue("msgpack", b"", None, Parts(b"", 1))
    assert Assembler(rows, largest=100, budget=Budget(100)).value(key("s1")) == TypedValue(
        "msgpack", b"", None, Parts(b"", 2)
    )


def test_sealed_patches_are_left_out() -> None:
    rows = chain(b"a", b"b")
    rows[key("s2")] = TypedValue("msgpack+xaes", b"???", Patch("s1", 7, 0, sealed=True))
    value = Assembler(rows, largest=100, budget=Budget(100)).value(key("s2"))
    assert value == TypedValue("msgpack+xaes", b"", None, Parts(b"", 7))


def test_rows_that_make_no_value_are_left_out_and_an_error_to_who_wants_the_bytes() -> None:
    def broken(rows: dict[ChannelValueKey, TypedValue], version: str, problem: str) -> None:
        assembler = Assembler(rows, largest=100, budget=Budget(100))
        value = assembler.value(key(version))
        assert value is not None
        assert value.parts is not None
        with pytest.raises(BrokenPatch, match=problem):
            assembler.make(key(version), rows[key(version)])

    rows = chain(b"a", b"b", b"c")
    rows[key("s0")] = TypedValue("msgpack", b"x")
    broken(rows, "s2", r"version 's1'.*checksum")
    del rows[key("s0")]
    broken(rows, "s2", "base of a patch is missing")
    rows = chain(b"a", b"b")
    rows[key("s0")] = TypedValue("msgpack", copy(0, 1), Patch("s1", 1, 0, sealed=False))
    broken(rows, "s1", "circle")
