"""Values for clients that don't ask for patches: whole, however they are stored, or left out and read in ranges."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from zlib import crc32

import asyncpg
import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.rpc.values.ranges import RangeOptions
from tests.rpc.requests import channels, get, growing, patch, put_chain, task_write
from tests.rpc.serving import Serve

GET = pb.GetCheckpointRequest(thread_id="thread-1")
MEBIBYTE = 1024 * 1024


async def read(client: Any, version: str, **fields: Any) -> values_pb.GetValueResponse:
    known = values_pb.KnownChannelValue(channel="channel", version=version)
    answer: values_pb.GetValueResponse = await client.values.GetValue(
        values_pb.GetValueRequest(thread_id="thread-1", channel_value=known, **fields)
    )
    return answer


async def read_all(client: Any, version: str, **fields: Any) -> bytes:
    """Reads a value range by range."""
    data = b""
    while True:
        answer = await read(client, version, offset=len(data), **fields)
        assert answer.found
        data += answer.data
        if len(data) == answer.size:
            return data
        assert answer.data


class TestReads:
    async def test_chains_come_whole(self, client: Any) -> None:
        wholes = growing(20, 100)
        await put_chain(client, *wholes)
        for number, whole in enumerate(wholes):
            (value,) = (await get(client, checkpoint_id=f"{number:04}")).tuple.values
            assert value == values.ChannelValue(channel="channel", version=f"s{number}", value=client.value(whole))

    async def test_lists_have_them_whole_on_each_of_their_checkpoints(self, client: Any) -> None:
        wholes = growing(12, 100)
        await put_chain(client, *wholes)
        await put_chain(client, *reversed(wholes[:3]), checkpoint_ns="inner")
        request = pb.ListCheckpointsRequest(thread_id="thread-1", all_namespaces=True)
        page = await client.checkpoints.ListCheckpoints(request)
        assert not page.stored_values
        found = {(one.checkpoint_ns, one.checkpoint_id): one.values[0].value for one in page.tuples}
        assert found == {
            **{("", f"{number:04}"): client.value(whole) for number, whole in enumerate(wholes)},
            **{("inner", f"{number:04}"): client.value(whole) for number, whole in enumerate(reversed(wholes[:3]))},
        }

    async def test_a_page_is_cut_where_whole_values_are_much_larger_than_what_is_stored(self, client: Any) -> None:
        """A value of 300 KB: each checkpoint stores only one more byte of it."""
        wholes = [bytes(300_000) + bytes(number) for number in range(10)]
        await put_chain(client, *wholes)
        ids, token = [], ""
        while True:
            request = pb.ListCheckpointsRequest(thread_id="thread-1", page_token=token)
            page = await client.checkpoints.ListCheckpoints(request)
            assert page.ByteSize() < MEBIBYTE
            ids += [one.checkpoint_id for one in page.tuples]
            for one in page.tuples:
                assert one.values[0].value.data == wholes[int(one.checkpoint_id)]
            token = page.next_page_token
            if not token:
                break
        assert ids == [f"{number:04}" for number in reversed(range(10))]
        with_patches = pb.ListCheckpointsRequest(thread_id="thread-1", patches=True)
        page = await client.checkpoints.ListCheckpoints(with_patches)
        assert (len(page.tuples), len(page.stored_values)) == (10, 10)

    async def test_seeds_of_histories_come_whole(self, client: Any) -> None:
        wholes = growing(5, 100)
        await put_chain(client, *wholes)
        last = client.put_request(
            checkpoint_id="0005", parent_checkpoint_id="0004", channels=["channel"], channel_versions=["s9"]
        )
        await client.checkpoints.PutCheckpoint(last)
        history = await client.checkpoints.GetDeltaChannelHistory(
            pb.GetDeltaChannelHistoryRequest(thread_id="thread-1", channels=["channel"])
        )
        (found,) = history.channels
        assert (found.seed, found.seed_version) == (client.value(wholes[-1]), "s4")
        history = await client.checkpoints.GetDeltaChannelHistory(
            pb.GetDeltaChannelHistoryRequest(thread_id="thread-1", channels=["channel"], patches=True)
        )
        assert not history.channels[0].HasField("seed")
        assert sorted(row.version for row in history.stored_values) == [f"s{number}" for number in range(5)]

    async def test_what_goes_beyond_is_left_out_with_its_size_and_read_in_ranges(self, client: Any) -> None:
        whole = random.Random(1).randbytes(3 * MEBIBYTE)
        await put_chain(client, whole, whole + b"more")
        write = task_write(client, channel="large", value=client.value(whole))
        await client.checkpoints.PutWrites(client.writes_request(checkpoint_id="0001", writes=[write]))
        got = await get(client)
        assert got.ByteSize() < 10_000
        (value,), (written,) = got.tuple.values, got.tuple.pending_writes
        for one, size in ((value, len(whole) + 4), (written, len(whole))):
            assert one.value == values.TypedValue(type="msgpack", parts=values.Parts(size=size))
        assert await read_all(client, "s1", max_bytes=1_000_000) == whole + b"more"
        assert await read_all(client, "s1") == whole + b"more"
        key = values_pb.KnownTaskWrite(checkpoint_id="0001", task_id="task-1", idx=0)
        answer = await client.values.GetValue(
            values_pb.GetValueRequest(thread_id="thread-1", task_write=key, offset=MEBIBYTE, max_bytes=MEBIBYTE)
        )
        assert (answer.data, answer.size, answer.found) == (whole[MEBIBYTE : 2 * MEBIBYTE], len(whole), True)

    async def test_many_values_share_what_an_answer_holds(self, client: Any) -> None:
        data = {f"channel-{number}": bytes([number]) * 200_000 for number in range(8)}
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", **data)))
        got = await get(client)
        assert got.ByteSize() < MEBIBYTE
        left_out = [value for value in got.tuple.values if value.value.HasField("parts")]
        assert 0 < len(left_out) < 8
        assert all(value.value.parts.size == 200_000 for value in left_out)
        assert {value.channel for value in got.tuple.values} == set(data)


class TestRanges:
    """If a value is too large to be made whole, only the requested range is made."""

    @pytest.fixture(params=[RangeOptions().whole_bytes, 1000])
    def options(self, request: pytest.FixtureRequest) -> RangeOptions:
        return RangeOptions(whole_bytes=request.param, read_bytes=700, gap_bytes=16)

    @pytest.fixture
    async def client(self, serve: Serve, options: RangeOptions) -> AsyncIterator[Any]:
        async with serve(ranges=options) as (_, connected):
            yield connected

    async def test_any_range_is_what_it_is_of_the_whole(self, client: Any) -> None:
        rng = random.Random(7)
        whole = rng.randbytes(5000)
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=whole)))
        for number in range(1, 12):
            instructions, made = edited(rng, whole)
            described = values.Patch(base_version=f"s{number - 1}", size=len(made), crc32=crc32(made))
            value = values.TypedValue(type="msgpack", data=instructions, patch=described)
            await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, f"s{number}", channel=value)))
            whole = made
            for _ in range(6):
                offset = rng.randrange(len(whole) + 10)
                wanted = rng.randrange(1, len(whole) + 10)
                answer = await read(client, f"s{number}", offset=offset, max_bytes=wanted)
                assert (answer.found, answer.size, answer.crc32) == (True, len(whole), crc32(whole))
                expected = whole[offset : offset + wanted]
                assert answer.data == expected[: len(answer.data)]
                assert bool(answer.data) is bool(expected)
            assert await read_all(client, f"s{number}", max_bytes=900) == whole

    async def test_a_range_of_very_many_bits_comes_in_several_answers(
        self, serve: Serve, options: RangeOptions
    ) -> None:
        async with serve(ranges=replace(options, max_segments=50, max_spans=3)) as (_, client):
            await self._check_many_bits(client)

    async def _check_many_bits(self, client: Any) -> None:
        base = random.Random(3).randbytes(3000)
        every_other = bytes(base[offset] for offset in range(0, 3000, 30))
        instructions = b"".join(b"\x03" + leb(offset) for offset in range(0, 3000, 30))
        described = values.Patch(base_version="s0", size=100, crc32=crc32(every_other))
        value = values.TypedValue(type="msgpack", data=instructions, patch=described)
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=base)))
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s1", channel=value)))
        assert await read_all(client, "s1") == every_other

    async def test_instructions_are_handed_out_as_they_are_to_who_asks_for_patches(self, client: Any) -> None:
        await put_chain(client, b"x" * 100, b"x" * 100 + b"tail")
        stored = patch("s0", b"x" * 100, b"x" * 100 + b"tail")
        answer = await read(client, "s1", patches=True)
        assert (answer.data, answer.size) == (stored.data, len(stored.data))
        assert (await read(client, "s1", patches=True, offset=2, max_bytes=3)).data == stored.data[2:5]

    async def test_what_is_not_there_is_not_found(self, client: Any) -> None:
        await put_chain(client, b"x")
        for version in ("s1", "i0"):
            for patches in (False, True):
                assert await read(client, version, patches=patches) == values_pb.GetValueResponse()
        key = values_pb.KnownTaskWrite(checkpoint_id="0000", task_id="task-1", idx=0)
        answer = await client.values.GetValue(values_pb.GetValueRequest(thread_id="thread-1", task_write=key))
        assert answer == values_pb.GetValueResponse()


def leb(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def edited(rng: random.Random, base: bytes) -> tuple[bytes, bytes]:
    """Returns instructions for some random edits, and their result."""
    instructions, made = b"", b""
    while len(made) < 4000:
        if rng.random() < 0.7:
            offset = rng.randrange(len(base))
            length = min(rng.randrange(1, 1500), len(base) - offset)
            instructions += leb(length << 1 | 1) + leb(offset)
            made += base[offset : offset + length]
        else:
            data = rng.randbytes(rng.randrange(1, 300))
            instructions += leb(len(data) << 1) + data
            made += data
    return instructions, made


class TestWhatCannotBeMade:
    async def test_sealed_values_are_left_out_and_can_be_had_as_patches_alone(self, client: Any) -> None:
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=b"sealed base")))
        described = values.Patch(base_version="s0", size=7, sealed=True)
        value = values.TypedValue(type="msgpack+xaes", data=b"sealed", patch=described)
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s1", channel=value)))
        (found,) = (await get(client)).tuple.values
        assert found.value == values.TypedValue(type="msgpack+xaes", parts=values.Parts(size=7))
        known = values_pb.KnownChannelValue(channel="channel", version="s1")
        wanted = values_pb.GetValueRequest(thread_id="thread-1", channel_value=known)
        refusal = await client.refused(client.values.GetValue(wanted))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SEALED")
        rows = {row.version: row.value for row in (await get(client, patches=True)).stored_values}
        assert rows == {"s0": client.value(b"sealed base"), "s1": value}

    async def test_a_patch_that_makes_something_else_never_yields_wrong_bytes(self, client: Any) -> None:
        """Only the damaged value can't be read; others of the checkpoint can."""
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=b"x" * 100)))
        wrong = patch("s0", b"y" * 100, b"y" * 100 + b"tail")
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s1", channel=wrong, other=b"ok")))
        left_out = values.TypedValue(type="msgpack", parts=values.Parts(size=104))
        page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())
        for found in ((await get(client)).tuple, page.tuples[0]):
            assert {one.channel: one.value for one in found.values} == {
                "channel": left_out,
                "other": client.value(b"ok"),
            }
        refusal = await client.refused(read(client, "s1"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_VALUE")
        assert "'channel', version 's1'" in refusal.message

    async def test_versions_that_build_on_each_other_are_not_stored(self, client: Any) -> None:
        await put_chain(client, b"x" * 100, b"x" * 100 + b"tail", b"x" * 100 + b"tail tail")
        circle = patch("s2", b"x" * 100 + b"tail tail", b"x" * 100)
        put = client.put_request(**channels(client, "s0", channel=circle))
        with suppress(grpc.aio.AioRpcError):  # refused, or taken for a version that is already there
            await client.checkpoints.PutCheckpoint(put)
        for version, whole in (("s0", b"x" * 100), ("s1", b"x" * 100 + b"tail"), ("s2", b"x" * 100 + b"tail tail")):
            assert await read_all(client, version) == whole

    async def test_a_patch_whose_base_has_vanished_is_corrupt(self, client: Any, database_url: str) -> None:
        await put_chain(client, b"x" * 100, b"x" * 100 + b"tail")
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM checkpointd.channel_values WHERE version = 's0'")
        await connection.close()
        refusal = await client.refused(read(client, "s1"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_VALUE")

    async def test_a_patch_that_copies_more_than_its_base_has_is_refused(self, client: Any) -> None:
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=b"abc")))
        wrong = patch("s0", b"abcdef", b"abcdefg")
        refusal = await client.refused(
            client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s1", channel=wrong)))
        )
        assert refusal.reason == "BASE_MISSING"
        assert [value.version for value in (await get(client)).tuple.values] == ["s0"]


class TestParts:
    async def test_a_value_is_sent_ahead_and_named_by_its_put(self, client: Any) -> None:
        whole = random.Random(2).randbytes(2_500_000)
        upload_id = b"u" * 16
        for offset in (2 * MEBIBYTE, 0, MEBIBYTE):
            part = values_pb.PutPartRequest(
                thread_id="thread-1", upload_id=upload_id, offset=offset, data=whole[offset : offset + MEBIBYTE]
            )
            await client.values.PutPart(part)
            await client.values.PutPart(part)
        parts = values.Parts(upload_id=upload_id, size=len(whole))
        value = values.TypedValue(type="bytes", parts=parts)
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=value)))
        (found,) = (await get(client)).tuple.values
        assert found.value == values.TypedValue(type="bytes", parts=values.Parts(size=len(whole)))
        assert await read_all(client, "s0", max_bytes=999_999) == whole
        # A patch may copy from it.
        more = whole + b"more"
        await client.checkpoints.PutCheckpoint(
            client.put_request(checkpoint_id="next", **channels(client, "s1", channel=patch("s0", whole, more)))
        )
        assert await read_all(client, "s1", max_bytes=999_999) == more

    @pytest.mark.parametrize("missing", ["all", "a part", "another thread's"])
    async def test_an_upload_that_is_not_whole_is_refused(self, client: Any, missing: str) -> None:
        if missing != "all":
            thread_id = "thread-2" if missing == "another thread's" else "thread-1"
            size = 10 if missing == "another thread's" else 9
            await client.values.PutPart(
                values_pb.PutPartRequest(thread_id=thread_id, upload_id=b"u" * 16, data=bytes(size))
            )
        value = values.TypedValue(type="bytes", parts=values.Parts(upload_id=b"u" * 16, size=10))
        put = client.put_request(**channels(client, "s0", channel=value))
        refusal = await client.refused(client.checkpoints.PutCheckpoint(put))
        assert refusal.reason == "BASE_MISSING"
        writes = client.writes_request(writes=[task_write(client, value=value)])
        refusal = await client.refused(client.checkpoints.PutWrites(writes))
        assert refusal.reason == "BASE_MISSING"


class TestKnown:
    async def test_what_is_known_is_not_sent(self, client: Any) -> None:
        wholes = growing(6, 100)
        await put_chain(client, *wholes)

        # The value that was stored whole has no checksum here.
        checksums = {f"s{number}": crc32(whole) if number else 0 for number, whole in enumerate(wholes)}

        async def versions(*names: str, wrong: int = 0) -> list[str]:
            known = [
                values.KnownValue(channel="channel", version=name, crc32=checksums.get(name, 0) ^ wrong)
                for name in names
            ]
            got = await get(client, patches=True, known=known)
            assert not got.tuple.values
            return sorted(row.version for row in got.stored_values)

        assert await versions() == ["s0", "s1", "s2", "s3", "s4", "s5"]
        assert await versions("s3") == ["s4", "s5"]
        assert await versions("s5") == []
        assert await versions("s0") == ["s1", "s2", "s3", "s4", "s5"]
        assert await versions("s7", "i1") == ["s0", "s1", "s2", "s3", "s4", "s5"]

        # Other bytes under the same version count as unknown.
        assert await versions("s3", wrong=1) == ["s0", "s1", "s2", "s3", "s4", "s5"]
        assert await versions("s5", wrong=1) == ["s0", "s1", "s2", "s3", "s4", "s5"]

    async def test_checksums_tell_bases_apart(self, client: Any) -> None:
        whole = client.value(b"base")
        whole.crc32 = crc32(b"base")
        await client.checkpoints.PutCheckpoint(client.put_request(**channels(client, "s0", channel=whole)))
        got = await get(client, patches=True)
        assert got.stored_values[0].value.crc32 == crc32(b"base")
        for base_crc32, stored in ((crc32(b"base"), True), (0, True), (crc32(b"other"), False)):
            value = patch("s0", b"base", b"base and more")
            value.patch.base_crc32 = base_crc32
            put = client.put_request(**channels(client, f"s1{base_crc32}", channel=value))
            if stored:
                await client.checkpoints.PutCheckpoint(put)
            else:
                assert (await client.refused(client.checkpoints.PutCheckpoint(put))).reason == "BASE_MISSING"

    async def test_a_checksum_of_other_bytes_is_refused(self, client: Any) -> None:
        whole = client.value(b"base")
        whole.crc32 = crc32(b"other")
        put = client.put_request(**channels(client, "s0", channel=whole))
        refusal = await client.refused(client.checkpoints.PutCheckpoint(put))
        assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_ARGUMENT", "values[0].value.crc32")
