"""Output equals input: every field of the protocol, through a real server and a real database."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2, thread_service_pb2
from checkpointd.v1 import values_pb2 as values
from checkpointd_server.domain.limits import Limits
from tests.rpc.requests import channels

VERSIONS = {
    "text": "s00000000000000000000000000000002.0.5",
    "empty text": "s",
    "integer": f"i{-(2**63)}",
    "float": "f1.5e+308",
    "minus zero": "f-0.0",
    "infinite": "finf",
    "漢字": "i7",
}


def full_put(client: Any) -> pb.PutCheckpointRequest:
    """Returns a put with something in every field."""

    def changed(channel: str, value: values.TypedValue | None) -> values.ChannelValue:
        return values.ChannelValue(channel=channel, version=VERSIONS[channel], value=value)

    return pb.PutCheckpointRequest(
        thread_id="thread ✓",
        checkpoint_ns="outer:1|inner:2",
        checkpoint_id="checkpoint-2",
        parent_checkpoint_id="checkpoint-1",
        body=msgpack.packb({"v": 4, "extra": ["msgpack+aes", b"\x00\xff"], "updated_channels": None}),
        channels=list(VERSIONS),
        channel_versions=list(VERSIONS.values()),
        values=[
            changed("text", client.value(b"\x00\x01\xff")),
            changed("integer", client.value(b"", "null")),
            changed("minus zero", client.value(b"-0", "é")),
            changed("漢字", client.value(b"x" * 100_000, "bytes")),
            changed("infinite", None),
        ],
        metadata=client.metadata({"step": -2, "run_id": "run-1", "odd": float("nan"), "bytes": b"\0"}),
        writer=b"w" * 32,
        request_id=b"r" * 32,
    )


async def test_a_checkpoint_comes_back_as_it_went_in(client: Any) -> None:
    put = full_put(client)
    writes = pb.PutWritesRequest(
        thread_id=put.thread_id,
        checkpoint_ns=put.checkpoint_ns,
        checkpoint_id=put.checkpoint_id,
        task_id="task",
        task_path="~__pregel_pull, node",
    )
    writes.writes.add(idx=0, channel="text", value=client.value(b"\x00", "json"))
    writes.writes.add(idx=-3, channel="__interrupt__", value=client.value(b"i"))

    version = (await client.checkpoints.PutCheckpoint(put)).version
    assert (await client.checkpoints.PutWrites(writes)).version == version > 0
    target = pb.GetCheckpointRequest(thread_id=put.thread_id, checkpoint_ns=put.checkpoint_ns)
    got = await client.checkpoints.GetCheckpoint(target)

    assert got.version == got.tuple.version == version
    for field in ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "body", "metadata"):
        assert getattr(got.tuple, field) == getattr(put, field)
    assert dict(zip(got.tuple.channels, got.tuple.channel_versions, strict=True)) == VERSIONS
    by_channel = {value.channel: value for value in got.tuple.values}
    assert by_channel == {value.channel: value for value in put.values if value.HasField("value")}
    assert [(w.task_id, w.task_path, w.idx, w.channel, w.value) for w in got.tuple.pending_writes] == [
        ("task", "~__pregel_pull, node", w.idx, w.channel, w.value) for w in sorted(writes.writes, key=lambda w: w.idx)
    ]


async def test_nearly_nothing_comes_back_as_nearly_nothing(client: Any) -> None:
    put = client.put_request(body=b"\x80", metadata=client.metadata({}))
    await client.checkpoints.PutCheckpoint(put)
    got = (await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))).tuple
    assert (got.parent_checkpoint_id, got.body) == ("", b"\x80")
    assert not any([got.channels, got.channel_versions, got.values, got.pending_writes])
    assert got.metadata == put.metadata


async def test_the_explicit_index_is_searched_and_not_returned(client: Any) -> None:
    metadata = values.Metadata(value=client.value(b"sealed", "msgpack+aes"), index=msgpack.packb({"user": "u1"}))
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=metadata))
    for user, found in (("u1", 1), ("u2", 0)):
        page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(filter=msgpack.packb({"user": user})))
        assert len(page.tuples) == found
        assert all(checkpoint.metadata == values.Metadata(value=metadata.value) for checkpoint in page.tuples)


async def test_filters_tell_odd_values_apart(client: Any) -> None:
    odd = {"nul": "a\0b", "bytes": b"\0", "nan": float("nan"), "big": 2**64 - 1, "float": 1.5e308, "true": True}
    await client.checkpoints.PutCheckpoint(client.put_request(metadata=client.metadata(odd)))

    async def found(content: dict[str, Any]) -> int:
        page = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(filter=msgpack.packb(content)))
        return len(page.tuples)

    for key, value in odd.items():
        assert await found({key: value}) == 1, key
    for key, value in {"nul": "ab", "bytes": b"", "nan": "nan", "big": 2**64 - 2, "float": 1.5e307, "true": 1}.items():
        assert await found({key: value}) == 0, key


async def test_absence_is_an_answer(client: Any) -> None:
    got = await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="nobody"))
    assert not got.HasField("tuple")
    assert got.version == 0


async def test_the_metadata_view_has_no_values_and_no_writes(client: Any) -> None:
    put = full_put(client)
    await client.checkpoints.PutCheckpoint(put)
    await client.checkpoints.PutWrites(
        client.writes_request(thread_id=put.thread_id, checkpoint_ns=put.checkpoint_ns, checkpoint_id=put.checkpoint_id)
    )

    async def listed(view: int) -> values.CheckpointTuple:
        page = await client.checkpoints.ListCheckpoints(
            pb.ListCheckpointsRequest(thread_id=put.thread_id, all_namespaces=True, view=view)  # type: ignore[arg-type]
        )
        (only,) = page.tuples
        return only  # type: ignore[no-any-return]

    full = await listed(pb.CHECKPOINT_VIEW_FULL)
    metadata = await listed(pb.CHECKPOINT_VIEW_METADATA)
    assert full == await listed(pb.CHECKPOINT_VIEW_UNSPECIFIED)
    assert (len(full.values), len(full.pending_writes)) == (4, 1)
    assert (list(metadata.values), list(metadata.pending_writes)) == ([], [])
    full.ClearField("values")
    full.ClearField("pending_writes")
    assert metadata == full


async def test_pages_follow_each_other_without_gap_or_repetition(client: Any) -> None:
    ids = [f"checkpoint-{number}" for number in range(7)]
    for checkpoint_id in ids:
        await client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id=checkpoint_id))
    for page_size in (1, 3, 7, 8):
        seen, token = [], ""
        while True:
            page = await client.checkpoints.ListCheckpoints(
                pb.ListCheckpointsRequest(thread_id="thread-1", page_size=page_size, page_token=token)
            )
            assert len(page.tuples) <= page_size
            seen += [checkpoint.checkpoint_id for checkpoint in page.tuples]
            token = page.next_page_token
            if not token:
                break
        assert seen == ids[::-1]


async def test_a_list_tells_the_version_of_the_namespace_it_names(client: Any) -> None:
    version = (await client.checkpoints.PutCheckpoint(client.put_request())).version
    named = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest(thread_id="thread-1", checkpoint_ns=""))
    assert named.version == version
    for unnamed in (pb.ListCheckpointsRequest(thread_id="thread-1", all_namespaces=True), pb.ListCheckpointsRequest()):
        assert (await client.checkpoints.ListCheckpoints(unnamed)).version == 0


async def test_of_writes_with_one_idx_the_first_regular_and_the_last_special_is_kept(client: Any) -> None:
    request = client.writes_request(writes=None)
    for idx, data in ((0, b"first"), (0, b"second"), (-4, b"first"), (-4, b"second")):
        request.writes.add(idx=idx, channel="channel", value=client.value(data))
    await client.checkpoints.PutCheckpoint(client.put_request())
    await client.checkpoints.PutWrites(request)
    got = (await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="thread-1"))).tuple
    assert [(write.idx, write.value.data) for write in got.pending_writes] == [(-4, b"second"), (0, b"first")]


async def test_delta_histories_come_in_the_order_of_the_request(client: Any) -> None:
    first = client.put_request(**channels(client, "i1", log=b"seed", x=None))
    second = client.put_request(
        checkpoint_id="checkpoint-2",
        parent_checkpoint_id="checkpoint-1",
        channels=["log", "x"],
        channel_versions=["i1", "i1"],
    )
    await client.checkpoints.PutCheckpoint(first)
    written = client.writes_request(writes=None)
    written.writes.add(idx=0, channel="log", value=client.value(b"delta"))
    await client.checkpoints.PutWrites(written)
    latest = (await client.checkpoints.PutCheckpoint(second)).version

    history = await client.checkpoints.GetDeltaChannelHistory(
        pb.GetDeltaChannelHistoryRequest(thread_id="thread-1", channels=["x", "log", "x"])
    )
    assert history.version == latest
    assert [channel.channel for channel in history.channels] == ["x", "log", "x"]
    log = history.channels[1]
    assert log.seed == client.value(b"seed")
    assert log.seed_version == "i1"
    assert [(write.task_id, write.checkpoint_id, write.value.data) for write in log.writes] == [
        ("task-1", "checkpoint-1", b"delta")
    ]
    assert not history.channels[0].HasField("seed")
    assert not history.channels[0].seed_version
    assert not history.next_page_token


async def test_threads_are_deleted_copied_and_pruned(client: Any) -> None:
    for number in range(3):
        put = client.put_request(
            checkpoint_id=f"checkpoint-{number}",
            parent_checkpoint_id=f"checkpoint-{number - 1}" if number else None,
            metadata=client.metadata({"run_id": f"run-{number}"}),
        )
        await client.checkpoints.PutCheckpoint(put)
    copy = thread_service_pb2.CopyThreadRequest(source_thread_id="thread-1", target_thread_id="thread-2")
    assert (await client.threads.CopyThread(copy)).copied_checkpoints == 3
    runs = thread_service_pb2.DeleteRunsRequest(run_ids=["run-0", "unknown"])
    assert (await client.threads.DeleteRuns(runs)).deleted_checkpoints == 2
    prune = thread_service_pb2.PruneThreadsRequest(thread_ids=["thread-1"])
    assert (await client.threads.PruneThreads(prune)).deleted_checkpoints == 1
    delete = thread_service_pb2.DeleteThreadRequest(thread_id="thread-2")
    assert (await client.threads.DeleteThread(delete)).deleted_checkpoints == 2
    assert (await client.threads.DeleteThread(delete)).deleted_checkpoints == 0
    left = await client.checkpoints.ListCheckpoints(pb.ListCheckpointsRequest())
    assert [checkpoint.checkpoint_id for checkpoint in left.tuples] == ["checkpoint-2"]


async def test_a_fork_is_copied_up_to_its_checkpoint(client: Any) -> None:
    for number in range(3):
        put = client.put_request(
            checkpoint_id=f"checkpoint-{number}",
            parent_checkpoint_id=f"checkpoint-{number - 1}" if number else None,
        )
        await client.checkpoints.PutCheckpoint(put)
    fork = thread_service_pb2.CopyThreadRequest(
        source_thread_id="thread-1", target_thread_id="fork", checkpoint_id="checkpoint-1", request_id=b"once"
    )
    assert (await client.threads.CopyThread(fork)).copied_checkpoints == 2
    assert (await client.threads.CopyThread(fork)).copied_checkpoints == 2


@pytest.mark.parametrize("call", ["DeleteRuns", "PruneThreads"])
async def test_naming_nothing_does_nothing(client: Any, call: str) -> None:
    await client.checkpoints.PutCheckpoint(client.put_request())
    request = getattr(thread_service_pb2, f"{call}Request")()
    assert (await getattr(client.threads, call)(request)).deleted_checkpoints == 0


async def test_the_server_tells_what_it_is(client: Any) -> None:
    info = await client.info.GetServerInfo(info_service_pb2.GetServerInfoRequest())
    assert info.version
    assert set(info.capabilities) == {value for value in info_service_pb2.Capability.values() if value}
    limits = Limits()
    for field in info_service_pb2.Limits.DESCRIPTOR.fields:
        assert getattr(info.limits, field.name) == getattr(limits, field.name) > 0
