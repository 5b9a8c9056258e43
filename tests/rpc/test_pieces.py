"""Values in pieces: what is refused, what comes along with an answer, and what is asked for after it."""

from __future__ import annotations

from typing import Any

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info_pb
from checkpointd.v1 import piece_service_pb2 as pieces_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from tests.rpc.pieces import GET, listed, name_of, packed, pieces_of, put_of, raw, whole
from tests.rpc.requests import assert_nothing_stored, task_write


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
            await client.pieces.PutPieces(pieces_pb.PutPiecesRequest(thread_id="thread-1", pieces=[raw(part)]))
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
