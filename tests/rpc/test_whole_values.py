"""Values that were stored whole and left out of an answer: their names tell where they lie, and reach no further."""

from __future__ import annotations

import json
from typing import Any

import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.store import CheckpointStore
from tests.rpc.pieces import GET, MEBIBYTE, pieces_of, put_of, whole
from tests.rpc.requests import channel_value, task_write, versions


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
        keys = {"thread_id": "\1" * 512, "checkpoint_ns": "\1" * 1408, "checkpoint_id": "\1" * 128}
        channel, version = "\1" * 512, values.ChannelVersion(text="\1" * 128)
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
