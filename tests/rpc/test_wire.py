"""A large message's fields are counted before it is parsed: messages that would take long are refused at once."""

from __future__ import annotations

import asyncio
from time import thread_time
from typing import Any

import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.rpc.conversion.checkpoints import read_put_checkpoint
from checkpointd_server.rpc.conversion.wire import MAX_FIELDS, SMALL_BYTES, parse

MEBIBYTE = 1024 * 1024
EMPTY_VALUE = b"\x42\x00"
NESTED = {
    "values": EMPTY_VALUE,
    "channels": b"\x32\x00",
    "preconditions that are merged": b"\x52\x00",
    "values of one channel": b"\x42\x02\x1a\x00",
    "unknown fields": b"\xf8\x7f\x01",
    "groups": b"\xfb\x7f\xfc\x7f",
}


async def longest_silence(work: Any) -> float:
    """Runs work, and returns for how long nothing else could run, in seconds of the event loop's own CPU time."""
    silences: list[float] = []

    async def watch() -> None:
        while True:
            before = thread_time()
            await asyncio.sleep(0.001)
            silences.append(thread_time() - before)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    try:
        await work
    finally:
        await asyncio.sleep(0.01)
        watching.cancel()
    return max(silences)


@pytest.mark.parametrize("field", NESTED.values(), ids=NESTED)
async def test_a_message_of_nothing_but_fields_is_refused(field: bytes) -> None:
    async def refused() -> None:
        with pytest.raises(InvalidArgument, match="fields") as error:
            await parse(pb.PutCheckpointRequest, field * (16 * MEBIBYTE // len(field)))
        assert (error.value.field, error.value.limit) == ("request", MAX_FIELDS)

    assert await longest_silence(refused()) < 1  # parsing it would take several seconds


async def test_fields_count_wherever_they_are() -> None:
    """Fields count in a truncated message, too: the parser reads what is there before it reports the error."""
    value = values.ChannelValue(value=values.TypedValue(type="t"))
    inner = pb.PutCheckpointRequest(values=[value] * (MAX_FIELDS // 2)).SerializeToString()
    operation = pb.Operation(put_checkpoint=pb.PutCheckpointRequest.FromString(inner))
    raw = pb.PipelineRequest(operations=[operation]).SerializeToString()
    for message in (raw, raw[:-1], raw + b"\x0a\x7f", raw + b"\x08" + b"\x80" * 100):
        with pytest.raises(InvalidArgument, match="fields"):
            await parse(pb.PipelineRequest, message)


async def test_a_put_of_all_that_may_be_is_taken() -> None:
    channels = [f"channel-{number}" for number in range(10_000)]
    patch = values.Patch(base_version="s0", size=1, crc32=5)
    value = values.TypedValue(type="custom", data=b"\x02x", patch=patch)
    put = pb.PutCheckpointRequest(
        thread_id="t",
        checkpoint_id="c",
        body=b"\x80",
        channels=channels,
        channel_versions=["s1"] * len(channels),
        values=[values.ChannelValue(channel=channel, version="s1", value=value) for channel in channels],
        metadata=values.Metadata(value=values.TypedValue(type="msgpack", data=b"\x80")),
    )
    raw = put.SerializeToString()
    assert len(raw) > SMALL_BYTES

    async def taken() -> None:
        message = await parse(pb.PutCheckpointRequest, raw)
        assert len(read_put_checkpoint(message, "tenant", Limits()).values) == 10_000

    assert await longest_silence(taken()) < 1


@pytest.mark.parametrize("size", [10, SMALL_BYTES + 10, 4 * MEBIBYTE])
@pytest.mark.parametrize("garbage", [b"\xff", b"\x80", b"\x0a\x7f", b"\x00", b"\x0e"])
async def test_garbage_of_any_size_is_no_message(garbage: bytes, size: int) -> None:
    with pytest.raises(InvalidArgument) as error:
        await parse(pb.PutCheckpointRequest, (garbage * size)[:size])
    assert error.value.field == "request"


async def test_a_large_message_is_what_it_was() -> None:
    put = pb.PutCheckpointRequest(thread_id="t", body=b"x" * MEBIBYTE, channels=["a"] * 1000)
    assert await parse(pb.PutCheckpointRequest, put.SerializeToString()) == put
