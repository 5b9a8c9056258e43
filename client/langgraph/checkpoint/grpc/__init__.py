"""GrpcSaver: a LangGraph checkpointer that keeps its threads on a checkpointd server."""

from langgraph.checkpoint.grpc.errors import (
    AccessDeniedError,
    CheckpointdError,
    CheckpointNotFoundError,
    DeadlineExceededError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseLostError,
    MessageTooLargeError,
    RefusedError,
    ServerError,
    ServerUnavailableError,
    ThreadExistsError,
    UnsupportedError,
    VersionConflictError,
)
from langgraph.checkpoint.grpc.leases import Lease
from langgraph.checkpoint.grpc.options import TlsOptions
from langgraph.checkpoint.grpc.saver import GrpcSaver

__all__ = [
    "AccessDeniedError",
    "CheckpointNotFoundError",
    "CheckpointdError",
    "DeadlineExceededError",
    "GrpcSaver",
    "InvalidArgumentError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "MessageTooLargeError",
    "RefusedError",
    "ServerError",
    "ServerUnavailableError",
    "ThreadExistsError",
    "TlsOptions",
    "UnsupportedError",
    "VersionConflictError",
]
