"""Operations: the calls of a pipeline, from submission to result.

A request is serialized once, by its caller. Fields that are known only when it is sent, such as its precondition, are
appended: protobuf reads fields in any order. So sending an operation, even repeatedly, only joins bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextvars import Context
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from langgraph.checkpoint.grpc._transport.rpc_errors import DOMAIN
from langgraph.checkpoint.grpc.errors import CheckpointdError

import grpc
from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1.operation_failure_pb2 import OperationFailure

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc._transport.lane import Lane
    from langgraph.checkpoint.grpc._transport.retry import Attempts
    from langgraph.checkpoint.grpc._transport.tracing import CallSpan

Metadata = tuple[tuple[str, str], ...]
"""The metadata of a call: its token."""
Namespace = tuple[str, str]
"""A thread and a namespace within it."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """Returns a number as protobuf, and a patch, write it: unsigned LEB128."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def key_of(message: Any, field: str, wire_type: int = 2) -> bytes:
    """Returns what precedes a field's value."""
    return varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | wire_type)


_OPERATIONS = key_of(pb.PipelineRequest, "operations")
_ID = key_of(pb.Operation, "id", 0)
_TIMEOUT = key_of(pb.Operation, "timeout_ms", 0)
_TRACEPARENT = key_of(pb.Operation, "traceparent")


class Kind(NamedTuple):
    """A kind of operation."""

    service: str
    """The service of the equivalent unary RPC."""
    method: str
    """The equivalent unary RPC."""
    result: str
    """The field of a result that has the answer."""
    request: Any
    """The request's type."""
    response: Any
    """The answer's type."""
    field: bytes
    """The bytes before the request in an operation."""
    lingers: bool = True
    """True if it may wait for others to share a message with."""


PUT = Kind(
    "CheckpointService",
    "PutCheckpoint",
    "put_checkpoint",
    pb.PutCheckpointRequest,
    pb.PutCheckpointResponse,
    key_of(pb.Operation, "put_checkpoint"),
)
WRITES = Kind(
    "CheckpointService",
    "PutWrites",
    "put_writes",
    pb.PutWritesRequest,
    pb.PutWritesResponse,
    key_of(pb.Operation, "put_writes"),
)
GET = Kind(
    "CheckpointService",
    "GetCheckpoint",
    "get_checkpoint",
    pb.GetCheckpointRequest,
    pb.GetCheckpointResponse,
    key_of(pb.Operation, "get_checkpoint"),
)
BATCH = Kind(
    "StoreService",
    "Batch",
    "store_batch",
    store_pb.BatchRequest,
    store_pb.BatchResponse,
    key_of(pb.Operation, "store_batch"),
    lingers=False,
)


class Chain:
    """Operations of one run in one namespace that build on each other: those after a failed put fail too."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        self.failure: CheckpointdError | None = None
        """The error of a put of the chain that failed for good."""


class Operation:
    """One call.

    Args:
        kind: Its kind.
        namespace: Where.
        body: Its serialized request.
        settled: Called once when there is a response or an error, in the pipeline's thread.
    """

    __slots__ = (
        "abandoned",
        "after_puts",
        "alone",
        "attempts",
        "begun",
        "body",
        "chain",
        "context",
        "error",
        "id",
        "kind",
        "lane",
        "metadata",
        "namespace",
        "on_settled",
        "owner",
        "pipeline",
        "rebuild",
        "refresh",
        "response",
        "sent_at",
        "span",
        "spared",
        "tail",
        "trace",
    )

    def __init__(self, kind: Kind, namespace: Namespace, body: bytes, settled: Callable[[Operation], None]) -> None:
        self.kind = kind
        self.namespace = namespace
        self.body = body
        self.on_settled = settled
        self.owner: Any = None
        """The caller's own data."""
        self.metadata: Metadata = ()
        self.context: Context | None = None
        """The context in which the token callable is called again. None: the token never changes."""
        self.pipeline: Any = None
        """Its pipeline, if its order there matters."""
        self.tail = b""
        """Further serialized fields of the request: its precondition."""
        self.refresh: Callable[[Operation, str], bool] | None = None
        """Makes the tail again before it is sent again, given the checkpoint that the server says was put last, or "".
        Returns whether it has changed."""
        self.rebuild: Callable[[], Generator[Any, Any, bytes | None]] | None = None
        """A flow that builds its body again with whole values instead of patches. None: it has no patches."""
        self.chain: Chain | None = None
        """The chain of puts that it belongs to."""
        self.after_puts = False
        """True if it is sent only after earlier puts have been answered."""
        self.alone = False
        """True if it is sent as a unary call."""
        self.abandoned = False
        """True if it was abandoned, and needn't be sent."""
        self.begun = time.monotonic()
        self.sent_at = 0.0
        self.attempts: Attempts | None = None
        self.spared = False
        """True if it was already resent after a broken stream, without counting as a failure."""
        self.span: CallSpan | None = None
        """Its span, if it is traced."""
        self.trace = b""
        """The serialized field that carries its span."""
        self.id = 0
        self.lane: Lane | None = None
        self.response: Any = None
        self.error: CheckpointdError | None = None

    @property
    def size(self) -> int:
        """Its approximate size in a message, in bytes."""
        return len(self.body) + len(self.tail) + 32

    @property
    def is_settled(self) -> bool:
        """True if there is a response or an error."""
        return self.response is not None or self.error is not None

    def request(self) -> bytes:
        """Returns the whole request, serialized."""
        return self.body + self.tail if self.tail else self.body

    def write_to(self, parts: list[bytes], timeout: bytes) -> None:
        """Appends it to the parts of a PipelineRequest, serialized."""
        size = len(self.body) + len(self.tail)
        head = b"".join((_ID, varint(self.id), timeout, self.trace, self.kind.field, varint(size)))
        parts += (_OPERATIONS, varint(len(head) + size), head, self.body, self.tail)

    def trace_by(self, span: CallSpan) -> None:
        """Traces it until it is settled."""
        traceparent = span.traceparent.encode()
        self.span, self.trace = span, _TRACEPARENT + varint(len(traceparent)) + traceparent

    @property
    def headers(self) -> Metadata:
        """Its headers as a unary call."""
        return self.metadata if self.span is None else self.metadata + self.span.headers

    def settle(self, response: Any, error: CheckpointdError | None) -> None:
        """Sets its outcome and wakes its waiters."""
        if self.response is None and self.error is None:
            self.response, self.error, self.lane = response, error, None
            if self.span is not None:
                self.span.end(error)
            self.on_settled(self)


def timeout_field(seconds: float) -> bytes:
    """Returns the serialized field of an operation's timeout."""
    return _TIMEOUT + varint(min(max(int(seconds * 1000), 1), 2**32 - 1))


class OperationError(grpc.RpcError):  # type: ignore[misc]
    """A failed operation, with the interface of a failed RPC."""

    def __init__(self, failure: OperationFailure) -> None:
        super().__init__(failure.message)
        self._failure = failure

    def code(self) -> grpc.StatusCode:
        """Returns the status."""
        return _CODES.get(self._failure.code, grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        """Returns what the server says of it."""
        return self._failure.message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Returns the reason and what belongs to it, where an RPC has them."""
        status = Status(code=self._failure.code, message=self._failure.message)
        info = ErrorInfo(domain=DOMAIN, reason=self._failure.reason, metadata=self._failure.metadata)
        status.details.add().Pack(info)
        if self._failure.retry_after_ms:
            hint = RetryInfo()
            hint.retry_delay.FromMilliseconds(self._failure.retry_after_ms)
            status.details.add().Pack(hint)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def local_error(code: grpc.StatusCode, details: str) -> grpc.RpcError:
    """Returns an error that was detected on this side, such as a timeout or an ended stream."""
    return OperationError(OperationFailure(code=code.value[0], message=details))
