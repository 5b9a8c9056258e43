"""The activity of calls, as `checkpointd top` shows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import stats_service_pb2 as stats_pb
from checkpointd.v1.stats_service_pb2_grpc import StatsServiceStub
from checkpointd_server.rpc.calls.activity import KEPT_SECONDS, MOST_SLOW, MOST_THREADS, WINDOW_SECONDS, Activity
from tests.support.operations import operation
from tests.support.until import auntil


@dataclass(frozen=True)
class Ended:
    """A finished call."""

    thread_id: str = "t"
    method: str = "Service/Method"
    started: float = 0.0


def test_the_slowest_of_a_minute_are_kept() -> None:
    activity = Activity()
    for number in range(100):
        activity.note(Ended(method=f"m{number}", started=activity._begun), number / 1000)
    found = activity.slowest(activity._begun)
    assert [slow.method for slow in found] == [f"m{number}" for number in range(99, 99 - MOST_SLOW, -1)]
    later = activity._begun + KEPT_SECONDS + 1
    assert activity.slowest(later) == []
    activity.note(Ended(method="quick", started=later), 0.0001)
    assert [slow.method for slow in activity.slowest(later)] == ["quick"]


def test_calls_are_counted_for_half_a_minute_and_the_one_before() -> None:
    activity = Activity()
    begun = activity._begun
    for moment in (0.0, 1.0, WINDOW_SECONDS + 1, WINDOW_SECONDS + 2):
        activity.note(Ended(started=begun + moment), 0.0)
    ended, seconds, threads = activity.counts(begun + WINDOW_SECONDS + 3)
    assert (ended, threads) == (4, {"t": 4})
    assert seconds == pytest.approx(WINDOW_SECONDS + 3)
    ended, _, threads = activity.counts(begun + 2 * WINDOW_SECONDS + 5)
    assert (ended, threads) == (2, {"t": 2})
    assert activity.counts(begun + 10 * WINDOW_SECONDS)[0] == 0


def test_what_is_counted_is_bounded() -> None:
    activity = Activity()
    for number in range(MOST_THREADS + 100):
        activity.note(Ended(thread_id=f"t{number}", started=activity._begun), 0.0)
    ended, _, threads = activity.counts(activity._begun)
    assert (ended, len(threads)) == (MOST_THREADS + 100, MOST_THREADS)


async def test_calls_at_work_are_told_of_until_they_end(serve: Any, blocker: Any) -> None:
    async with serve() as (server, client):
        stats: Any = StatsServiceStub(client.channel)

        async def activity() -> Any:
            return (await stats.GetActivity(stats_pb.GetActivityRequest())).activity

        await client.checkpoints.PutCheckpoint(client.put_request())
        async with blocker() as blocked:
            put = asyncio.ensure_future(client.checkpoints.PutCheckpoint(client.put_request(checkpoint_id="c2")))
            stream = client.channel.stream_stream("/checkpointd.v1.CheckpointService/Pipeline")(timeout=60)
            request = pb.PipelineRequest(operations=[operation(1, client.put_request(checkpoint_id="c3"))])
            await stream.write(request.SerializeToString())
            await blocked.until_waiting(1)
            await auntil(activity, lambda found: found.live_calls == 2)
            found = await activity()
            assert {(call.method, call.pipelined, call.thread_id) for call in found.live} == {
                ("CheckpointService/PutCheckpoint", False, "thread-1"),
                ("CheckpointService/PutCheckpoint", True, "thread-1"),
            }
            assert all(call.seconds > 0 and not call.tenant_name for call in found.live)
        await put
        await stream.done_writing()
        await auntil(activity, lambda found: found.live_calls == 0)
        found = await activity()
        assert found.busiest[0].thread_id == "thread-1"
        assert found.busiest[0].calls >= 2
        assert found.slowest[0].seconds > 0
        every = (await stats.GetServerActivity(stats_pb.GetServerActivityRequest(limit=1))).activity
        assert [busy.tenant_name for busy in every.busiest] == ["default"]
        assert not any(state.activity.live for state in server.tenants.states)


@pytest.mark.parametrize("limit", [-1, 1001])
async def test_a_limit_that_is_none_is_refused(limit: int, client: Any) -> None:
    stats: Any = StatsServiceStub(client.channel)
    refusal = await client.refused(stats.GetActivity(stats_pb.GetActivityRequest(limit=limit)))
    assert refusal.metadata == {"field": "limit", "limit": "1000"}
