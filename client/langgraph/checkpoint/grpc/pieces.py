"""Large values as pieces: taken apart for a put, told apart by name, and put together after a read."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from langgraph.checkpoint.grpc.cutting import cut
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
MAX_KNOWN = 100_000
"""How many names of pieces are remembered: about 15 MB of memory."""

_DIGEST_BYTES = 32
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

    def take_apart(self) -> None:
        """Cuts the large values and writes the names of their pieces into the messages."""
        for message, data in self._large:
            names = []
            for piece in cut(data):
                name = sha256(piece).digest()
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
    if len(piece.name) == _DIGEST_BYTES and sha256(data).digest() != piece.name:
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


class KnownPieces:
    """Which pieces the server has, by thread, as far as they were sent or received here. Forgets what is oldest.

    To know one that the server has deleted since does no harm: it says so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: OrderedDict[str, dict[bytes, None]] = OrderedDict()
        self._count = 0

    def add(self, thread_id: str, names: Collection[bytes]) -> None:
        """Notes that a thread has pieces."""
        digests = [name for name in names if len(name) == _DIGEST_BYTES]
        if not digests:
            return
        with self._lock:
            known = self._threads.setdefault(thread_id, {})
            self._threads.move_to_end(thread_id)
            self._count -= len(known)
            for name in digests:
                # To the end: the newest ones are those that come again.
                known.pop(name, None)
                known[name] = None
            while len(known) > MAX_KNOWN:
                del known[next(iter(known))]
            self._count += len(known)
            while self._count > MAX_KNOWN:
                self._count -= len(self._threads.popitem(last=False)[1])

    def remove(self, thread_id: str, names: Iterable[bytes]) -> None:
        """Notes that a thread doesn't have pieces."""
        with self._lock:
            known = self._threads.get(thread_id, {})
            for name in names:
                if name in known:
                    del known[name]
                    self._count -= 1

    def unknown(self, thread_id: str, names: Iterable[bytes]) -> list[bytes]:
        """Returns those of the pieces that a thread isn't known to have."""
        with self._lock:
            known = self._threads.get(thread_id, {})
            return [name for name in names if name not in known]


class Contents:
    """Pieces that were read, by name.

    Args:
        kept_bytes: How much is kept for what is read next, after `trim`. A list's checkpoints share most pieces.
    """

    def __init__(self, kept_bytes: int = 0) -> None:
        self._kept_bytes = kept_bytes
        self._pieces: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._left_out: dict[bytes, bytes] = {}
        """Values that were stored whole. Their names tell where they lie, and mean nothing on another thread."""

    def add(self, unpacked: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes pieces, each with its name."""
        for name, data in unpacked:
            if len(name) != _DIGEST_BYTES:
                self._left_out[name] = data
            elif name not in self._pieces:
                self._pieces[name] = data
                self._size += len(data)

    def lacking(self, sizes: Mapping[bytes, int]) -> dict[bytes, int]:
        """Returns those of the names, with their sizes, of which there are no contents yet."""
        return {name: size for name, size in sizes.items() if name not in self._pieces and name not in self._left_out}

    def bytes_of(self, value: values.TypedValue) -> bytes:
        """Returns a value's serialized bytes. Raises DamagedValueError."""
        return self._join(value.pieces) if value.HasField("pieces") else value.data

    def _join(self, pieces: values.PieceList) -> bytes:
        names = pieces.names
        if self._left_out and len(names) == 1 and names[0] in self._left_out:
            data = self._left_out[names[0]]
        else:
            data = b"".join([self._pieces[name] for name in names])
        if len(data) != pieces.size:
            raise DamagedValueError(f"a value has {len(data)} bytes, where {pieces.size} were stored")
        if self._kept_bytes:
            for name in names:
                if name in self._pieces:
                    self._pieces.move_to_end(name)
        return data

    def trim(self) -> None:
        """Forgets what has been of no use for longest, but for what is kept, and all that means nothing elsewhere."""
        self._left_out.clear()
        while self._size > self._kept_bytes:
            self._size -= len(self._pieces.popitem(last=False)[1])


NOTHING = Contents()
"""For values that are whole. Nothing is ever added."""
