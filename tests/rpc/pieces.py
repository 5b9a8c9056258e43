"""Values in pieces, as requests have them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import values_pb2 as values
from tests.rpc.requests import channel_value

MEBIBYTE = 1024 * 1024
GET = pb.GetCheckpointRequest(thread_id="thread-1")


def name_of(data: bytes) -> bytes:
    return sha256(data).digest()


def raw(data: bytes, **fields: Any) -> values.Piece:
    return values.Piece(data=data, **fields)


def packed(data: bytes, **fields: Any) -> values.Piece:
    return values.Piece(data=zlib.compress(data), compression=values.COMPRESSION_ZLIB, **fields)


def listed(*parts: bytes, size: int | None = None, names: Sequence[bytes] | None = None) -> values.TypedValue:
    """A value of these pieces."""
    pieces = values.PieceList(
        size=sum(map(len, parts)) if size is None else size,
        names=[name_of(part) for part in parts] if names is None else names,
    )
    return values.TypedValue(type="msgpack", pieces=pieces)


def put_of(client: Any, *parts: bytes, **fields: Any) -> pb.PutCheckpointRequest:
    """A put of a channel with these pieces, which it brings along."""
    request: pb.PutCheckpointRequest = client.put_request(
        values=[channel_value(client, value=listed(*parts))], pieces=[raw(part) for part in parts], **fields
    )
    request.checkpoint.channel_versions.versions["channel"].integer = 1
    return request


async def pieces_of(client: Any, *names: bytes, thread_id: str = "thread-1") -> pieces_pb.GetPiecesResponse:
    request = pieces_pb.GetPiecesRequest(thread_id=thread_id, names=names)
    answer: pieces_pb.GetPiecesResponse = await client.pieces.GetPieces(request, timeout=20)
    return answer


async def whole(client: Any, value: values.TypedValue, along: Sequence[values.Piece] = ()) -> bytes:
    """Reads what is lacking of a value, call by call, and puts it together."""
    found = {piece.name: piece for piece in along}
    while lacking := [name for name in dict.fromkeys(value.pieces.names) if name not in found]:
        answer = await pieces_of(client, *lacking)
        assert answer.pieces
        assert not answer.missing
        assert answer.ByteSize() < 4 * MEBIBYTE
        found.update((piece.name, piece) for piece in answer.pieces)
    data = b"".join(
        zlib.decompress(found[name].data) if found[name].compression else found[name].data
        for name in value.pieces.names
    )
    assert len(data) == value.pieces.size
    return data
