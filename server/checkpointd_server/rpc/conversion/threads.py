"""Lists of threads: protobuf to domain and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.thread_lists import (
    MAX_TAG_BYTES,
    MAX_TAG_NAME_BYTES,
    MAX_TAGS,
    Node,
    Signal,
    Thread,
    ThreadChange,
    ThreadFilter,
    ThreadStatus,
)
from checkpointd_server.rpc.conversion.checkpoints import read_ttl, write_serializer
from checkpointd_server.rpc.conversion.metadata_index import project_filter
from checkpointd_server.rpc.conversion.metadata_struct import pack_struct
from checkpointd_server.rpc.conversion.plain_data import left_out, plain
from checkpointd_server.rpc.conversion.validation import check_count, check_distinct, check_optional_text, check_text

_STATUSES = {
    pb.THREAD_STATUS_IDLE: ThreadStatus.IDLE,
    pb.THREAD_STATUS_RUNNING: ThreadStatus.RUNNING,
    pb.THREAD_STATUS_INTERRUPTED: ThreadStatus.INTERRUPTED,
    pb.THREAD_STATUS_FAILED: ThreadStatus.FAILED,
}
_OF_STATUS = {status: number for number, status in _STATUSES.items()}

# The range that the database accepts too. store/thread_lists.py uses it for filters without a time.
_MIN_SECONDS = int(datetime(1, 1, 2, tzinfo=UTC).timestamp())
_MAX_SECONDS = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())


def read_filter(message: pb.ThreadFilter, limits: Limits) -> ThreadFilter:
    """Returns the filter of a request. Raises InvalidArgument."""
    check_optional_text(message.thread_id_prefix, "filter.thread_id_prefix", limits.max_thread_id_bytes)
    metadata = message.metadata
    if message.HasField("metadata_struct"):
        if metadata:
            raise InvalidArgument("filter.metadata_struct", "must be unset where metadata is set")
        metadata = pack_struct(message.metadata_struct)
    statuses = []
    check_count(len(message.statuses), "filter.statuses", len(_STATUSES))
    for position, number in enumerate(message.statuses):
        if number not in _STATUSES:
            raise InvalidArgument(f"filter.statuses[{position}]", f"{number} is not a status that this server knows")
        statuses.append(_STATUSES[number])
    return ThreadFilter(
        prefix=message.thread_id_prefix,
        metadata=project_filter(metadata, limits, field="filter.metadata"),
        tags=_read_tags(message.tags, "filter.tags") or None,
        statuses=tuple(statuses),
        created_from=_read_time(message, "created_from"),
        created_before=_read_time(message, "created_before"),
        active_from=_read_time(message, "active_from"),
        active_before=_read_time(message, "active_before"),
        is_archived=message.archived,
    )


def read_page_size(page_size: int, default: int, limits: Limits) -> int:
    """Returns the maximum number of entries of a page. Raises InvalidArgument."""
    if page_size < 0:
        raise InvalidArgument("page_size", "is negative")
    if page_size > limits.max_page_size:
        limit = limits.max_page_size
        raise InvalidArgument("page_size", f"is {page_size}, at most {limit} are allowed", limit=limit)
    return page_size or min(default, limits.max_page_size)


def read_change(request: pb.UpdateThreadRequest, tenant: str, limits: Limits) -> ThreadChange:
    """Returns a request's changes of a thread. Raises InvalidArgument."""
    check_text(request.thread_id, "thread_id", limits.max_thread_id_bytes)
    set_tags = _read_tags(request.set_tags, "set_tags")
    check_count(len(request.remove_tags), "remove_tags", MAX_TAGS)
    for position, name in enumerate(request.remove_tags):
        check_text(name, f"remove_tags[{position}]", MAX_TAG_NAME_BYTES)
        if name in set_tags:
            raise InvalidArgument(f"remove_tags[{position}]", "is among set_tags too")
    return ThreadChange(
        tenant=tenant,
        thread_id=request.thread_id,
        set_tags=set_tags,
        removed_tags=list(request.remove_tags),
        is_pinned=request.pinned if request.HasField("pinned") else None,
        ttl_seconds=read_ttl(request.ttl_seconds) if request.HasField("ttl_seconds") else None,
    )


def _read_tags(tags: Iterable[pb.ThreadTag], field: str) -> dict[str, str]:
    found = list(tags)
    check_count(len(found), field, MAX_TAGS)
    for position, tag in enumerate(found):
        check_text(tag.name, f"{field}[{position}].name", MAX_TAG_NAME_BYTES)
        check_optional_text(tag.text, f"{field}[{position}].text", MAX_TAG_BYTES)
    check_distinct([tag.name for tag in found], f"{field}[{{}}].name")
    return {tag.name: tag.text for tag in found}


def _read_time(message: Message, name: str) -> datetime | None:
    if not message.HasField(name):
        return None
    time: Timestamp = getattr(message, name)
    if not (_MIN_SECONDS <= time.seconds <= _MAX_SECONDS and 0 <= time.nanos < 10**9):
        raise InvalidArgument(f"filter.{name}", "is not a time between the years 1 and 9999")
    return time.ToDatetime(tzinfo=UTC)


def write_thread(thread: Thread, message: pb.Thread) -> None:
    """Fills in a thread."""
    message.thread_id = thread.thread_id
    message.status = _OF_STATUS[thread.status]
    message.checkpoints = thread.checkpoints
    message.bytes = thread.bytes
    message.created_at.FromDatetime(thread.created_at)
    message.active_at.FromDatetime(thread.active_at)
    message.checkpoint_id = thread.checkpoint_id or ""
    message.metadata_json = thread.metadata
    message.next.extend(thread.next)
    for signal in thread.signals:
        message.signals.add(task_id=signal.task_id, is_error=signal.is_error, json=_json(signal))
    for name in sorted(thread.tags):
        message.tags.add(name=name, text=thread.tags[name])
    if thread.archived_at is not None:
        message.archived_at.FromDatetime(thread.archived_at)
    message.pinned = thread.is_pinned
    message.ttl_seconds = thread.ttl_seconds or 0
    message.serializer_family = write_serializer(thread.serializer)


def _json(signal: Signal) -> str:
    shown = left_out(signal.type, signal.size) if signal.data is None else plain(signal.type, signal.data)
    return json.dumps(shown)


def write_node(node: Node, message: pb.CheckpointNode) -> None:
    """Fills in a checkpoint of a tree."""
    message.checkpoint_ns = node.checkpoint_ns
    message.checkpoint_id = node.checkpoint_id
    message.parent_checkpoint_id = node.parent_checkpoint_id or ""
    message.created_at.FromDatetime(node.created_at)
    message.step = node.step or ""
    message.source = node.source or ""
    message.run_id = node.run_id or ""
    message.writes = node.writes
    message.interrupted = node.is_interrupted
    message.failed = node.has_failed
