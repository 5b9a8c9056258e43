"""Requests that concern whole threads, and leases on them."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.checkpoint.grpc._convert.arguments import names, text, thread
from langgraph.checkpoint.grpc._convert.encode import MAX_PAGE
from langgraph.checkpoint.grpc._convert.random_ids import random_id
from langgraph.checkpoint.grpc.errors import InvalidArgumentError

from checkpointd.v1 import lease_service_pb2 as leases_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb

PRUNE_STRATEGIES = {
    "keep_latest": threads_pb.PRUNE_STRATEGY_KEEP_LATEST,
    "delete": threads_pb.PRUNE_STRATEGY_DELETE,
    "delete_all": threads_pb.PRUNE_STRATEGY_DELETE,  # LangGraph's platform calls it so
}
"""The strategies of `prune`."""


def delete_thread(thread_id: str) -> threads_pb.DeleteThreadRequest:
    """Builds the request of `delete_thread`."""
    return threads_pb.DeleteThreadRequest(thread_id=thread(thread_id))


def delete_runs(run_ids: Sequence[str]) -> list[threads_pb.DeleteRunsRequest]:
    """Builds the requests of `delete_for_runs`, as many as the server's limit requires."""
    found = [text("run_ids", str(run_id)) for run_id in names("run_ids", run_ids)]
    return [threads_pb.DeleteRunsRequest(run_ids=found[i : i + MAX_PAGE]) for i in range(0, len(found), MAX_PAGE)]


def copy_thread(source: str, target: str, at: str | None) -> threads_pb.CopyThreadRequest:
    """Builds the request of `copy_thread`."""
    return threads_pb.CopyThreadRequest(
        source_thread_id=thread(source, "source_thread_id"),
        target_thread_id=thread(target, "target_thread_id"),
        checkpoint_id=text("checkpoint_id", at) if at else None,
        request_id=random_id(),
    )


def prune(thread_ids: Sequence[str], strategy: str) -> list[threads_pb.PruneThreadsRequest]:
    """Builds the requests of `prune`, as many as the server's limit requires."""
    if strategy not in PRUNE_STRATEGIES:
        known = " or ".join(f'"{name}"' for name in PRUNE_STRATEGIES)
        raise InvalidArgumentError(f"strategy: {strategy!r} is unknown; use {known}", field="strategy")
    found = [thread(thread_id, "thread_ids") for thread_id in names("thread_ids", thread_ids)]
    return [
        threads_pb.PruneThreadsRequest(thread_ids=found[i : i + MAX_PAGE], strategy=PRUNE_STRATEGIES[strategy])
        for i in range(0, len(found), MAX_PAGE)
    ]


def acquire_lease(thread_id: str, holder: bytes, *, ttl: float, wait: float) -> leases_pb.AcquireLeaseRequest:
    """Builds the request for a lease; times are in seconds."""
    return leases_pb.AcquireLeaseRequest(
        thread_id=thread_id, holder=holder, ttl_ms=_milliseconds(ttl), wait_ms=int(wait * 1000)
    )


def renew_lease(thread_id: str, token: int, *, ttl: float) -> leases_pb.RenewLeaseRequest:
    """Builds the request to extend a lease, by a time in seconds."""
    return leases_pb.RenewLeaseRequest(thread_id=thread_id, token=token, ttl_ms=_milliseconds(ttl))


def release_lease(thread_id: str, holder: bytes) -> leases_pb.ReleaseLeaseRequest:
    """Builds the request to release a lease, or leave the queue for it."""
    return leases_pb.ReleaseLeaseRequest(thread_id=thread_id, holder=holder)


def _milliseconds(seconds: float) -> int:
    """Returns a time in the protocol's unit, but not 0, which would mean the default."""
    return max(int(min(seconds, 2**31) * 1000), 1)
