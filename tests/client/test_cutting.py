"""Pieces make the value again, have the sizes they should, and mostly stay what they are when the value changes."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable

import msgpack
import pytest
from langgraph.checkpoint.grpc.cutting import HEAD_BYTES, LARGEST_BITS, TAIL_BITS, cut, piece_bits

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


def named(data: bytes) -> dict[bytes, int]:
    """The pieces' sizes, by their names."""
    return {hashlib.sha256(piece).digest(): len(piece) for piece, _ in cut(data)}


@corpora
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000, 16_385, 100_000, 3_000_000])
def test_pieces_make_the_value_again(corpus: Corpus, size: int) -> None:
    data = corpus(random.Random(size), size)
    pieces = [piece for piece, _ in cut(data)]
    assert b"".join(pieces) == data
    assert all(pieces)


@corpora
def test_pieces_are_neither_many_nor_large(corpus: Corpus) -> None:
    data = corpus(random.Random(1), 3_000_000)
    start = 0
    pieces = [piece for piece, _ in cut(data)]
    for piece in pieces[1:]:
        assert len(piece) <= 4 << piece_bits(start), start
        start += len(piece)
    # As many as there would be of average size, or twice as many; those at the end come on top.
    expected = sum(1 / (1 << piece_bits(place)) for place in range(0, len(data), 64)) * 64
    assert len(pieces) <= 2 * expected + (4 << LARGEST_BITS) / (1 << TAIL_BITS)


def edited(dice: random.Random, data: bytes, new: bytes) -> bytes:
    """Inserts, removes and overwrites somewhere."""
    at = dice.randrange(len(data))
    match dice.randrange(3):
        case 0:
            return data[:at] + new + data[at:]
        case 1:
            return data[:at] + data[at + len(new) :]
        case _:
            return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    "corpus", [noise, prose, hexadecimal, chat, records, floats], ids=lambda corpus: corpus.__name__
)
@pytest.mark.parametrize("size", [100_000, 2_000_000])
def test_an_edit_anywhere_changes_few_pieces(corpus: Corpus, size: int) -> None:
    dice = random.Random(size)
    data = corpus(dice, size)
    known = named(data)
    costs = []
    for _ in range(40):
        data = edited(dice, data, corpus(dice, 1000))
        now = named(data)
        costs.append(len(now.keys() - known.keys()))
        known = now
    assert sum(costs) / len(costs) < 4, costs


@pytest.mark.parametrize("corpus", [noise, prose, chat, records], ids=lambda corpus: corpus.__name__)
def test_growing_at_the_end_costs_little_more_than_what_is_added(corpus: Corpus) -> None:
    dice = random.Random(2)
    parts = [corpus(dice, 1000) for _ in range(400)]
    known: dict[bytes, int] = {}
    for count in range(100, 401):
        # A count in front, as serializers have it.
        known |= named(struct.pack(">I", count) + b"".join(parts[:count]))
    added = sum(len(part) for part in parts)
    assert sum(known.values()) < 4 * added


def test_a_count_in_front_costs_no_more_than_the_first_piece() -> None:
    body = noise(random.Random(3), 500_000)
    one, two = named(struct.pack(">I", 1) + body), named(struct.pack(">I", 2) + body)
    assert [two[name] for name in two.keys() - one.keys()] == [HEAD_BYTES]


def test_equal_parts_make_equal_pieces() -> None:
    assert len(named(bytes(3_000_000))) < 20


def test_the_places_stay_the_same_in_all_releases() -> None:
    """Where one release cuts elsewhere than another, each stores anew what the other has stored."""
    digest = hashlib.sha256()
    for corpus in CORPORA:
        for size in (20_000, 700_000):
            data = corpus(random.Random(5), size)
            digest.update(json.dumps([len(piece) for piece, _ in cut(data)]).encode())
    assert digest.hexdigest() == "53120a749107f7eca067cd26cc05aeb2b391b778917db99d14b3cedd83ee1687"
