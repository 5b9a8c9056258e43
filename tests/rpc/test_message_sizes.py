"""Messages over the limit, in both directions: a clear answer, and the server continues."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import value_service_pb2 as values_pb
from checkpointd_server.domain.limits import Limits
from tests.rpc.requests import channels, put_of

LIMIT = 100_000
MEBIBYTE = 1024 * 1024


async def test_a_request_may_be_as_large_as_the_limit(serve: Any) -> None:
    async with serve(limits=Limits(max_message_bytes=LIMIT)) as (_, client):
        await client.checkpoints.PutCheckpoint(put_of(client, LIMIT))


async def test_a_request_over_the_limit_is_told_the_limit(serve: Any) -> None:
    async with serve(limits=Limits(max_message_bytes=LIMIT)) as (_, client):
        refusal = await client.refused(client.checkpoints.PutCheckpoint(put_of(client, LIMIT + 1)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
        assert refusal.metadata == {"limit": str(LIMIT)}
        assert not (await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())).tuples


async def test_a_request_far_over_the_limit_is_refused_before_it_is_read(
    serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve(limits=Limits(max_message_bytes=LIMIT)) as (_, client):
        refusal = await client.refused(client.checkpoints.PutCheckpoint(put_of(client, LIMIT + 2 * MEBIBYTE)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)
        assert str(LIMIT + MEBIBYTE) in refusal.message  # as docs/limits.md says
        assert "ended before its request was read" in (log := capsys.readouterr().out)
        assert f"limit={LIMIT}" in log
        assert "is missing" not in log
        assert not (await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())).tuples


async def test_a_call_without_a_request_is_told_so(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    async with serve() as (_, client):
        call = client.channel.stream_unary("/checkpointd.v1.CheckpointService/GetCheckpoint")(timeout=20)
        await call.done_writing()
        refusal = await client.refused(call)
        assert (refusal.code, refusal.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "request")
        assert "request: is missing" in capsys.readouterr().out


async def test_an_answer_over_the_limit_is_told_the_limit(serve: Any) -> None:
    """This happens to data that was stored under a higher limit."""
    async with serve() as (_, client):
        await client.checkpoints.PutCheckpoint(client.put_request(body=bytes(2 * LIMIT)))
    async with serve(limits=Limits(max_message_bytes=LIMIT)) as (_, client):
        target = pb.GetCheckpointRequest(thread_id="thread-1")
        calls = (
            client.checkpoints.GetCheckpoint(target),
            client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest()),
        )
        for call in calls:
            refusal = await client.refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
            assert refusal.metadata == {"limit": str(LIMIT)}


async def test_a_value_of_many_megabytes_goes_through(client: Any) -> None:
    request = put_of(client, 60 * MEBIBYTE)
    await client.checkpoints.PutCheckpoint(request)
    got = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))
    assert got.ByteSize() < MEBIBYTE
    (entry,) = got.tuple.values
    known = values_pb.KnownChannelValue(channel=entry.channel, version=entry.version)
    wanted = values_pb.GetValueRequest(thread_id="thread-1", channel_value=known, max_bytes=60 * MEBIBYTE)
    answer = await client.values.GetValue(wanted)
    assert (entry.value.type, answer.data) == ("msgpack", request.values[0].value.data)
    assert entry.value.parts.size == answer.size == len(answer.data)


async def listed(client: Any) -> tuple[list[str], int]:
    """Returns the ids of all checkpoints and the number of pages they came on."""
    ids, pages, token = [], 0, ""
    while True:
        page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(page_size=1000, page_token=token))
        ids += [checkpoint.checkpoint_id for checkpoint in page.tuples]
        pages += 1
        token = page.next_page_token
        if not token:
            return ids, pages


async def test_a_page_is_cut_so_that_it_fits_into_a_message(serve: Any) -> None:
    async with serve(limits=Limits(max_message_bytes=LIMIT)) as (_, client):
        for number in range(10):
            await client.checkpoints.PutCheckpoint(put_of(client, 40_000, f"checkpoint-{number}"))
        ids, pages = await listed(client)
        assert ids == [f"checkpoint-{number}" for number in reversed(range(10))]
        assert 5 <= pages <= 10


async def test_long_names_don_t_outgrow_a_page(serve: Any) -> None:
    """Names make up nearly all of these checkpoints."""
    async with serve(limits=Limits(max_message_bytes=LIMIT)) as (_, client):
        for number in range(20):
            names = {f"{channel:03}{'c' * 250}": b"" for channel in range(40)}
            put = client.put_request(checkpoint_id=f"checkpoint-{number:02}", **channels(client, f"i{number}", **names))
            await client.checkpoints.PutCheckpoint(put)
        ids, pages = await listed(client)
        assert ids == [f"checkpoint-{number:02}" for number in reversed(range(20))]
        assert pages > 1


@pytest.mark.parametrize("patches", [False, True])
async def test_no_answer_is_larger_than_a_mebibyte_whatever_is_stored(client: Any, patches: bool) -> None:
    """Except for checkpoints whose own fields, names or metadata are larger. By default gRPC clients accept 4 MiB."""
    for number in range(6):
        data = {f"{channel}": bytes([channel]) * 300_000 for channel in range(4)}
        put = client.put_request(
            checkpoint_id=f"checkpoint-{number}",
            body=bytes(100_000),
            metadata=client.metadata({"large": bytes(100_000)}),
            **channels(client, f"i{number}", **data),
        )
        await client.checkpoints.PutCheckpoint(put)
        for task in range(10):
            writes = client.writes_request(checkpoint_id=f"checkpoint-{number}", task_id=f"task-{task}", writes=None)
            writes.writes.add(idx=0, channel="0", value=client.value(bytes(150_000)))
            await client.checkpoints.PutWrites(writes)
    answers: list[Any] = [
        await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1", patches=patches))
    ]
    token, found = "", 0
    while token or not found:
        request = pb.ListCheckpointsRequest(thread_id="thread-1", patches=patches, page_token=token)
        answers.append(await client.checkpoints.ListCheckpoints(request))
        found += len(answers[-1].tuples)
        token = answers[-1].next_page_token
    assert found == 6
    assert max(answer.ByteSize() for answer in answers) <= MEBIBYTE
