"""Pieces, and values in pieces, that are refused: each names its field and changes nothing."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import grpc
import pytest

from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from tests.rpc.pieces import GET, MEBIBYTE, listed, name_of, packed, pieces_of, put_of, raw, whole
from tests.rpc.requests import assert_nothing_stored, channel_value, checkpoint, task_write
from tests.rpc.serving import Serve

Make = Callable[[Any], Any]


def with_value(value: values.TypedValue) -> Make:
    return lambda client: client.put_request(values=[channel_value(client, value=value)])


def with_write(value: values.TypedValue) -> Make:
    return lambda client: client.writes_request(writes=[task_write(client), task_write(client, idx=1, value=value)])


def with_pieces(*pieces: values.Piece) -> Make:
    return lambda client: client.put_request(pieces=pieces)


def ahead(*pieces: values.Piece, thread_id: str = "thread-1") -> Make:
    return lambda client: pieces_pb.PutPiecesRequest(thread_id=thread_id, pieces=pieces)


def asked(*names: bytes, thread_id: str = "thread-1") -> Make:
    return lambda client: pieces_pb.GetPiecesRequest(thread_id=thread_id, names=names)


def inside(piece_list: values.PieceList) -> values.TypedValue:
    return values.TypedValue(type="msgpack", pieces=piece_list)


VALUE = "values[0].value"
BOMB = values.Piece(data=zlib.compress(bytes(200 * MEBIBYTE), 9), compression=values.COMPRESSION_ZLIB)

REFUSED: list[tuple[str, str, int | None, Make]] = [
    (
        "PutCheckpoint",
        f"{VALUE}.data",
        None,
        with_value(values.TypedValue(type="t", data=b"x", pieces=listed(b"a").pieces)),
    ),
    ("PutCheckpoint", f"{VALUE}.pieces.size", None, with_value(inside(values.PieceList()))),
    ("PutCheckpoint", f"{VALUE}.pieces.size", None, with_value(listed(b"a", size=0))),
    ("PutCheckpoint", f"{VALUE}.pieces.size", None, with_value(listed(b"a", b"b", size=1))),
    ("PutCheckpoint", f"{VALUE}.pieces.size", None, with_value(listed(b"a", size=-1))),
    ("PutCheckpoint", f"{VALUE}.pieces.size", None, with_value(listed(b"a", size=MEBIBYTE + 1))),
    ("PutCheckpoint", f"{VALUE}.pieces.size", 1024 * MEBIBYTE, with_value(listed(b"a", size=1024 * MEBIBYTE + 1))),
    ("PutCheckpoint", f"{VALUE}.pieces.names[1]", None, with_value(listed(size=9, names=[name_of(b"a"), b"short"]))),
    ("PutCheckpoint", f"{VALUE}.pieces.names[0]", None, with_value(listed(size=9, names=[b""]))),
    ("PutCheckpoint", f"{VALUE}.pieces.names[0]", None, with_value(listed(size=9, names=[b'["value","","c","1"]']))),
    (
        "PutCheckpoint",
        f"{VALUE}.pieces.names",
        65_536,
        with_value(listed(size=MEBIBYTE, names=[name_of(b"a")] * 65_537)),
    ),
    ("PutCheckpoint", f"{VALUE}.type", None, with_value(values.TypedValue(pieces=listed(b"a").pieces))),
    (
        "PutCheckpoint",
        "metadata.value.pieces",
        None,
        lambda c: c.put_request(metadata=values.Metadata(value=listed(b"a"))),
    ),
    (
        "PutCheckpoint",
        "checkpoint.extra.pieces",
        None,
        lambda c: c.put_request(checkpoint=checkpoint(extra=listed(b"a"))),
    ),
    ("PutCheckpoint", "pieces[0].data", MEBIBYTE, with_pieces(raw(b""))),
    ("PutCheckpoint", "pieces[1].name", None, with_pieces(raw(b"a"), raw(b"b", name=name_of(b"a")))),
    (
        "PutWrites",
        "writes[1].value.data",
        None,
        with_write(values.TypedValue(type="t", data=b"x", pieces=listed(b"a").pieces)),
    ),
    ("PutWrites", "writes[1].value.pieces.size", None, with_write(listed(b"a", size=0))),
    ("PutWrites", "writes[1].value.pieces.names[0]", None, with_write(listed(size=9, names=[b"short"]))),
    ("PutWrites", "pieces[0].data", MEBIBYTE, lambda c: c.writes_request(pieces=[raw(b"")])),
    ("PutPieces", "thread_id", None, ahead(raw(b"a"), thread_id="")),
    ("PutPieces", "thread_id", 512, ahead(raw(b"a"), thread_id="t" * 513)),
    ("PutPieces", "thread_id", None, ahead(raw(b"a"), thread_id="t\0")),
    ("PutPieces", "pieces", 65_536, ahead(*[raw(b"a")] * 65_537)),
    ("PutPieces", "pieces[0].data", MEBIBYTE, ahead(raw(b""))),
    ("PutPieces", "pieces[1].data", MEBIBYTE, ahead(raw(b"a"), raw(bytes(MEBIBYTE + 1)))),
    ("PutPieces", "pieces[0].data", MEBIBYTE, ahead(packed(b""))),
    ("PutPieces", "pieces[0].data", MEBIBYTE, ahead(packed(bytes(MEBIBYTE + 1)))),
    ("PutPieces", "pieces[0].data", MEBIBYTE, ahead(BOMB)),
    ("PutPieces", "pieces[0].data", None, ahead(values.Piece(data=b"no zlib", compression=values.COMPRESSION_ZLIB))),
    (
        "PutPieces",
        "pieces[0].data",
        None,
        ahead(values.Piece(data=packed(b"a" * 99).data[:-1], compression=values.COMPRESSION_ZLIB)),
    ),
    (
        "PutPieces",
        "pieces[0].data",
        None,
        ahead(values.Piece(data=packed(b"a").data + b"more", compression=values.COMPRESSION_ZLIB)),
    ),
    ("PutPieces", "pieces[0].compression", None, ahead(values.Piece(data=b"a", compression=7))),  # type: ignore[arg-type]
    ("PutPieces", "pieces[0].name", None, ahead(packed(b"a", name=sha256(packed(b"a").data).digest()))),
    ("PutPieces", "pieces[0].name", None, ahead(raw(b"a", name=b"a"))),
    ("GetPieces", "thread_id", None, asked(name_of(b"a"), thread_id="")),
    ("GetPieces", "names[1]", 14_336, asked(name_of(b"a"), b"")),
    ("GetPieces", "names[0]", 14_336, asked(b"x" * 14_337)),
    ("GetPieces", "names", 65_536, asked(*[b"%d" % number for number in range(65_537)])),
]


@pytest.mark.parametrize(
    ("method", "field", "limit", "make"),
    REFUSED,
    ids=[f"{number}-{method}-{field}" for number, (method, field, _, _) in enumerate(REFUSED)],
)
async def test_what_is_refused_names_its_field_and_changes_nothing(
    client: Any, method: str, field: str, limit: int | None, make: Make
) -> None:
    service = client.pieces if method.endswith("Pieces") else client.checkpoints
    refusal = await client.refused(getattr(service, method)(make(client), timeout=20))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert refusal.metadata == {"field": field, **({} if limit is None else {"limit": str(limit)})}
    assert refusal.message.startswith(f"{field}: ")
    await assert_nothing_stored(client)
    assert list((await pieces_of(client, name_of(b"a"))).missing) == [name_of(b"a")]


async def test_what_just_keeps_the_limits_is_taken(client: Any) -> None:
    largest = bytes(range(256)) * 4096
    await client.pieces.PutPieces(ahead(raw(largest), packed(bytes(MEBIBYTE)), raw(b"a"), raw(b"a"))(client))
    put = put_of(client, largest, bytes(MEBIBYTE), b"a")
    del put.pieces[:]
    assert (await client.checkpoints.PutCheckpoint(put)).version
    many = [raw(b"%d" % number) for number in range(65_536)]
    await client.pieces.PutPieces(ahead(*many)(client), timeout=60)
    names = [name_of(piece.data) for piece in many]
    put = client.put_request(checkpoint_id="checkpoint-2")
    put.values.add(channel="channel", version=values.ChannelVersion(integer=2)).value.CopyFrom(
        listed(size=sum(len(piece.data) for piece in many), names=names)
    )
    put.checkpoint.channel_versions.versions["channel"].integer = 2
    assert (await client.checkpoints.PutCheckpoint(put, timeout=60)).version
    got = await client.checkpoints.GetCheckpoint(GET)
    assert list(got.tuple.values[0].value.pieces.names) == names
    assert await whole(client, got.tuple.values[0].value, got.pieces) == b"".join(piece.data for piece in many)
    assert (await client.pieces.PutPieces(ahead()(client))) == pieces_pb.PutPiecesResponse()
    assert (await pieces_of(client)) == pieces_pb.GetPiecesResponse()


async def test_the_largest_value_is_an_option(serve: Serve) -> None:
    async with serve(limits=Limits(max_value_bytes=10)) as (_, client):
        refusal = await client.refused(client.checkpoints.PutCheckpoint(put_of(client, b"12345", b"678901")))
        assert refusal.metadata == {"field": "values[0].value.pieces.size", "limit": "10"}
        assert "'channel' has a value of 11 bytes, at most 10 are allowed (--max-value-bytes)" in refusal.message
        assert (await client.checkpoints.PutCheckpoint(put_of(client, b"12345", b"67890"))).version
