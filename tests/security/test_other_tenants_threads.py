"""Another tenant's threads are never counted, listed or timed by any RPC that counts, lists or times threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpointd.v1 import stats_service_pb2 as stats_pb
from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd.v1.stats_service_pb2_grpc import StatsServiceStub
from tests.security.serving import Serve
from tests.support.rpc_client import Client, bearer, connected

MINE, FOREIGN = bearer("ckd_acme-all"), bearer("ckd_other-all")


async def fill(client: Client, metadata: Any, threads: int) -> None:
    """Creates threads with an interrupt beside their checkpoint, so that each filter finds something."""
    for number in range(threads):
        request = client.put_request(thread_id=f"t{number}", metadata=client.metadata({"user": "ann"}))
        await client.checkpoints.PutCheckpoint(request, metadata=metadata)
        await client.threads.UpdateThread(
            pb.UpdateThreadRequest(thread_id=f"t{number}", set_tags=[pb.ThreadTag(name="kind", text="any")]),
            metadata=metadata,
        )


def filters(client: Client) -> list[pb.ThreadFilter]:
    return [
        pb.ThreadFilter(),
        pb.ThreadFilter(thread_id_prefix="t"),
        pb.ThreadFilter(metadata=client.metadata({"user": "ann"}).value.data),
        pb.ThreadFilter(tags=[pb.ThreadTag(name="kind", text="any")]),
        pb.ThreadFilter(statuses=[pb.THREAD_STATUS_IDLE]),
    ]


@pytest.fixture
async def client(serve: Serve, keys_file: Path) -> Any:
    async with serve(keys_file=keys_file) as target, connected(target) as connection:
        yield connection


async def test_lists_and_counts(client: Client) -> None:
    await fill(client, MINE, 3)
    for wanted in filters(client):
        seen = await client.threads.ListThreads(pb.ListThreadsRequest(filter=wanted), metadata=FOREIGN)
        assert not seen.threads
        counted = await client.threads.CountThreads(pb.CountThreadsRequest(filter=wanted), metadata=FOREIGN)
        assert counted.count == 0
    await fill(client, FOREIGN, 1)
    for wanted in filters(client):
        seen = await client.threads.ListThreads(pb.ListThreadsRequest(filter=wanted), metadata=FOREIGN)
        assert len(seen.threads) == 1
        counted = await client.threads.CountThreads(pb.CountThreadsRequest(filter=wanted), metadata=FOREIGN)
        assert counted.count == 1


async def test_statistics_are_the_same_whatever_others_have(client: Client) -> None:
    stats: Any = StatsServiceStub(client.channel)
    await fill(client, FOREIGN, 2)

    async def told() -> Any:
        found = await stats.GetStats(stats_pb.GetStatsRequest(), metadata=FOREIGN)
        found.ClearField("measured_at")
        return found

    before = await told()
    assert before.threads == 2
    await fill(client, MINE, 5)
    assert await told() == before


async def test_calls_are_neither_shown_nor_timed(client: Client) -> None:
    stats: Any = StatsServiceStub(client.channel)
    await fill(client, MINE, 3)
    found = (await stats.GetActivity(stats_pb.GetActivityRequest(), metadata=FOREIGN)).activity
    assert (found.live_calls, found.calls_per_second) == (0, 0)
    for entries in (found.live, found.slowest, found.busiest):
        assert not entries
    mine = (await stats.GetActivity(stats_pb.GetActivityRequest(), metadata=MINE)).activity
    assert {busy.thread_id for busy in mine.busiest} == {"t0", "t1", "t2"}


async def test_a_purge_takes_ones_own_alone(client: Client, keys_file: Path) -> None:
    await fill(client, MINE, 3)
    await fill(client, FOREIGN, 2)
    for wanted in filters(client)[1:]:
        request = pb.PurgeThreadsRequest(filter=wanted, dry_run=True)
        told = await client.threads.PurgeThreads(request, metadata=bearer("ckd_other-admin"))
        assert told.purged_threads == 2
    request = pb.PurgeThreadsRequest(all_threads=True)
    told = await client.threads.PurgeThreads(request, metadata=bearer("ckd_other-admin"))
    assert told.purged_threads == 2
    counted = await client.threads.CountThreads(pb.CountThreadsRequest(), metadata=MINE)
    assert counted.count == 3
