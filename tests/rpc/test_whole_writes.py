"""Task writes for clients that don't ask for patches: whole, or left out and read in ranges."""

from __future__ import annotations

import random
from typing import Any
from zlib import crc32

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from tests.rpc.requests import get, growing, patch, put_chain, task_write

MEBIBYTE = 1024 * 1024


class TestTaskWrites:
    """Task writes that are patches on a channel's value are sent whole, as values are."""

    async def put_writes(self, client: Any, *wholes: bytes, base: str, of: bytes, checkpoint_id: str = "0001") -> None:
        writes = [
            task_write(client, idx=idx, value=patch(base, of, whole) if base else client.value(whole))
            for idx, whole in enumerate(wholes)
        ]
        await client.checkpoints.PutWrites(client.writes_request(checkpoint_id=checkpoint_id, writes=writes))

    def request(self, checkpoint_id: str, idx: int, **fields: Any) -> values_pb.GetValueRequest:
        key = values_pb.KnownTaskWrite(checkpoint_id=checkpoint_id, task_id="task-1", idx=idx)
        return values_pb.GetValueRequest(thread_id="thread-1", task_write=key, **fields)

    async def read_all(self, client: Any, idx: int, *, most: int = 0, checkpoint_id: str = "0001") -> bytes:
        data = bytearray()
        while True:
            request = self.request(checkpoint_id, idx, offset=len(data), max_bytes=most)
            answer = await client.values.GetValue(request)
            assert answer.found
            data += answer.data
            if len(data) == answer.size:
                assert answer.crc32 in (0, crc32(data))
                return bytes(data)

    async def test_they_come_whole(self, client: Any) -> None:
        first, second, third = growing(3, 100)
        await put_chain(client, first, second)
        await self.put_writes(client, third, second, first, base="s1", of=second)
        expected = [client.value(third), client.value(second), client.value(first)]
        got = await get(client)
        assert [write.value for write in got.tuple.pending_writes] == expected
        page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(thread_id="thread-1"))
        assert [[w.value for w in one.pending_writes] for one in page.tuples] == [expected, []]
        assert not page.stored_values
        # A client that asks for patches gets them as they are stored.
        got = await get(client, patches=True)
        assert [write.value.patch.base_version for write in got.tuple.pending_writes] == ["s1", "s1", "s1"]
        assert sorted(row.version for row in got.stored_values) == ["s0", "s1"]
        known = values.KnownValue(channel="channel", version="s1", crc32=crc32(second))
        assert not (await get(client, patches=True, known=[known])).stored_values

    async def test_beside_a_checkpoint_without_channels(self, client: Any) -> None:
        await put_chain(client, b"first" * 20)
        await client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id="0001"))
        await self.put_writes(client, b"first" * 21, base="s0", of=b"first" * 20)
        got = await get(client)
        assert not got.tuple.values
        assert [write.value for write in got.tuple.pending_writes] == [client.value(b"first" * 21)]

    async def test_in_histories(self, client: Any) -> None:
        first, second, third = growing(3, 100)
        await put_chain(client, first, second)
        await self.put_writes(client, third, first, base="s1", of=second)
        await client.checkpoints.PutCheckpoint(
            client.put_request(
                checkpoint_id="0002", parent_checkpoint_id="0001", channels=["channel"], channel_versions=["s2"]
            )
        )
        request = pb.GetDeltaChannelHistoryRequest(thread_id="thread-1", channels=["channel", "other", "channel"])
        history = (await client.checkpoints.GetDeltaChannelHistory(request)).channels
        assert [write.value for write in history[0].writes] == [client.value(third), client.value(first)]
        assert (history[0], history[0].seed) == (history[2], client.value(second))
        request.patches = True
        answer = await client.checkpoints.GetDeltaChannelHistory(request)
        assert [write.value.patch.base_version for write in answer.channels[0].writes] == ["s1", "s1"]
        assert sorted(row.version for row in answer.stored_values) == ["s0", "s1"]

    async def test_what_would_be_large_is_left_out_and_read_in_ranges(self, client: Any) -> None:
        wholes = [random.Random(1).randbytes(300_000)]
        wholes.append(wholes[0] + b"more")
        await put_chain(client, *wholes)
        written = [wholes[1] + b"%d" % number for number in range(3)]
        await self.put_writes(client, *written, base="s1", of=wholes[1])
        got = await get(client)
        assert got.ByteSize() < MEBIBYTE
        left_out = [write.value.parts.size for write in got.tuple.pending_writes if write.value.HasField("parts")]
        assert left_out == [300_005] * len(left_out)
        assert len(left_out) >= 2
        for idx, whole in enumerate(written):
            assert await self.read_all(client, idx, most=100_000) == await self.read_all(client, idx) == whole
        # A write that was stored whole, and is large.
        await self.put_writes(client, wholes[0] * 3, base="", of=b"", checkpoint_id="0000")
        assert await self.read_all(client, 0, checkpoint_id="0000") == wholes[0] * 3

    async def test_sealed_ones_are_for_who_has_the_key(self, client: Any) -> None:
        await put_chain(client, b"whole" * 20)
        described = values.Patch(base_version="s0", size=7, crc32=crc32(b"???"), sealed=True)
        sealed = values.TypedValue(type="msgpack+xaes", data=b"???", patch=described)
        await client.checkpoints.PutWrites(
            client.writes_request(checkpoint_id="0000", writes=[task_write(client, value=sealed)])
        )
        (write,) = (await get(client)).tuple.pending_writes
        assert write.value == values.TypedValue(type="msgpack+xaes", parts=values.Parts(size=7))
        (write,) = (await get(client, patches=True)).tuple.pending_writes
        assert write.value == sealed
        request = self.request("0000", 0)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.values.GetValue(request)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        request.patches = True
        assert (await client.values.GetValue(request)).data == b"???"

    async def test_what_does_not_make_what_it_says_is_never_shown(self, client: Any) -> None:
        await put_chain(client, b"whole" * 20)
        wrong = patch("s0", b"whole" * 20, b"whole" * 21)
        wrong.patch.crc32 ^= 1
        writes = [task_write(client, value=wrong)]
        await client.checkpoints.PutWrites(client.writes_request(checkpoint_id="0000", writes=writes))
        (write,) = (await get(client)).tuple.pending_writes
        assert write.value == values.TypedValue(type="msgpack", parts=values.Parts(size=105))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.values.GetValue(self.request("0000", 0))
        assert refused.value.code() is grpc.StatusCode.DATA_LOSS
