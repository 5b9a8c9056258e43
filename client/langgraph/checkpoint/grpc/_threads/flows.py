"""Flows of calls about whole threads, run by a blocking and an awaiting driver."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

from langgraph.checkpoint.grpc._convert.arguments import thread
from langgraph.checkpoint.grpc._threads import queries as queries
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc.errors import CheckpointNotFoundError
from langgraph.checkpoint.grpc.thread_info import CheckpointNode, ThreadCount, ThreadDiff, ThreadInfo, ThreadSignal

from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd.v1 import values_pb2

_FAMILIES = {
    values_pb2.SERIALIZER_FAMILY_LANGGRAPH_MSGPACK: "langgraph-msgpack",
    values_pb2.SERIALIZER_FAMILY_LANGGRAPH_JSON: "langgraph-json",
    values_pb2.SERIALIZER_FAMILY_OTHER: "other",
}


def search(wanted: pb.ThreadFilter, limit: int | None) -> Generator[Any, Any, None]:
    """Emits the threads that match a filter, page by page."""
    request = pb.ListThreadsRequest(filter=wanted)
    remaining = limit
    while remaining is None or remaining > 0:
        if remaining is not None:
            request.page_size = min(remaining, queries.MAX_PAGE)
        page = yield request
        for found in page.threads:
            yield flows.Emit(_info(found))
        if remaining is not None:
            remaining -= len(page.threads)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def count(wanted: pb.ThreadFilter) -> flows.Flow[ThreadCount]:
    """Returns how many threads match a filter."""
    response = yield pb.CountThreadsRequest(filter=wanted)
    return ThreadCount(count=response.count, at_least=response.at_least)


def get(thread_id: str) -> flows.Flow[ThreadInfo]:
    """Returns a thread's details."""
    response = yield pb.GetThreadRequest(thread_id=thread(thread_id))
    return _info(response.thread)


def tree(thread_id: str) -> Generator[Any, Any, None]:
    """Emits a thread's checkpoints, page by page."""
    request = pb.GetThreadTreeRequest(thread_id=thread_id)
    while True:
        page = yield request
        for node in page.nodes:
            yield flows.Emit(_node(node))
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def archive(request: pb.ArchiveThreadRequest) -> flows.Flow[bool]:
    """Archives or unarchives a thread, and returns whether that changed anything."""
    response = yield request
    return bool(response.changed)


def update(request: pb.UpdateThreadRequest) -> flows.Flow[ThreadInfo]:
    """Changes a thread's tags, pin and time to live, and returns its details after that."""
    response = yield request
    return _info(response.thread)


def _info(found: pb.Thread) -> ThreadInfo:
    signals = [
        ThreadSignal(task_id=signal.task_id, is_error=signal.is_error, value=json.loads(signal.json))
        for signal in found.signals
    ]
    # A newer server may have further statuses: all we know is that the thread isn't running.
    status = queries.STATUS_NAMES.get(found.status, "idle")
    return ThreadInfo(
        thread_id=found.thread_id,
        status=status,
        checkpoints=found.checkpoints,
        bytes=found.bytes,
        created_at=queries.time_of(found.created_at),
        active_at=queries.time_of(found.active_at),
        checkpoint_id=found.checkpoint_id or None,
        metadata=json.loads(found.metadata_json),
        next=list(found.next),
        interrupts=[signal for signal in signals if not signal.is_error],
        errors=[signal for signal in signals if signal.is_error],
        tags={tag.name: tag.text for tag in found.tags},
        archived_at=queries.time_of(found.archived_at) if found.HasField("archived_at") else None,
        pinned=found.pinned,
        ttl_seconds=found.ttl_seconds or None,
        serializer_family=_FAMILIES.get(found.serializer_family),
    )


def _node(node: pb.CheckpointNode) -> CheckpointNode:
    return CheckpointNode(
        checkpoint_ns=node.checkpoint_ns,
        checkpoint_id=node.checkpoint_id,
        parent_checkpoint_id=node.parent_checkpoint_id or None,
        created_at=queries.time_of(node.created_at),
        step=int(node.step) if queries.INTEGER.fullmatch(node.step) else None,
        source=node.source or None,
        run_id=node.run_id or None,
        writes=node.writes,
        interrupted=node.interrupted,
        failed=node.failed,
    )


def compare(configs: Sequence[Any], found: Sequence[Any]) -> ThreadDiff:
    """Returns how the values of two checkpoints differ. Raises CheckpointNotFoundError if one isn't there."""
    for config, saved in zip(configs, found, strict=True):
        if saved is None:
            named = config["configurable"]
            raise CheckpointNotFoundError(
                f"thread {named['thread_id']!r} has no checkpoint {named['checkpoint_id']!r} in namespace "
                f"{named['checkpoint_ns']!r}"
            )
    old, new = (saved.checkpoint for saved in found)
    before, after = old["channel_values"], new["channel_values"]
    versions = [saved["channel_versions"] for saved in (old, new)]
    return ThreadDiff(
        added={channel: after[channel] for channel in after if channel not in before},
        removed={channel: before[channel] for channel in before if channel not in after},
        changed={
            channel: (before[channel], after[channel])
            for channel in before
            # Different versions may have the same value; equal versions always do.
            if channel in after
            and versions[0].get(channel) != versions[1].get(channel)
            and not _same(before[channel], after[channel])
        },
    )


def _same(before: Any, after: Any) -> bool:
    try:
        return bool(before == after)
    except Exception:  # users' classes and arrays may raise anything when compared
        return False
