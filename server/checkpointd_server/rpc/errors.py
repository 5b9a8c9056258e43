"""Errors as callers see them: one table maps the domain's errors to status codes and reasons.

A failed call carries a google.rpc.Status with one ErrorInfo, as errors.proto documents. An error that is not in the
table is an internal error: the client gets only its error_id, and the log has the details.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from checkpointd.v1 import errors_pb2
from checkpointd_server.domain.errors import (
    BaseMissing,
    BrokenPatch,
    ChainTooLong,
    CheckpointdError,
    CheckpointNotFound,
    DatabaseFull,
    DatabaseUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    ItemVersionConflict,
    LeaseHeld,
    LeaseLost,
    Overloaded,
    PolicyNotFound,
    PredecessorMissing,
    QuotaExceeded,
    ResultTooLarge,
    SealedValue,
    SerializerMismatch,
    ThreadArchived,
    ThreadExists,
    ThreadNotFound,
    ThreadPinned,
    VectorsUnavailable,
    VersionConflict,
)
from checkpointd_server.rpc.auth.scopes import KeysUnavailable, PermissionDenied, Unauthenticated

DOMAIN = "checkpointd"
"""The ErrorInfo domain of every error of ours."""
DETAILS_KEY = "grpc-status-details-bin"
"""The metadata key in which gRPC libraries look for the google.rpc.Status."""

_MAX_MESSAGE_BYTES = 1024
"""Maximum length of a status message in gRPC's percent-encoding. It travels in HTTP/2 headers next to the
details, which hold ids in full, and clients drop answers with more than 8 KiB of headers."""


class RequestTooLarge(CheckpointdError):
    """The request is larger than the server accepts."""

    def __init__(self, size: int, *, limit: int) -> None:
        super().__init__(f"the request has {size} bytes, the largest message is {limit}")
        self.limit = limit


class Draining(CheckpointdError):
    """The server is shutting down."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; send this again to another replica or after a while")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The report of one kind of error."""

    code: grpc.StatusCode
    """The call's status."""
    reason: errors_pb2.ErrorReason
    """The reason in ErrorInfo."""
    metadata: Callable[[Any], dict[str, object]] = lambda error: {}
    """ErrorInfo's metadata. Keys whose value is None are left out."""
    level: int = logging.INFO
    """The log level: INFO for errors that clients cause or must expect, WARNING for what an operator can fix."""


def _conflict(error: VersionConflict) -> dict[str, object]:
    return {
        "thread_id": error.thread_id,
        "checkpoint_ns": error.checkpoint_ns,
        "expected_version": error.expected_version,
        "current_version": error.current_version,
        "current_checkpoint_id": error.current_checkpoint_id,
    }


RULES: dict[type[CheckpointdError], Rule] = {
    InvalidArgument: Rule(
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=errors_pb2.ERROR_REASON_INVALID_ARGUMENT,
        metadata=lambda error: {"field": error.field, "limit": error.limit},
    ),
    VersionConflict: Rule(
        code=grpc.StatusCode.ABORTED,
        reason=errors_pb2.ERROR_REASON_VERSION_CONFLICT,
        metadata=_conflict,
    ),
    PredecessorMissing: Rule(
        code=grpc.StatusCode.ABORTED,
        reason=errors_pb2.ERROR_REASON_PREDECESSOR_MISSING,
        metadata=_conflict,
    ),
    LeaseHeld: Rule(
        code=grpc.StatusCode.ABORTED,
        reason=errors_pb2.ERROR_REASON_LEASE_HELD,
        metadata=lambda error: {
            "thread_id": error.thread_id,
            "remaining_ms": None if error.remaining is None else int(error.remaining * 1000),
        },
    ),
    LeaseLost: Rule(
        code=grpc.StatusCode.ABORTED,
        reason=errors_pb2.ERROR_REASON_LEASE_LOST,
        metadata=lambda error: {"thread_id": error.thread_id},
    ),
    SerializerMismatch: Rule(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=errors_pb2.ERROR_REASON_SERIALIZER_MISMATCH,
        metadata=lambda error: {
            "thread_id": error.thread_id,
            "serializer_family": error.family.label,
            "thread_serializer_family": error.found.label,
        },
    ),
    ThreadArchived: Rule(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=errors_pb2.ERROR_REASON_THREAD_ARCHIVED,
        metadata=lambda error: {"thread_id": error.thread_id},
    ),
    ThreadPinned: Rule(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=errors_pb2.ERROR_REASON_THREAD_PINNED,
        metadata=lambda error: {"thread_id": error.thread_id},
    ),
    PolicyNotFound: Rule(
        code=grpc.StatusCode.NOT_FOUND,
        reason=errors_pb2.ERROR_REASON_POLICY_NOT_FOUND,
        metadata=lambda error: {"name": error.name},
    ),
    ThreadNotFound: Rule(
        code=grpc.StatusCode.NOT_FOUND,
        reason=errors_pb2.ERROR_REASON_THREAD_NOT_FOUND,
        metadata=lambda error: {"thread_id": error.thread_id},
    ),
    ThreadExists: Rule(
        code=grpc.StatusCode.ALREADY_EXISTS,
        reason=errors_pb2.ERROR_REASON_THREAD_EXISTS,
        metadata=lambda error: {"thread_id": error.thread_id},
    ),
    CheckpointNotFound: Rule(
        code=grpc.StatusCode.NOT_FOUND,
        reason=errors_pb2.ERROR_REASON_CHECKPOINT_NOT_FOUND,
        metadata=lambda error: {"thread_id": error.thread_id, "checkpoint_id": error.checkpoint_id},
    ),
    ItemVersionConflict: Rule(
        code=grpc.StatusCode.ABORTED,
        reason=errors_pb2.ERROR_REASON_ITEM_VERSION_CONFLICT,
        metadata=lambda error: {
            "namespace": json.dumps(error.namespace, ensure_ascii=False),
            "key": error.key,
            "expected_version": error.expected_version,
            "current_version": error.current_version,
        },
    ),
    VectorsUnavailable: Rule(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=errors_pb2.ERROR_REASON_VECTORS_UNAVAILABLE,
    ),
    BaseMissing: Rule(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=errors_pb2.ERROR_REASON_BASE_MISSING,
        metadata=lambda error: {"thread_id": error.thread_id, "channel": error.channel},
    ),
    ChainTooLong: Rule(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=errors_pb2.ERROR_REASON_CHAIN_TOO_LONG,
        metadata=lambda error: {"thread_id": error.thread_id, "channel": error.channel, "limit": error.limit},
    ),
    SealedValue: Rule(code=grpc.StatusCode.FAILED_PRECONDITION, reason=errors_pb2.ERROR_REASON_SEALED),
    BrokenPatch: Rule(
        code=grpc.StatusCode.DATA_LOSS,
        reason=errors_pb2.ERROR_REASON_CORRUPT_VALUE,
        level=logging.WARNING,
    ),
    RequestTooLarge: Rule(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason=errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
        metadata=lambda error: {"limit": error.limit},
        level=logging.WARNING,
    ),
    ResultTooLarge: Rule(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason=errors_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
        metadata=lambda error: {"limit": error.limit},
        level=logging.WARNING,
    ),
    Overloaded: Rule(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason=errors_pb2.ERROR_REASON_OVERLOADED,
        metadata=lambda error: {"bound": error.bound, "limit": error.limit},
        # There may be thousands per second; `AdmissionController` logs once that there are any.
        level=logging.DEBUG,
    ),
    QuotaExceeded: Rule(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason=errors_pb2.ERROR_REASON_QUOTA_EXCEEDED,
        metadata=lambda error: {"field": error.quota, "limit": error.limit, "used": error.used},
    ),
    Unauthenticated: Rule(code=grpc.StatusCode.UNAUTHENTICATED, reason=errors_pb2.ERROR_REASON_UNAUTHENTICATED),
    PermissionDenied: Rule(
        code=grpc.StatusCode.PERMISSION_DENIED,
        reason=errors_pb2.ERROR_REASON_PERMISSION_DENIED,
        metadata=lambda error: {"scope": error.scope.value},
    ),
    KeysUnavailable: Rule(
        code=grpc.StatusCode.UNAVAILABLE,
        reason=errors_pb2.ERROR_REASON_KEYS_UNAVAILABLE,
        level=logging.WARNING,
    ),
    DatabaseUnavailable: Rule(
        code=grpc.StatusCode.UNAVAILABLE,
        reason=errors_pb2.ERROR_REASON_DATABASE_UNAVAILABLE,
        level=logging.WARNING,
    ),
    DatabaseFull: Rule(
        code=grpc.StatusCode.UNAVAILABLE,
        reason=errors_pb2.ERROR_REASON_DATABASE_UNAVAILABLE,
        level=logging.WARNING,
    ),
    Draining: Rule(code=grpc.StatusCode.UNAVAILABLE, reason=errors_pb2.ERROR_REASON_DRAINING),
    DeadlineExceeded: Rule(
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        reason=errors_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
        level=logging.WARNING,
    ),
}
"""Every error that clients get. A subclass is reported by the rule of its nearest base."""

FAULT = Rule(code=grpc.StatusCode.INTERNAL, reason=errors_pb2.ERROR_REASON_INTERNAL, level=logging.ERROR)
"""How all other errors are reported."""


class Failure(NamedTuple):
    """An error, ready to be sent and logged."""

    code: grpc.StatusCode
    message: str
    reason: str
    """The reason's name without its prefix."""
    metadata: dict[str, str]
    """The details of the reason."""
    trailers: tuple[tuple[str, bytes], ...]
    level: int
    retry_after_ms: int
    """When the client should retry, in milliseconds. 0: unspecified."""
    error_id: str | None
    """Connects an INTERNAL error with the log. None for errors that explain themselves."""


def describe_error(error: Exception, *, retry_after: float | None = None) -> Failure:
    """Returns an error in the form that is sent and logged.

    Args:
        error: What a call raised.
        retry_after: When the client should retry, in seconds. None: unspecified.
    """
    rule = next((RULES[kind] for kind in type(error).__mro__ if kind in RULES), FAULT)
    if rule is FAULT:
        error_id = secrets.token_hex(16)
        message = f"internal error; the server's log has more under error_id {error_id}"
        metadata: dict[str, object] = {"error_id": error_id}
    else:
        error_id = None
        message = _shortened(str(error))
        metadata = rule.metadata(error)
    reason = errors_pb2.ErrorReason.Name(rule.reason).removeprefix("ERROR_REASON_")
    told = {key: str(value) for key, value in metadata.items() if value is not None}
    info = ErrorInfo(reason=reason, domain=DOMAIN, metadata=told)
    status = Status(code=rule.code.value[0], message=message)
    status.details.add().Pack(info)
    retry_after_ms = 0 if retry_after is None else max(int(retry_after * 1000), 1)
    if retry_after_ms:
        hint = RetryInfo()
        hint.retry_delay.FromMilliseconds(retry_after_ms)
        status.details.add().Pack(hint)
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    return Failure(rule.code, message, reason, told, trailers, rule.level, retry_after_ms, error_id)


def _shortened(message: str) -> str:
    """Truncates a message to fit into a header. ErrorInfo has the full ids."""
    message = message.encode("utf-8", "backslashreplace").decode()
    if len(message) * 12 <= _MAX_MESSAGE_BYTES or len(quote(message, safe="")) <= _MAX_MESSAGE_BYTES:
        return message
    kept, room = 0, _MAX_MESSAGE_BYTES - len(quote("…"))
    for character in message:
        room -= len(quote(character, safe=""))
        if room < 0:
            break
        kept += 1
    return message[:kept] + "…"
