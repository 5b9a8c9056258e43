"""Activity of calls: from memory to protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from time import perf_counter

from checkpointd.v1 import stats_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.rpc.tenants import TenantState

_MOST = 1000
_DEFAULT = 20
_ASKING = "Activity"
"""Endings of the names of RPCs that request this."""


def read_limit(limit: int) -> int:
    """Returns the maximum number of entries of each list. Raises InvalidArgument."""
    if not 0 <= limit <= _MOST:
        raise InvalidArgument("limit", f"is {limit}, must be from 0 to {_MOST}", limit=_MOST)
    return limit or _DEFAULT


def write_activity(states: Sequence[TenantState], limit: int, message: pb.Activity, *, names: bool) -> None:
    """Fills in the activity of tenants, with their names if requested."""
    now = perf_counter()
    live = [
        (now - call.started if call.started else 0.0, state.name, call)
        for state in states
        for call in list(state.activity.live)
        if not call.method.endswith(_ASKING)
    ]
    message.live_calls = len(live)
    for seconds, tenant, call in nlargest(limit, live, key=lambda one: one[0]):
        message.live.add(
            tenant_name=tenant if names else "",
            method=call.method,
            pipelined=getattr(call, "via", "pipeline") == "pipeline",
            thread_id=call.thread_id,
            seconds=seconds,
        )
    slow = [(one, state.name) for state in states for one in state.activity.slowest(now)]
    slow = [(one, tenant) for one, tenant in slow if not one.method.endswith(_ASKING)]
    for one, tenant in nlargest(limit, slow, key=lambda entry: entry[0].seconds):
        message.slowest.add(
            tenant_name=tenant if names else "",
            method=one.method,
            thread_id=one.thread_id,
            seconds=one.seconds,
            ago_seconds=max(now - one.ended_at, 0.0),
        )
    busy = []
    for state in states:
        calls, seconds, threads = state.activity.counts(now)
        message.calls_per_second += calls / seconds
        message.window_seconds = max(message.window_seconds, seconds)
        busy += [(number, state.name, thread_id) for thread_id, number in threads.items()]
    for number, tenant, thread_id in nlargest(limit, busy):
        message.busiest.add(tenant_name=tenant if names else "", thread_id=thread_id, calls=number)
