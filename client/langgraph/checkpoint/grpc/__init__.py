"""GrpcSaver: a LangGraph checkpointer that keeps its threads on a checkpointd server."""

from langgraph.checkpoint.grpc import _grpc_verbosity  # noqa: F401  # before all that imports grpc
from langgraph.checkpoint.grpc._store.index import TextIndexConfig, VectorIndexConfig
from langgraph.checkpoint.grpc._store.items import FoundItem, StoredItem
from langgraph.checkpoint.grpc.encryption import Encryption
from langgraph.checkpoint.grpc.errors import (
    AccessDeniedError,
    BaseMissingError,
    CheckpointdError,
    CheckpointNotFoundError,
    CorruptValueError,
    DeadlineExceededError,
    EncryptionError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseLostError,
    MessageTooLargeError,
    PlaintextError,
    PredecessorMissingError,
    QuotaExceededError,
    ServerError,
    ServerUnavailableError,
    TamperedValueError,
    ThreadArchivedError,
    ThreadExistsError,
    ThreadNotFoundError,
    ThreadPinnedError,
    UnknownKeyError,
    UnsupportedError,
    VersionConflictError,
    WriteConflictError,
)
from langgraph.checkpoint.grpc.leases import Lease
from langgraph.checkpoint.grpc.portable import PortableSerializer, SerializerMismatchError, UnportableValueError
from langgraph.checkpoint.grpc.retention import ExpiringThread, Retention
from langgraph.checkpoint.grpc.saver import GrpcSaver
from langgraph.checkpoint.grpc.state_errors import InvalidStateError, StateMigrationError, StateVersionError
from langgraph.checkpoint.grpc.state_hooks import StateHooks, StatePlace
from langgraph.checkpoint.grpc.store import GrpcStore
from langgraph.checkpoint.grpc.store_errors import ItemConflictError, VectorsUnavailableError
from langgraph.checkpoint.grpc.thread_info import CheckpointNode, ThreadDiff, ThreadInfo, ThreadQuery
from langgraph.checkpoint.grpc.thread_migration import ThreadMigration
from langgraph.checkpoint.grpc.threads import Threads
from langgraph.checkpoint.grpc.tls import TlsOptions

__all__ = [
    "AccessDeniedError",
    "BaseMissingError",
    "CheckpointNode",
    "CheckpointNotFoundError",
    "CheckpointdError",
    "CorruptValueError",
    "DeadlineExceededError",
    "Encryption",
    "EncryptionError",
    "ExpiringThread",
    "FoundItem",
    "GrpcSaver",
    "GrpcStore",
    "InvalidArgumentError",
    "InvalidStateError",
    "ItemConflictError",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "MessageTooLargeError",
    "PlaintextError",
    "PortableSerializer",
    "PredecessorMissingError",
    "QuotaExceededError",
    "Retention",
    "SerializerMismatchError",
    "ServerError",
    "ServerUnavailableError",
    "StateHooks",
    "StateMigrationError",
    "StatePlace",
    "StateVersionError",
    "StoredItem",
    "TamperedValueError",
    "TextIndexConfig",
    "ThreadArchivedError",
    "ThreadDiff",
    "ThreadExistsError",
    "ThreadInfo",
    "ThreadMigration",
    "ThreadNotFoundError",
    "ThreadPinnedError",
    "ThreadQuery",
    "Threads",
    "TlsOptions",
    "UnknownKeyError",
    "UnportableValueError",
    "UnsupportedError",
    "VectorIndexConfig",
    "VectorsUnavailableError",
    "VersionConflictError",
    "WriteConflictError",
]
