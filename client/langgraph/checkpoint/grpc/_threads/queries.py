"""Requests of `saver.threads`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp
from langgraph.checkpoint.grpc._convert.arguments import text, thread
from langgraph.checkpoint.grpc._convert.encode import MAX_PAGE
from langgraph.checkpoint.grpc._convert.metadata import filter_of as metadata_filter
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc.errors import InvalidArgumentError

from checkpointd.v1 import thread_service_pb2 as pb

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc.thread_info import ThreadStatus

__all__ = ["INTEGER", "MAX_PAGE", "STATUS_NAMES", "archive", "filter_of", "time_of", "ttl_of", "update"]

INTEGER = re.compile(r"-?[0-9]{1,18}")
STATUS_NAMES: Mapping[pb.ThreadStatus, ThreadStatus] = {
    pb.THREAD_STATUS_IDLE: "idle",
    pb.THREAD_STATUS_RUNNING: "running",
    pb.THREAD_STATUS_INTERRUPTED: "interrupted",
    pb.THREAD_STATUS_FAILED: "failed",
}
_STATUSES = {name: number for number, name in STATUS_NAMES.items()}
_TIMES = ("created_from", "created_before", "active_from", "active_before")


def filter_of(
    serde: ValueSerde,
    *,
    prefix: str = "",
    metadata: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    status: str | Collection[str] = (),
    archived: bool = False,
    **times: datetime | None,
) -> pb.ThreadFilter:
    """Builds a filter of threads. Raises InvalidArgumentError."""
    message = pb.ThreadFilter(thread_id_prefix=text("prefix", prefix), archived=archived)
    for field, given in (("metadata", metadata), ("tags", tags)):
        if given is not None and not isinstance(given, Mapping):
            raise InvalidArgumentError(f"{field}: must be a dict, not {type(given).__name__}", field=field)
    if metadata:
        message.metadata = metadata_filter(serde, metadata)
    for name, value in (tags or {}).items():
        message.tags.add(name=text("tags", name), text=text("tags", value))
    for name in [status] if isinstance(status, str) else status:
        if name not in _STATUSES:
            known = ", ".join(f'"{one}"' for one in _STATUSES)
            raise InvalidArgumentError(f"status: {name!r} is none; there are {known}", field="status")
        message.statuses.append(_STATUSES[name])
    for name, time in times.items():
        if name not in _TIMES:
            raise TypeError(f"there is no argument {name!r}")
        if time is not None:
            if not isinstance(time, datetime):
                raise InvalidArgumentError(f"{name}: must be a datetime, not {type(time).__name__}", field=name)
            getattr(message, name).FromDatetime(time.astimezone(UTC))
    return message


def archive(thread_id: str, *, unarchive: bool = False) -> pb.ArchiveThreadRequest:
    """Builds the request that archives or unarchives a thread."""
    return pb.ArchiveThreadRequest(thread_id=thread(thread_id), unarchive=unarchive)


def update(
    thread_id: str, tags: Mapping[str, str | None] | None, pinned: bool | None, ttl_seconds: int | None
) -> pb.UpdateThreadRequest:
    """Builds the request that changes a thread's tags, pin and time to live. Raises InvalidArgumentError."""
    request = pb.UpdateThreadRequest(thread_id=thread(thread_id))
    for name, value in (tags or {}).items():
        if value is None:
            request.remove_tags.append(text("tags", name))
        else:
            request.set_tags.add(name=text("tags", name), text=text("tags", value))
    if pinned is not None:
        request.pinned = pinned
    if ttl_seconds is not None:
        request.ttl_seconds = ttl_of(ttl_seconds)
    return request


def ttl_of(ttl_seconds: int) -> int:
    """Checks and returns a time to live in seconds; 0: none. Raises InvalidArgumentError if it is invalid."""
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int) or not 0 <= ttl_seconds < 2**63:
        raise InvalidArgumentError("ttl_seconds: must be a whole number of seconds from 0", field="ttl_seconds")
    return ttl_seconds


def time_of(message: Timestamp) -> datetime:
    """Returns a time from the server, in UTC."""
    return message.ToDatetime(tzinfo=UTC)
