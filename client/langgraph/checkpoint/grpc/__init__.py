"""GrpcSaver: a LangGraph checkpointer that keeps its threads on a checkpointd server."""

from langgraph.checkpoint.grpc.encryption import Encryption
from langgraph.checkpoint.grpc.errors import (
    AccessDeniedError,
    CheckpointdError,
    CheckpointNotFoundError,
    DamagedValueError,
    DeadlineExceededError,
    EncryptionError,
    IntegrityError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseLostError,
    MessageTooLargeError,
    PlaintextError,
    RefusedError,
    ServerError,
    ServerUnavailableError,
    ThreadExistsError,
    UnknownKeyError,
    UnsupportedError,
    VersionConflictError,
)
from langgraph.checkpoint.grpc.leases import Lease
from langgraph.checkpoint.grpc.saver import GrpcSaver
from langgraph.checkpoint.grpc.tls import TlsOptions

__all__ = [
    "AccessDeniedError",
    "CheckpointNotFoundError",
    "CheckpointdError",
    "DamagedValueError",
    "DeadlineExceededError",
    "Encryption",
    "EncryptionError",
    "GrpcSaver",
    "IntegrityError",
    "InvalidArgumentError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "MessageTooLargeError",
    "PlaintextError",
    "RefusedError",
    "ServerError",
    "ServerUnavailableError",
    "ThreadExistsError",
    "TlsOptions",
    "UnknownKeyError",
    "UnsupportedError",
    "VersionConflictError",
]
