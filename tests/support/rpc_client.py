"""The protocol's stubs, and requests that are valid as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
import msgpack
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.errors_pb2 import ErrorReason
from checkpointd.v1.info_service_pb2_grpc import InfoServiceStub
from checkpointd.v1.lease_service_pb2_grpc import LeaseServiceStub
from checkpointd.v1.retention_service_pb2_grpc import RetentionServiceStub
from checkpointd.v1.store_service_pb2_grpc import StoreServiceStub
from checkpointd.v1.thread_service_pb2_grpc import ThreadServiceStub
from checkpointd.v1.value_service_pb2_grpc import ValueServiceStub

RequestT = TypeVar("RequestT", bound=Message)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """How a call failed."""

    code: grpc.StatusCode
    message: str
    reason: str | None
    metadata: dict[str, str]


class Client:
    """The protocol's stubs over one channel, and requests that are valid as they are."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.checkpoints: Any = CheckpointServiceStub(channel)
        self.threads: Any = ThreadServiceStub(channel)
        self.leases: Any = LeaseServiceStub(channel)
        self.info: Any = InfoServiceStub(channel)
        self.values: Any = ValueServiceStub(channel)
        self.store: Any = StoreServiceStub(channel)
        self.retention: Any = RetentionServiceStub(channel)

    def put_request(self, **fields: Any) -> pb.PutCheckpointRequest:
        """Returns a put of a small checkpoint; `fields` replace its fields."""
        request = pb.PutCheckpointRequest(
            thread_id="thread-1",
            checkpoint_id="checkpoint-1",
            body=msgpack.packb({"v": 4, "ts": "2025-01-01T00:00:00+00:00"}),
            metadata=self.metadata({"step": 1}),
        )
        return _replaced(request, fields)

    def writes_request(self, **fields: Any) -> pb.PutWritesRequest:
        """Returns a put of one task write; `fields` replace its fields."""
        request = pb.PutWritesRequest(thread_id="thread-1", checkpoint_id="checkpoint-1", task_id="task-1")
        request.writes.add(idx=0, channel="channel", value=self.value(b"written"))
        return _replaced(request, fields)

    def metadata(self, content: dict[str, Any]) -> values.Metadata:
        return values.Metadata(value=values.TypedValue(type="msgpack", data=msgpack.packb(content)))

    def value(self, data: bytes, type: str = "msgpack") -> values.TypedValue:
        return values.TypedValue(type=type, data=data)

    async def raw(self, method: str, data: bytes, *, timeout: float | None = 20) -> bytes:
        """Calls a method, given as "Service/Method", with bytes as they are."""
        call = self.channel.unary_unary(f"/checkpointd.v1.{method}")
        return bytes(await call(data, timeout=timeout))

    async def refused(self, call: Awaitable[object]) -> Refusal:
        """Awaits a call that should fail, and returns how it failed."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        error = raised.value
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
        message = error.details() or ""
        if details is None:
            return Refusal(code=error.code(), message=message, reason=None, metadata={})
        assert isinstance(details, bytes)
        status = Status.FromString(details)
        assert (status.code, status.message) == (error.code().value[0], message)
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        assert info.domain == "checkpointd"
        assert f"ERROR_REASON_{info.reason}" in ErrorReason.keys()  # noqa: SIM118
        return Refusal(code=error.code(), message=message, reason=info.reason, metadata=dict(info.metadata))


def _replaced(request: RequestT, fields: dict[str, Any]) -> RequestT:
    for name, value in fields.items():
        request.ClearField(name)
        if value is not None:
            request.MergeFrom(type(request)(**{name: value}))
    return request


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def connected(target: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Client]:
    """A client without a token of its own."""
    secure = credentials is not None
    async with grpc.aio.secure_channel(target, credentials) if secure else grpc.aio.insecure_channel(target) as channel:
        yield Client(channel)
