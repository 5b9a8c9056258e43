"""Values in pieces: what is refused, what comes along with an answer, and what is asked for after it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info_pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from tests.rpc.conftest import Serve
from tests.rpc.requests import assert_nothing_stored, channel_value, checkpoint, task_write, versions

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


async def test_a_value_there_and_back(client: Any) -> None:
    info = await client.info.GetServerInfo(info_pb.GetServerInfoRequest())
    assert info_pb.CAPABILITY_PIECES in info.capabilities
    parts = [b"raw" * 100, b"packed" * 1000]
    put = put_of(client, *parts, parts[0])
    del put.pieces[:]
    first = await client.checkpoints.PutCheckpoint(put)
    assert (first.version, set(first.missing_pieces)) == (0, set(map(name_of, parts)))
    await assert_nothing_stored(client)
    sent = [raw(parts[0]), packed(parts[1], name=name_of(parts[1]))]
    await client.pieces.PutPieces(pieces_pb.PutPiecesRequest(thread_id="thread-1", pieces=sent))
    stored = await client.checkpoints.PutCheckpoint(put)
    assert stored.version > 0
    assert not stored.missing_pieces
    got = await client.checkpoints.GetCheckpoint(GET)
    (entry,) = got.tuple.values
    assert entry.value == put.values[0].value
    assert await whole(client, entry.value, got.pieces) == parts[0] + parts[1] + parts[0]
    # As it was sent, under the name that it has.
    assert {piece.name: piece.data for piece in got.pieces} == {
        name_of(parts[0]): parts[0],
        name_of(parts[1]): sent[1].data,
    }


async def test_task_writes_there_and_back(client: Any) -> None:
    request = client.writes_request(writes=[task_write(client, value=listed(b"one", b"two"))])
    answer = await client.checkpoints.PutWrites(request)
    assert (answer.version, set(answer.missing_pieces)) == (0, {name_of(b"one"), name_of(b"two")})
    request.pieces.extend([raw(b"one"), raw(b"two")])
    assert not (await client.checkpoints.PutWrites(request)).missing_pieces
    await client.checkpoints.PutCheckpoint(client.put_request())
    got = await client.checkpoints.GetCheckpoint(GET)
    assert await whole(client, got.tuple.pending_writes[0].value, got.pieces) == b"onetwo"


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
    ("GetPieces", "names[1]", 10_240, asked(name_of(b"a"), b"")),
    ("GetPieces", "names[0]", 10_240, asked(b"x" * 10_241)),
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


class TestBatches:
    async def test_puts_bring_pieces_and_each_is_told_what_it_lacks(self, client: Any) -> None:
        complete, lacking = put_of(client, b"one"), put_of(client, b"two", thread_id="thread-2")
        del lacking.pieces[:]
        operations = [
            pb.BatchOperation(put_checkpoint=complete),
            pb.BatchOperation(put_checkpoint=lacking),
            pb.BatchOperation(put_writes=client.writes_request(writes=[task_write(client, value=listed(b"three"))])),
        ]
        results = (await client.checkpoints.Batch(pb.BatchRequest(operations=operations))).results
        assert results[0].put_checkpoint.version
        assert list(results[1].put_checkpoint.missing_pieces) == [name_of(b"two")]
        assert list(results[2].put_writes.missing_pieces) == [name_of(b"three")]

    async def test_many_bytes_of_pieces_are_to_go_alone(self, client: Any) -> None:
        large = put_of(client, bytes(100_000), bytes(50_000))
        writes = client.writes_request(
            writes=[task_write(client, value=listed(bytes(140_000)))], pieces=[raw(bytes(140_000))]
        )
        fitting = put_of(client, bytes(100_000), bytes(31_072), thread_id="thread-2")
        operations = [
            pb.BatchOperation(put_checkpoint=large),
            pb.BatchOperation(put_writes=writes),
            pb.BatchOperation(put_checkpoint=fitting),
        ]
        results = (await client.checkpoints.Batch(pb.BatchRequest(operations=operations))).results
        for result in results[:2]:
            failure = result.failure
            assert (failure.reason, dict(failure.metadata)) == (
                "INVALID_ARGUMENT",
                {"field": "pieces", "limit": "131072"},
            )
        assert results[2].put_checkpoint.version
        assert (await client.checkpoints.PutCheckpoint(large)).version
        assert not (await client.checkpoints.PutWrites(writes)).missing_pieces

    async def test_reads_bring_pieces_or_not(self, client: Any) -> None:
        await client.checkpoints.PutCheckpoint(put_of(client, b"one"))
        without = pb.GetCheckpointRequest(thread_id="thread-1", without_pieces=True)
        operations = [pb.BatchOperation(get_checkpoint=GET), pb.BatchOperation(get_checkpoint=without)]
        results = (await client.checkpoints.Batch(pb.BatchRequest(operations=operations))).results
        assert [len(result.get_checkpoint.pieces) for result in results] == [1, 0]


class TestAnswers:
    async def test_pieces_come_in_the_order_of_the_names_and_no_more_than_fit(self, client: Any) -> None:
        parts = [bytes([number]) * (700 * 1024) for number in range(7)]
        for part in parts:
            await client.pieces.PutPieces(ahead(raw(part))(client))
        put = put_of(client, *parts)
        del put.pieces[:]
        await client.checkpoints.PutCheckpoint(put)
        got = await client.checkpoints.GetCheckpoint(GET)
        assert [piece.data for piece in got.pieces] == parts[:1]
        names = [name_of(part) for part in reversed(parts)]
        answer = await pieces_of(client, *names, names[0])
        assert [piece.name for piece in answer.pieces] == names[:2]
        assert await whole(client, got.tuple.values[0].value) == b"".join(parts)

    async def test_a_read_brings_none_if_it_wants_none(self, client: Any) -> None:
        await client.checkpoints.PutCheckpoint(put_of(client, b"one"))
        got = await client.checkpoints.GetCheckpoint(GET)
        assert [piece.data for piece in got.pieces] == [b"one"]
        without = await client.checkpoints.GetCheckpoint(
            pb.GetCheckpointRequest(thread_id="thread-1", without_pieces=True)
        )
        assert (without.tuple, list(without.pieces)) == (got.tuple, [])

    async def test_a_list_brings_those_of_its_first_checkpoint(self, client: Any) -> None:
        for number in range(5):
            put = put_of(client, b"both", b"%d" % number, checkpoint_id=f"{number}")
            put.values[0].version.integer = put.checkpoint.channel_versions.versions["channel"].integer = number
            await client.checkpoints.PutCheckpoint(put)
        token, seen = "", []
        while True:
            request = pb.ListCheckpointsRequest(thread_id="thread-1", page_size=2, page_token=token)
            page = await client.checkpoints.ListCheckpoints(request)
            first = page.tuples[0]
            assert {piece.name for piece in page.pieces} == set(first.values[0].value.pieces.names)
            seen += [await whole(client, one.values[0].value, page.pieces) for one in page.tuples]
            if not (token := page.next_page_token):
                break
        assert seen == [b"both%d" % number for number in range(4, -1, -1)]
        request = pb.ListCheckpointsRequest(thread_id="thread-1", view=pb.CHECKPOINT_VIEW_METADATA)
        assert not (await client.checkpoints.ListCheckpoints(request)).pieces

    async def test_what_was_deleted_since_is_missing(self, client: Any) -> None:
        await client.checkpoints.PutCheckpoint(put_of(client, b"one"))
        got = await client.checkpoints.GetCheckpoint(GET)
        await client.threads.DeleteThread(threads_pb.DeleteThreadRequest(thread_id="thread-1"))
        answer = await pieces_of(client, *got.tuple.values[0].value.pieces.names)
        assert (list(answer.pieces), list(answer.missing)) == ([], [name_of(b"one")])


class TestWholeValuesThatAreLeftOut:
    """More than a mebibyte of values, or of writes, that were stored whole."""

    async def test_they_are_read_by_the_name_that_tells_where_they_lie(self, client: Any) -> None:
        data = {f"channel-{number}": bytes([number]) * 400_000 for number in range(8)}
        version = values.ChannelVersion(text="v")
        put = client.put_request(
            values=[channel_value(client, channel=c, version=version, value=client.value(d)) for c, d in data.items()]
        )
        put.checkpoint.channel_versions.CopyFrom(versions(**dict.fromkeys(data, version)))
        await client.checkpoints.PutCheckpoint(put)
        writes = [task_write(client, channel=c, idx=i, value=client.value(d)) for i, (c, d) in enumerate(data.items())]
        await client.checkpoints.PutWrites(client.writes_request(writes=writes))
        got = await client.checkpoints.GetCheckpoint(GET)
        assert got.ByteSize() < 3 * MEBIBYTE
        for entries in (got.tuple.values, got.tuple.pending_writes):
            left_out = [entry for entry in entries if entry.value.HasField("pieces")]
            assert len(left_out) == 6
            for entry in left_out:
                assert not entry.value.data
                assert entry.value.type == "msgpack"
            found = {
                entry.channel: await whole(client, entry.value) if entry.value.HasField("pieces") else entry.value.data
                for entry in entries
            }
            assert found == data

    async def test_several_come_in_one_answer_and_those_that_are_gone_are_missing(self, client: Any) -> None:
        version = values.ChannelVersion(text="v")
        data = {f"channel-{number}": bytes([number]) * 900_000 for number in range(4)}
        put = client.put_request(
            values=[channel_value(client, channel=c, version=version, value=client.value(d)) for c, d in data.items()]
        )
        put.checkpoint.channel_versions.CopyFrom(versions(**dict.fromkeys(data, version)))
        await client.checkpoints.PutCheckpoint(put)
        got = await client.checkpoints.GetCheckpoint(GET)
        names = [e.value.pieces.names[0] for e in got.tuple.values if e.value.HasField("pieces")]
        answer = await pieces_of(client, place("value", "", "no such", "sv"), *names)
        assert list(answer.missing) == [place("value", "", "no such", "sv")]
        assert [piece.name for piece in answer.pieces] == names[:2]

    async def test_the_longest_keys_that_there_can_be(self, client: Any) -> None:
        """In JSON, control characters are six times as long."""
        keys = {"thread_id": "\1" * 512, "checkpoint_ns": "\1" * 1024, "checkpoint_id": "\1" * 128}
        channel, version = "\1" * 256, values.ChannelVersion(text="\1" * 128)
        put = client.put_request(
            **keys,
            values=[channel_value(client, channel=channel, version=version, value=client.value(bytes(1_200_000)))],
        )
        put.checkpoint.channel_versions.versions[channel].CopyFrom(version)
        await client.checkpoints.PutCheckpoint(put)
        write = task_write(client, channel=channel, idx=2**31 - 1, value=client.value(bytes(1_200_000)))
        await client.checkpoints.PutWrites(client.writes_request(**keys, task_id="\1" * 128, writes=[write]))
        got = await client.checkpoints.GetCheckpoint(
            pb.GetCheckpointRequest(thread_id=keys["thread_id"], checkpoint_ns=keys["checkpoint_ns"])
        )
        for entry in (*got.tuple.values, *got.tuple.pending_writes):
            (name,) = entry.value.pieces.names
            answer = await pieces_of(client, name, thread_id=keys["thread_id"])
            assert [piece.data for piece in answer.pieces] == [bytes(1_200_000)]

    @pytest.mark.parametrize("length", range(1, 24))
    async def test_a_name_never_looks_like_a_digest(self, client: Any, length: int) -> None:
        version = values.ChannelVersion(text="v")
        put = client.put_request(
            values=[channel_value(client, channel="c" * length, version=version, value=client.value(bytes(1_200_000)))]
        )
        put.checkpoint.channel_versions.versions["c" * length].CopyFrom(version)
        await client.checkpoints.PutCheckpoint(put)
        got = await client.checkpoints.GetCheckpoint(GET)
        (name,) = got.tuple.values[0].value.pieces.names
        assert len(name) != 32
        assert len((await pieces_of(client, name)).pieces) == 1


def place(*parts: object) -> bytes:
    """A name that tells where a value lies, as a client might make it up."""
    return json.dumps(parts).encode()


class TestNamesThatAreMadeUp:
    @pytest.mark.parametrize(
        "name",
        [
            b"x",
            b"\xff\xfe\xfd",
            b"null",
            b"{}",
            b"[]",
            b"[" * 10_000,
            b'{"a":' * 2000,
            b"[" + b"9" * 10_000 + b"]",
            b'["value", "", "channel", 1]',
            b'["value", "", "channel", "t1", "more"]',
            b'["value", "", "channel", true]',
            b'["value", "", "channel", "\\ud800"]',
            b'["value", "", "channel", "\\u0000"]',
            b'["write", "", "1", "task", 99999999999]',
            b'["write", "", "1", "task", 1e3]',
            b'["write", "", "1", "task", NaN]',
            b'["write", "", "1", "task", "0"]',
            b'["thread", "thread-1"]',
            place("value", "'; DROP TABLE checkpoints; --", "channel", "i1"),
            '["value", "", "channel", "i1"]'.encode("utf-16"),
        ],
    )
    async def test_there_is_nothing(self, client: Any, name: bytes) -> None:
        answer = await pieces_of(client, name)
        assert (list(answer.pieces), list(answer.missing)) == ([], [name])

    async def test_they_reach_the_thread_that_was_asked_for_and_no_other(
        self, client: Any, store: CheckpointStore
    ) -> None:
        version = values.ChannelVersion(text="v")
        for thread_id, ns in (("thread-1", ""), ("thread-1", "inner"), ("thread-2", "")):
            data = f"{thread_id} {ns}".encode()
            put = client.put_request(
                thread_id=thread_id,
                checkpoint_ns=ns,
                values=[channel_value(client, version=version, value=client.value(data))],
            )
            await client.checkpoints.PutCheckpoint(put)
        listed = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(thread_id="thread-1"))
        assert len(listed.tuples) == 2
        stored = "sv"
        answer = await pieces_of(
            client, place("value", "inner", "channel", stored), place("value", "", "channel", stored)
        )
        assert [piece.data for piece in answer.pieces] == [b"thread-1 inner", b"thread-1 "]
        name = place("value", "", "channel", stored)
        assert [piece.data for piece in (await pieces_of(client, name, thread_id="thread-2")).pieces] == [b"thread-2 "]
        for tenant in ("other", ""):
            found = await store.get_pieces(tenant, "thread-1", [name], timeout=20)
            assert (found.pieces, found.missing) == ([], [name])

    async def test_a_list_of_pieces_is_not_read_as_a_value(self, client: Any) -> None:
        await client.checkpoints.PutCheckpoint(put_of(client, b"one"))
        name = place("value", "", "channel", "i1")
        assert list((await pieces_of(client, name)).missing) == [name]
