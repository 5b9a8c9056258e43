"""Pieces of large values: PieceService, and what other services' messages have of them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256

from checkpointd.v1 import piece_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.model import Piece, PieceList, TypedValue
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc.validation import check_batch, check_text

DIGEST_BYTES = 32
"""How long a piece's name is: a SHA-256."""
_MAX_NAME_BYTES = 14 * 1024
"""The longest name that GetPieces is given: one that tells where a value lies holds its key, as JSON."""
INLINE_BYTES = 128 * 1024
"""Up to how many bytes of pieces are unpacked in the event loop; more would hold up the other calls."""


class PieceServicer:
    """Stores and reads pieces of a store. Each method takes a request and returns the encoded response."""

    def __init__(self, store: CheckpointStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    async def put_pieces(self, request: pb.PutPiecesRequest, tenant: str, timeout: float | None) -> bytes:
        """Stores pieces ahead of a put."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        pieces = await read_pieces(request.pieces, self._limits)
        if pieces:
            await self._store.put_pieces(tenant, request.thread_id, pieces, timeout=timeout)
        return pb.PutPiecesResponse().SerializeToString()

    async def get_pieces(self, request: pb.GetPiecesRequest, tenant: str, timeout: float | None) -> bytes:
        """Reads pieces."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        names = list(dict.fromkeys(request.names))
        check_batch(names, "names", self._limits.max_pieces)
        for position, name in enumerate(names):
            if not 0 < len(name) <= _MAX_NAME_BYTES:
                raise InvalidArgument(
                    f"names[{position}]",
                    f"has {len(name)} bytes, 1 to {_MAX_NAME_BYTES} are allowed",
                    limit=_MAX_NAME_BYTES,
                )
        response = pb.GetPiecesResponse()
        if names:
            found = await self._store.get_pieces(tenant, request.thread_id, names, timeout=timeout)
            write_pieces(found.pieces, response.pieces)
            response.missing.extend(found.missing)
        return response.SerializeToString()


def read_value(message: values.TypedValue, field: str, channel: str, limits: Limits) -> TypedValue:
    """Returns a channel's value. Raises InvalidArgument."""
    if not message.HasField("pieces"):
        return TypedValue(message.type, message.data)
    if message.data:
        raise InvalidArgument(f"{field}.data", "must be empty where pieces make the value")
    size, names = message.pieces.size, list(message.pieces.names)
    if size > limits.max_value_bytes:
        limit = limits.max_value_bytes
        raise InvalidArgument(
            f"{field}.pieces.size",
            f"channel {channel!r} has a value of {size} bytes, at most {limit} are allowed (--max-value-bytes)",
            limit=limit,
        )
    check_batch(names, f"{field}.pieces.names", limits.max_pieces)
    for position, name in enumerate(names):
        if len(name) != DIGEST_BYTES:
            raise InvalidArgument(
                f"{field}.pieces.names[{position}]", f"has {len(name)} bytes, a SHA-256 has {DIGEST_BYTES}"
            )
    if not len(names) <= size <= len(names) * limits.max_piece_bytes or not names:
        raise InvalidArgument(
            f"{field}.pieces.size",
            f"is {size}, which {len(names)} pieces of 1 to {limits.max_piece_bytes} bytes can't make",
        )
    return TypedValue(message.type, b"", PieceList(size, names))


def check_whole(message: values.TypedValue, field: str) -> None:
    """Checks a value that can't be a list of pieces. Raises InvalidArgument."""
    if message.HasField("pieces"):
        raise InvalidArgument(f"{field}.pieces", "must be unset: only channel values and task writes may be in pieces")


async def read_pieces(messages: Collection[values.Piece], limits: Limits) -> list[Piece]:
    """Returns pieces under the names that they really have, each once. Raises InvalidArgument."""
    if not messages:
        return []
    check_batch(messages, "pieces", limits.max_pieces)  # type: ignore[arg-type]
    if sum(len(message.data) for message in messages) <= INLINE_BYTES:
        return _name_pieces(messages, limits)
    return await asyncio.to_thread(_name_pieces, messages, limits)


def _name_pieces(messages: Iterable[values.Piece], limits: Limits) -> list[Piece]:
    pieces: dict[bytes, Piece] = {}
    for position, message in enumerate(messages):
        name = sha256(_unpacked(message, f"pieces[{position}]", limits.max_piece_bytes)).digest()
        if message.name and message.name != name:
            raise InvalidArgument(f"pieces[{position}].name", "is not the SHA-256 of the piece's bytes")
        pieces[name] = Piece(name, message.data, message.compression)
    return list(pieces.values())


def _unpacked(message: values.Piece, field: str, limit: int) -> bytes:
    """Returns a piece's bytes as they were before compression; never more than a piece may have."""
    data = message.data
    if not 0 < len(data) <= limit:
        raise InvalidArgument(f"{field}.data", f"has {len(data)} bytes, 1 to {limit} are allowed", limit=limit)
    if message.compression == values.COMPRESSION_UNSPECIFIED:
        return data
    if message.compression != values.COMPRESSION_ZLIB:
        raise InvalidArgument(f"{field}.compression", f"{message.compression} is unknown to this server")
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(data, limit + 1)
    except zlib.error:
        raise InvalidArgument(f"{field}.data", "is not zlib data") from None
    if not 0 < len(unpacked) <= limit:
        raise InvalidArgument(f"{field}.data", f"must hold 1 to {limit} bytes once it is decompressed", limit=limit)
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidArgument(f"{field}.data", "is not one whole zlib stream")
    return unpacked


def write_value(value: TypedValue, message: values.TypedValue) -> None:
    """Fills a value in."""
    message.type, message.data, pieces = value
    if pieces is not None:
        message.pieces.size = pieces.size
        message.pieces.names.extend(pieces.names)


def write_pieces(pieces: Sequence[Piece], messages: Collection[values.Piece]) -> None:
    """Fills a list of pieces in."""
    for name, data, compression in pieces:
        messages.add(name=name, data=data, compression=compression)  # type: ignore[attr-defined]
