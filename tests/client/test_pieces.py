"""What a saver does with pieces before they are sent and after they came: packing, checking, remembering."""

from __future__ import annotations

import hashlib
import random
import zlib

import pytest
from langgraph.checkpoint.grpc import CorruptValueError
from langgraph.checkpoint.grpc.known_pieces import MAX_KNOWN, KnownPieces, PieceCache
from langgraph.checkpoint.grpc.pieces import (
    INLINE_BYTES,
    MAX_PIECE_BYTES,
    TINY_BYTES,
    WHOLE_BYTES,
    Cargo,
    Contents,
    pack,
    piece_sizes,
    unpack,
)

from checkpointd.v1 import values_pb2 as values


def name_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def taken_apart(data: bytes, cache: PieceCache) -> tuple[values.TypedValue, dict[bytes, memoryview]]:
    cargo, message = Cargo(), values.TypedValue()
    cargo.load(message, "bytes", data)
    cargo.take_apart(cache.met)
    return message, cargo.pieces


class TestCargo:
    def test_small_values_stay_whole(self) -> None:
        cargo, message = Cargo(), values.TypedValue()
        cargo.load(message, "bytes", bytes(WHOLE_BYTES))
        assert (message.data, cargo.size) == (bytes(WHOLE_BYTES), 0)
        cargo.load(message, "bytes", bytes(WHOLE_BYTES + 1))
        assert cargo.size == WHOLE_BYTES + 1

    def test_many_values_that_are_small_each_go_in_pieces_from_some_point_on(self) -> None:
        cargo = Cargo()
        messages = [values.TypedValue() for _ in range(200)]
        for message in messages:
            cargo.load(message, "bytes", bytes(WHOLE_BYTES))
        assert sum(len(message.data) for message in messages) == INLINE_BYTES
        tiny = values.TypedValue()
        cargo.load(tiny, "bytes", bytes(TINY_BYTES))
        assert len(tiny.data) == TINY_BYTES

    def test_edits_come_back_exactly_whatever_was_met_before(self) -> None:
        dice, cache = random.Random(1), PieceCache(10**7)
        data = dice.randbytes(500_000)
        for _ in range(60):
            message, pieces = taken_apart(data, cache)
            assert all(name_of(bytes(piece)) == name for name, piece in pieces.items())
            contents = Contents()
            contents.add((name, bytes(piece)) for name, piece in pieces.items())
            assert contents.bytes_of(message) == data
            cache.keep(pieces)
            at = dice.randrange(len(data))
            data = data[:at] + dice.randbytes(dice.randrange(3000)) + data[at + dice.randrange(3000) :]

    def test_what_was_met_before_is_mostly_what_would_be_cut(self) -> None:
        dice = random.Random(2)
        cache = PieceCache(10**8)
        parts = [dice.randbytes(1000) for _ in range(2000)]
        names: set[bytes] = set()
        for count in range(500, 2000, 5):
            message, pieces = taken_apart(b"".join(parts[:count]), cache)
            cache.keep(pieces)
            names |= pieces.keys()
        afresh, _ = taken_apart(b"".join(parts[:count]), PieceCache(0))
        # The value's end is cut finely, and what comes of that must not stay.
        assert len(message.pieces.names) < 1.5 * len(afresh.pieces.names)
        assert len(names) < 300 * 8


class TestPacking:
    @pytest.mark.parametrize("size", [0, 1, 100, 5000, 1_000_000])
    def test_text_is_compressed_and_noise_is_not(self, size: int) -> None:
        text, noise = (b"so it goes, " * (size // 12 + 1))[:size], random.Random(3).randbytes(size)
        for data in (text, noise):
            piece = pack(name_of(data), memoryview(data))
            assert unpack([piece]) == [(name_of(data), data)]
            assert len(piece.data) <= len(data)
        if size >= 5000:
            assert len(pack(b"", memoryview(text)).data) < 0.1 * size

    def test_other_bytes_than_the_name_stands_for_are_refused(self) -> None:
        with pytest.raises(CorruptValueError, match="SHA-256"):
            unpack([values.Piece(name=name_of(b"a"), data=b"b")])

    def test_what_can_not_be_decompressed_is_refused(self) -> None:
        damaged = values.Piece(name=name_of(b"a"), data=b"no zlib", compression=values.COMPRESSION_ZLIB)
        with pytest.raises(CorruptValueError, match="decompressed"):
            unpack([damaged])
        unknown = values.Piece(name=name_of(b"a"), data=b"a", compression=99)  # type: ignore[arg-type]
        with pytest.raises(CorruptValueError, match="doesn't know"):
            unpack([unknown])

    def test_a_bomb_does_not_unpack(self) -> None:
        data = bytes(50 * MAX_PIECE_BYTES)
        bomb = values.Piece(name=name_of(data), data=zlib.compress(data), compression=values.COMPRESSION_ZLIB)
        with pytest.raises(CorruptValueError):
            unpack([bomb])

    def test_a_value_of_another_size_is_refused(self) -> None:
        contents = Contents()
        contents.add([(name_of(b"abc"), b"abc")])
        message = values.TypedValue(pieces=values.PieceList(size=4, names=[name_of(b"abc")]))
        assert piece_sizes([message]) == {name_of(b"abc"): 4}
        with pytest.raises(CorruptValueError, match="3 bytes, where 4"):
            contents.bytes_of(message)


class TestKnownPieces:
    def test_pieces_are_known_on_their_thread_only(self) -> None:
        known = KnownPieces()
        known.add("t", [name_of(b"a"), name_of(b"b"), b"a place"])
        assert known.unknown("t", [name_of(b"a"), name_of(b"c"), b"a place"]) == [name_of(b"c"), b"a place"]
        assert known.unknown("other", [name_of(b"a")]) == [name_of(b"a")]
        known.remove("t", [name_of(b"a"), name_of(b"z")])
        known.remove("nowhere", [name_of(b"a")])
        assert known.unknown("t", [name_of(b"a"), name_of(b"b")]) == [name_of(b"a")]
        assert known.knows("t")
        assert not known.knows("other")

    def test_the_oldest_are_forgotten(self) -> None:
        known = KnownPieces()
        names = [number.to_bytes(32) for number in range(MAX_KNOWN + 10)]
        known.add("t", names)
        assert known.unknown("t", names) == names[:10]
        known.add("other", names[:1])
        assert known.unknown("other", names[:1]) == []
        assert not known.knows("t")


class TestPieceCache:
    def test_it_keeps_what_was_met_last(self) -> None:
        cache = PieceCache(1000)
        pieces = {name_of(data): data for data in (bytes([number]) * 100 for number in range(10))}
        cache.keep(pieces)
        first, second, *_ = pieces
        assert cache.find([first]) == [(first, bytes(100))]
        cache.keep({name_of(b"z" * 100): b"z" * 100})
        assert cache.find([first, second]) == [(first, bytes(100))]
        assert cache.met(b"...." + b"z" * 100, 4) == (100, name_of(b"z" * 100))
        assert cache.met(b"\1" * 100, 0) is None

    def test_a_value_that_is_larger_than_all_of_it_drives_nothing_out(self) -> None:
        cache = PieceCache(1000)
        cache.keep({name_of(b"a"): b"a"})
        cache.keep({name_of(bytes(600)): bytes(600), name_of(bytes(500)): bytes(500)})
        assert cache.find([name_of(b"a"), name_of(bytes(600))]) == [(name_of(b"a"), b"a")]

    def test_none_at_all(self) -> None:
        cache = PieceCache(0)
        cache.keep({name_of(b"a"): b"a"})
        assert cache.find([name_of(b"a")]) == []
