"""Translation of failed gRPC calls into the saver's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from langgraph.checkpoint.grpc.errors import (
    AccessDeniedError,
    BaseMissingError,
    CheckpointdError,
    CheckpointNotFoundError,
    DeadlineExceededError,
    EncryptionError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseLostError,
    MessageTooLargeError,
    PredecessorMissingError,
    QuotaExceededError,
    ServerError,
    ThreadArchivedError,
    ThreadExistsError,
    ThreadNotFoundError,
    ThreadPinnedError,
    UnsupportedError,
    VersionConflictError,
)
from langgraph.checkpoint.grpc.portable import SerializerMismatchError

import grpc

Detail = TypeVar("Detail", bound=Message)

DOMAIN = "checkpointd"
"""The domain of the server's ErrorInfo details."""

_NUMBER = re.compile(r"-?[0-9]{1,19}")


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """Returns the ErrorInfo of a failed call; an empty one if it has none (the failure wasn't checkpointd's)."""
    for info in _details(error, error_details_pb2.ErrorInfo):
        if info.domain == DOMAIN:
            return info
    return error_details_pb2.ErrorInfo()


def is_away(error: grpc.RpcError) -> bool:
    """Returns whether a call failed because the server is unavailable or stopping.

    A call that reaches a stopping server is cancelled there. Calls cancelled on this side raise something else, except
    blocking calls on a closed channel.
    """
    if error.code() is grpc.StatusCode.CANCELLED:
        return "closed" not in (error.details() or "").lower()
    return bool(error.code() is grpc.StatusCode.UNAVAILABLE)


def retry_delay(error: grpc.RpcError) -> float | None:
    """Returns when the server wants a failed call to be retried, in seconds, or None."""
    for hint in _details(error, error_details_pb2.RetryInfo):
        return max(float(hint.retry_delay.ToNanoseconds()) / 1e9, 0.0)
    return None


def _details(error: grpc.RpcError, kind: type[Detail]) -> list[Detail]:
    """Returns the details of a type in a failed call's status, without those that can't be parsed."""
    found: list[Detail] = []
    with suppress(DecodeError):
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                for packed in status_pb2.Status.FromString(value).details:
                    detail = kind()
                    if packed.Unpack(detail):
                        found.append(detail)
    return found


def from_rpc_error(error: grpc.RpcError, *, target: str, method: str) -> CheckpointdError:
    """Translates a failed call into the saver's error.

    Args:
        error: What grpc raised.
        target: The server's address, for messages.
        method: The RPC's name, for messages.
    """
    code, info = error.code(), error_info(error)
    reason, metadata = info.reason, info.metadata
    details = error.details() or code.name
    # Without KeyErrors: this may be the answer of any server.
    thread_id = metadata.get("thread_id", "")
    match reason, code:
        case (("VERSION_CONFLICT" | "PREDECESSOR_MISSING"), _):
            kind = VersionConflictError if reason == "VERSION_CONFLICT" else PredecessorMissingError
            return kind(
                thread_id=thread_id,
                checkpoint_ns=metadata.get("checkpoint_ns", ""),
                expected_version=_integer(metadata, "expected_version") or 0,
                current_version=_integer(metadata, "current_version") or 0,
                current_checkpoint_id=metadata.get("current_checkpoint_id"),
            )
        case "LEASE_HELD", _:
            remaining = _integer(metadata, "remaining_ms")
            return LeaseHeldError(thread_id=thread_id, remaining=None if remaining is None else remaining / 1000)
        case "LEASE_LOST", _:
            return LeaseLostError(thread_id=thread_id)
        case (("BASE_MISSING" | "CHAIN_TOO_LONG"), _):
            return BaseMissingError(thread_id=thread_id, channel=metadata.get("channel", ""))
        case "INVALID_ARGUMENT", _:
            return InvalidArgumentError(details, field=metadata.get("field", ""), limit=_integer(metadata, "limit"))
        case "QUOTA_EXCEEDED", _:
            return QuotaExceededError(
                details,
                field=metadata.get("field", ""),
                limit=_integer(metadata, "limit"),
                used=_integer(metadata, "used"),
            )
        case "THREAD_ARCHIVED", _:
            return ThreadArchivedError(details)
        case "THREAD_PINNED", _:
            return ThreadPinnedError(details)
        case "THREAD_NOT_FOUND", _:
            return ThreadNotFoundError(details)
        case "THREAD_EXISTS", _:
            return ThreadExistsError(details)
        case "CHECKPOINT_NOT_FOUND", _:
            return CheckpointNotFoundError(details)
        case "MESSAGE_TOO_LARGE", _:
            return MessageTooLargeError(f"{method}: {details}")
        case (("ITEM_VERSION_CONFLICT" | "VECTORS_UNAVAILABLE"), _):
            from langgraph.checkpoint.grpc.store_errors import item_error

            return item_error(reason, details, metadata)
        case "SERIALIZER_MISMATCH", _:
            return SerializerMismatchError(thread_id, family=metadata.get("thread_serializer_family", ""))
        case "SEALED", _:
            return EncryptionError(details, thread_id=thread_id, place="a value")
        case _, grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidArgumentError(f"{method}: {details}")
        case _, grpc.StatusCode.UNKNOWN if "status: 413" in details:
            return MessageTooLargeError(
                f"{method}: a proxy before the server at {target} refused the message for its size (HTTP 413); let it "
                "pass bodies of any size, for nginx with client_max_body_size 0"
            )
        case _, grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details:
            return MessageTooLargeError(f"{method}: {details}")
        case _, grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return AccessDeniedError(f"checkpointd at {target} refused {method}: {details}")
        case _, grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedError(
                f"the server at {target} doesn't know {method}: is it checkpointd, and as new as this client?"
            )
        case _, grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceededError(f"checkpointd at {target} didn't answer {method} in time")
        case _:
            return ServerError(f"checkpointd at {target} failed in {method}: {details}", code=code.name)


def _integer(metadata: Mapping[str, str], key: str) -> int | None:
    """Returns a number from text. None: missing or invalid."""
    text = metadata.get(key, "")
    return int(text) if _NUMBER.fullmatch(text) else None
