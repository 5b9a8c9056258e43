"""Page tokens: where a list goes on, bound to the request that it belongs to.

A token is no secret and no proof: it is checked like any input, and it names only a position within what the caller may
list anyway, since the tenant comes from the caller's identity. The digest catches mistakes: a token that is sent with
another request would skip checkpoints or repeat them without a word.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from checkpointd.v1.checkpoint_service_pb2 import ListCheckpointsRequest
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.model import CheckpointPosition
from checkpointd_server.rpc.validation import check_optional_text, check_text

_DIGEST_BYTES = 16


def write_page_token(position: CheckpointPosition, request: ListCheckpointsRequest, tenant: str) -> str:
    """Returns the token of the page that starts behind `position`: URL-safe text without padding."""
    payload = _digest(request, tenant) + json.dumps(position, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode()


def read_page_token(request: ListCheckpointsRequest, tenant: str, limits: Limits) -> CheckpointPosition | None:
    """Returns where the request's page starts; None: at the beginning.

    Raises:
        InvalidArgument: The token is malformed, or belongs to another request or tenant.
    """
    token = request.page_token
    if not token:
        return None
    try:
        payload = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        checkpoint_id, thread_id, checkpoint_ns = _list(json.loads(payload[_DIGEST_BYTES:]))
        position = CheckpointPosition(checkpoint_id, thread_id, checkpoint_ns)
        check_text(position.checkpoint_id, "checkpoint_id", limits.max_checkpoint_id_bytes)
        check_text(position.thread_id, "thread_id", limits.max_thread_id_bytes)
        check_optional_text(position.checkpoint_ns, "checkpoint_ns", limits.max_checkpoint_ns_bytes)
    except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError, InvalidArgument):
        raise InvalidArgument("page_token", "is not a token that this server gave out") from None
    if payload[:_DIGEST_BYTES] != _digest(request, tenant):
        raise InvalidArgument("page_token", "belongs to another request: only page_size may change between pages")
    return position


def _list(content: object) -> list[str]:
    if not isinstance(content, list):
        raise TypeError
    return content


def _digest(request: ListCheckpointsRequest, tenant: str) -> bytes:
    bound = ListCheckpointsRequest()
    bound.CopyFrom(request)
    bound.ClearField("page_size")
    bound.ClearField("page_token")
    content = tenant.encode() + b"\0" + bound.SerializeToString(deterministic=True)
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES]
