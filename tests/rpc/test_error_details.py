"""Details of errors: what clients learn about a conflict, and what is logged about a failure."""

from __future__ import annotations

import asyncpg
import grpc
import pytest
from structlog.testing import capture_logs

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.errors import DatabaseUnavailable
from checkpointd_server.rpc.calls.error_redaction import format_redacted_traceback
from tests.rpc.requests import channels
from tests.rpc.world import World, internal


async def test_a_conflict_tells_what_is_there(world: World) -> None:
    async with world.serve() as (_, client):
        version = (await client.checkpoints.PutCheckpoint(client.put_request(writer=b"me"))).version
        stranger = client.put_request(
            checkpoint_id="checkpoint-2", precondition=values.Precondition(if_last_writer=b"other")
        )
        refusal = await client.refused(client.checkpoints.PutCheckpoint(stranger))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
        assert refusal.metadata == {
            "thread_id": "thread-1",
            "checkpoint_ns": "",
            "current_version": str(version),
            "current_checkpoint_id": "checkpoint-1",
        }
        writes = client.writes_request(precondition=values.Precondition(if_version_match=version + 1))
        refusal = await client.refused(client.checkpoints.PutWrites(writes))
        assert refusal.metadata["expected_version"] == str(version + 1)


async def test_either_half_of_a_precondition_suffices(world: World) -> None:
    async with world.serve() as (_, client):
        version = (await client.checkpoints.PutCheckpoint(client.put_request(writer=b"me"))).version
        for number, precondition in enumerate(
            [
                values.Precondition(if_version_match=version, if_last_writer=b"other"),
                values.Precondition(if_version_match=10**9, if_last_writer=b"me"),
                values.Precondition(),
            ]
        ):
            put = client.put_request(checkpoint_id=f"c-{number}", precondition=precondition, writer=b"me")
            assert (await client.checkpoints.PutCheckpoint(put)).version > version


@pytest.mark.parametrize("character", ["é", "😀", "\x01", "\n", "%"])
async def test_the_longest_ids_come_back_with_a_conflict(world: World, character: str) -> None:
    size = len(character.encode())
    thread_id, checkpoint_ns = character * (512 // size), character * (1408 // size)
    async with world.serve() as (_, client):
        request = client.put_request(
            thread_id=thread_id, checkpoint_ns=checkpoint_ns, precondition=values.Precondition(if_version_match=7)
        )
        refusal = await client.refused(client.checkpoints.PutCheckpoint(request))
        assert refusal.reason == "VERSION_CONFLICT"
        assert (refusal.metadata["thread_id"], refusal.metadata["checkpoint_ns"]) == (thread_id, checkpoint_ns)


async def test_a_fault_is_logged_under_the_id_that_the_client_is_told(world: World) -> None:
    with capture_logs() as logs:
        refusal = await internal(world)
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["error_id"] == refusal.metadata["error_id"]
    assert line["method"] == "CheckpointService/GetCheckpoint"
    assert "rpc/calls/handler.py" in line["trace"]


def test_a_trace_says_where_and_what_kind_but_not_in_whose_words() -> None:
    # Formatted at run time, since a traceback shows the line that raised.
    words = "Key (thread_id)=({}) already exists.".format("secret")
    try:
        try:
            raise asyncpg.UniqueViolationError(words)
        except asyncpg.UniqueViolationError as cause:
            raise DatabaseUnavailable("our own words") from cause
    except DatabaseUnavailable as error:
        trace = format_redacted_traceback(error)
    assert "secret" not in trace
    assert "UniqueViolationError (SQLSTATE 23505)" in trace
    assert trace.endswith("DatabaseUnavailable: our own words")
    assert trace.count("test_a_trace_says_where") == 2


async def test_a_call_is_one_line_at_debug_without_values(world: World) -> None:
    with capture_logs() as logs:
        async with world.serve() as (_, client):
            secret = b"secret value"
            metadata = client.metadata({"k": "secret value"})
            put = client.put_request(**channels(client, "i1", channel=secret), metadata=metadata)
            await client.checkpoints.PutCheckpoint(put)
    (line,) = [line for line in logs if line.get("method") == "CheckpointService/PutCheckpoint"]
    assert (line["log_level"], line["code"], line["thread_id"]) == ("debug", "OK", "thread-1")
    assert line["duration_ms"] > 0
    assert "secret" not in str(logs)


async def test_so_is_each_operation_of_a_stream(world: World) -> None:
    with capture_logs() as logs:
        async with world.serve() as (_, client):
            put = client.put_request(**channels(client, "i1", channel=b"secret value"))
            failing = pb.PutCheckpointRequest(thread_id="thread-2")
            operations = [
                pb.Operation(id=1, put_checkpoint=put),
                pb.Operation(id=2, get_checkpoint=pb.GetCheckpointRequest(thread_id=put.thread_id)),
                pb.Operation(id=3, put_checkpoint=failing),
            ]
            stream = client.checkpoints.Pipeline()
            await stream.write(pb.PipelineRequest(operations=operations))
            await stream.done_writing()
            assert sum([len(response.results) async for response in stream]) == 3
    lines = [(line["method"], line["thread_id"], line["code"]) for line in logs if "thread_id" in line]
    assert sorted(lines) == [
        ("CheckpointService/GetCheckpoint", put.thread_id, "OK"),
        ("CheckpointService/PutCheckpoint", put.thread_id, "OK"),
        ("CheckpointService/PutCheckpoint", "thread-2", "INVALID_ARGUMENT"),
    ]
    assert "secret" not in str(logs)
