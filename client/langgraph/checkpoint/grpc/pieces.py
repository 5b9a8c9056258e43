"""Large values as pieces: taken apart for a put, and put together after a read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from langgraph.checkpoint.grpc.cutting import Met, cut
from langgraph.checkpoint.grpc.errors import DamagedValueError

from checkpointd.v1 import values_pb2 as values

WHOLE_BYTES = 16 * 1024
"""Up to how many bytes a value is sent, and stored, whole."""
INLINE_BYTES = 1024 * 1024
"""Up to how many bytes of whole values, and of pieces, go with a request. Messages stay far below gRPC's 4 MiB."""
TINY_BYTES = 1024
"""Up to how many bytes a value is sent whole in any case: its name as a piece would save nothing."""
MAX_PIECE_BYTES = 1024 * 1024
"""The largest piece that is accepted from a server, in bytes."""
THREADED_BYTES = 256 * 1024
"""From how many bytes on pieces are made and unpacked in another thread: an event loop would stand still meanwhile."""
DIGEST_BYTES = 32
"""How long a piece's name is. Other names tell where a value lies that was stored whole, and mean nothing elsewhere."""

_SAMPLE_BYTES = 1024
_WORTH_IT = 0.75
"""A piece is sent compressed if that leaves no more than this share of it."""


class Large(NamedTuple):
    """A value that goes in pieces: the message to name them in, and the bytes."""

    message: values.TypedValue
    data: bytes


class Cargo:
    """The values of one request. Small ones are written into it at once; large ones are kept, to be taken apart later.

    Taking apart costs some time, and a value's bytes don't change any more, so it may be done in another thread.
    """

    def __init__(self) -> None:
        self._large: list[Large] = []
        self._inline = 0
        self.size = 0
        """How many bytes the large values have together."""
        self.pieces: dict[bytes, memoryview] = {}
        """The pieces by their names, once `take_apart` was called."""

    def load(self, message: values.TypedValue, type_tag: str, data: bytes) -> None:
        """Writes a value into its message, or keeps its bytes."""
        message.type = type_tag
        size = len(data)
        if size <= WHOLE_BYTES and (size <= TINY_BYTES or self._inline + size <= INLINE_BYTES):
            message.data = data
            self._inline += size
        else:
            self._large.append(Large(message, data))
            self.size += size

    def take_apart(self, met: Met) -> None:
        """Cuts the large values and writes the names of their pieces into the messages.

        Args:
            met: Knows the pieces that were met before.
        """
        for message, data in self._large:
            names = []
            for piece, known in cut(data, met):
                name = known or sha256(piece).digest()
                self.pieces[name] = piece
                names.append(name)
            message.pieces.size = len(data)
            message.pieces.names.extend(names)
        self._large.clear()


def pack(name: bytes, piece: memoryview) -> values.Piece:
    """Returns a piece as it is sent: compressed, if it lends itself."""
    if len(piece) > 2 * _SAMPLE_BYTES:
        # What doesn't lend itself takes longest: most often its beginning tells.
        sample = piece[:_SAMPLE_BYTES]
        if len(zlib.compress(sample, 1)) > _WORTH_IT * len(sample):
            return values.Piece(name=name, data=bytes(piece))
    packed = zlib.compress(piece, 1)
    if len(packed) > _WORTH_IT * len(piece):
        return values.Piece(name=name, data=bytes(piece))
    return values.Piece(name=name, data=packed, compression=values.COMPRESSION_ZLIB)


def unpack(pieces: Iterable[values.Piece]) -> list[tuple[bytes, bytes]]:
    """Returns the names and the bytes of pieces that were read. Raises DamagedValueError."""
    return [(piece.name, _unpacked(piece)) for piece in pieces]


def _unpacked(piece: values.Piece) -> bytes:
    data = piece.data
    if piece.compression == values.COMPRESSION_ZLIB:
        try:
            data = zlib.decompressobj().decompress(data, MAX_PIECE_BYTES + 1)
        except zlib.error as error:
            raise DamagedValueError("a piece of a value can't be decompressed") from error
    elif piece.compression != values.COMPRESSION_UNSPECIFIED:
        raise DamagedValueError("a piece of a value is compressed in a way that this client doesn't know")
    if len(piece.name) == DIGEST_BYTES and sha256(data).digest() != piece.name:
        raise DamagedValueError("a piece of a value isn't what was stored: its SHA-256 is another one")
    return data


def piece_sizes(found: Iterable[values.TypedValue]) -> dict[bytes, int]:
    """Returns the names of the pieces that values refer to, in their order, and about how many bytes each has."""
    sizes: dict[bytes, int] = {}
    for value in found:
        if value.HasField("pieces"):
            names = value.pieces.names
            sizes.update(dict.fromkeys(names, value.pieces.size // max(len(names), 1)))
    return sizes


class Contents:
    """The pieces of one read, by name."""

    def __init__(self) -> None:
        self.pieces: dict[bytes, bytes] = {}

    def add(self, unpacked: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes pieces, each with its name. Several threads may do so at once."""
        self.pieces.update(unpacked)

    def lacking(self, sizes: Mapping[bytes, int]) -> dict[bytes, int]:
        """Returns those of the names, with their sizes, of which there are no contents yet."""
        return {name: size for name, size in sizes.items() if name not in self.pieces}

    def bytes_of(self, value: values.TypedValue) -> bytes:
        """Returns a value's serialized bytes. Raises DamagedValueError."""
        if not value.HasField("pieces"):
            return value.data
        data = b"".join([self.pieces[name] for name in value.pieces.names])
        if len(data) != value.pieces.size:
            raise DamagedValueError(f"a value has {len(data)} bytes, where {value.pieces.size} were stored")
        return data


NOTHING = Contents()
"""For values that are whole. Nothing is ever added."""
