"""Page tokens: the position where a list or history continues, bound to its request.

A token is neither secret nor trusted: it is checked like any input, and only names a position within what the caller
may read anyway, because the tenant comes from the caller's identity. The digest catches mistakes: without it, a token
sent with another request would silently skip or repeat checkpoints.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import retention_service_pb2 as retention_pb
from checkpointd.v1 import tenant_service_pb2 as tenants_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd_server.domain.checkpoints import CheckpointPosition
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.retention import RetentionPosition
from checkpointd_server.domain.thread_lists import NodePosition, ThreadPosition
from checkpointd_server.rpc.conversion.validation import check_optional_text, check_text

Position = TypeVar("Position")

_DIGEST_BYTES = 16
_MAX_TOKEN_CHARACTERS = 64 * 1024
"""Maximum length of a token: longer than any that is issued."""

_MALFORMED = (binascii.Error, ValueError, TypeError, AttributeError, RecursionError, InvalidArgument)
_NOT_OURS = "is not a token that this server gave out"

_Paged = (
    pb.ListCheckpointsRequest
    | pb.GetDeltaChannelHistoryRequest
    | threads_pb.ListThreadsRequest
    | threads_pb.GetThreadTreeRequest
    | threads_pb.PurgeThreadsRequest
    | tenants_pb.ListTenantsRequest
    | tenants_pb.PurgeTenantRequest
    | retention_pb.PreviewRetentionRequest
    | retention_pb.RunRetentionRequest
    | retention_pb.ListExpiringRequest
)
_Retained = retention_pb.PreviewRetentionRequest | retention_pb.RunRetentionRequest | retention_pb.ListExpiringRequest


def write_list_token(position: CheckpointPosition, request: pb.ListCheckpointsRequest, tenant: str) -> str:
    """Returns the token of the page that starts after `position`."""
    return _write(position, request, tenant)


def read_list_token(request: pb.ListCheckpointsRequest, tenant: str, limits: Limits) -> CheckpointPosition | None:
    """Returns where the request's page starts. None: at the beginning. Raises InvalidArgument."""
    if not request.page_token:
        return None
    try:
        digest, content = _read(request.page_token)
        checkpoint_id, thread_id, checkpoint_ns = content
        position = CheckpointPosition(checkpoint_id, thread_id, checkpoint_ns)
        check_text(position.checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
        check_text(position.thread_id, "thread_id", limits.max_thread_id_bytes)
        check_optional_text(position.checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
    except _MALFORMED:
        raise InvalidArgument("page_token", _NOT_OURS) from None
    _check(digest, request, tenant)
    return position


def write_history_token(after: str, request: pb.GetDeltaChannelHistoryRequest, tenant: str) -> str:
    """Returns the token of the page that starts at the store's position."""
    return _write([after], request, tenant)


def read_history_token(request: pb.GetDeltaChannelHistoryRequest, tenant: str) -> str | None:
    """Returns the store's position where the request's page starts. None: at the beginning.

    Raises InvalidArgument.
    """
    if not request.page_token:
        return None
    try:
        digest, content = _read(request.page_token)
        (after,) = content
        check_text(after, "after", _MAX_TOKEN_CHARACTERS)
    except _MALFORMED:
        raise InvalidArgument("page_token", _NOT_OURS) from None
    _check(digest, request, tenant)
    return after


def write_threads_token(position: ThreadPosition, request: threads_pb.ListThreadsRequest, tenant: str) -> str:
    """Returns the token of the page that starts after `position`."""
    return _write([position.active_at.isoformat(), str(position.thread)], request, tenant)


def read_threads_token(request: threads_pb.ListThreadsRequest, tenant: str) -> ThreadPosition | None:
    """Returns where the request's page starts. None: at the beginning. Raises InvalidArgument."""
    return read_position(request, tenant, lambda content: ThreadPosition(*_time_and_thread(content)))


def write_nodes_token(position: NodePosition, request: threads_pb.GetThreadTreeRequest, tenant: str) -> str:
    """Returns the token of the page that starts after `position`."""
    return _write(position, request, tenant)


def read_nodes_token(request: threads_pb.GetThreadTreeRequest, tenant: str, limits: Limits) -> NodePosition | None:
    """Returns where the request's page starts. None: at the beginning. Raises InvalidArgument."""
    if not request.page_token:
        return None
    try:
        digest, content = _read(request.page_token)
        checkpoint_id, checkpoint_ns = content
        check_text(checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
        check_optional_text(checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
    except _MALFORMED:
        raise InvalidArgument("page_token", _NOT_OURS) from None
    _check(digest, request, tenant)
    return NodePosition(checkpoint_id, checkpoint_ns)


def write_retention_token(position: RetentionPosition, request: _Retained, tenant: str) -> str:
    """Returns the token of the part that starts after `position`."""
    return _write([position.listed_at.isoformat(), str(position.thread)], request, tenant)


def read_retention_token(request: _Retained, tenant: str) -> RetentionPosition | None:
    """Returns where the request's part starts. None: at the beginning. Raises InvalidArgument."""
    return read_position(request, tenant, lambda content: RetentionPosition(*_time_and_thread(content)))


def _time_and_thread(content: list[str]) -> tuple[datetime, UUID]:
    time, thread = content
    found = datetime.fromisoformat(time)
    if found.utcoffset() != timedelta():
        raise ValueError
    return found, UUID(thread)


def write_position(content: Sequence[str], request: _Paged, tenant: str) -> str:
    """Returns the token of the page that starts at a position."""
    return _write(content, request, tenant)


def read_position(request: _Paged, tenant: str, read: Callable[[list[str]], Position]) -> Position | None:
    """Returns where the request's page starts. None: at the beginning. Raises InvalidArgument.

    Args:
        request: The request.
        tenant: The caller's tenant.
        read: Parses the position. Raises ValueError or InvalidArgument if it is invalid.
    """
    if not request.page_token:
        return None
    try:
        digest, content = _read(request.page_token)
        position = read(content)
    except _MALFORMED:
        raise InvalidArgument("page_token", _NOT_OURS) from None
    _check(digest, request, tenant)
    return position


def _write(position: Sequence[str], request: _Paged, tenant: str) -> str:
    """Returns a token: URL-safe text without padding."""
    content = json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(request, tenant) + content).rstrip(b"=").decode()


def _read(token: str) -> tuple[bytes, list[str]]:
    """Returns the digest and the content of a token. Raises one of _MALFORMED."""
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise ValueError
    payload = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    content = json.loads(payload[_DIGEST_BYTES:])
    if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
        raise TypeError
    return payload[:_DIGEST_BYTES], content


def _check(digest: bytes, request: _Paged, tenant: str) -> None:
    if digest != _digest(request, tenant):
        raise InvalidArgument("page_token", "belongs to another request: only page_size may change between pages")


def _digest(request: _Paged, tenant: str) -> bytes:
    bound = deepcopy(request)
    if "page_size" in bound.DESCRIPTOR.fields_by_name:
        bound.page_size = 0  # type: ignore[union-attr]  # looked up
    bound.page_token = ""
    content = tenant.encode() + b"\0" + bound.SerializeToString(deterministic=True)
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]
