"""Decoding of a server's rejections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    from checkpointd.v1.operation_failure_pb2 import OperationFailure

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A server's reason for rejecting a call."""

    code: int
    """The number of the gRPC status code."""
    reason: str = ""
    """The reason, without its prefix. Empty: the error doesn't come from a checkpointd server."""
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Details of the reason, such as the `field` of an invalid argument."""
    retry_after: float | None = None
    """The seconds after which to retry the call. None: the server doesn't say."""

    @classmethod
    def of_call(cls, error: grpc.RpcError) -> Refusal:
        """Reads the error of a call."""
        info, retry_after = ErrorInfo(), None
        for detail in _details(error):
            hint = RetryInfo()
            if detail.Unpack(hint):
                retry_after = hint.retry_delay.ToTimedelta().total_seconds()
            else:
                detail.Unpack(info)
        return cls(
            code=error.code().value[0],
            reason=info.reason,
            message=error.details() or "",
            metadata=dict(info.metadata),
            retry_after=retry_after,
        )

    @classmethod
    def of_operation(cls, failure: OperationFailure) -> Refusal:
        """Reads the error of an operation of a stream."""
        retry_after = failure.retry_after_ms / 1000 or None
        return cls(code=failure.code, reason=failure.reason, message=failure.message, retry_after=retry_after)


def _details(error: grpc.RpcError) -> list[Any]:
    packed = dict(error.trailing_metadata() or ()).get(_DETAILS_KEY, b"")
    try:
        return list(Status.FromString(packed).details)
    except DecodeError:
        return []
