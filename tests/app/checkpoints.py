"""Puts and finds checkpoints without a saver."""

from __future__ import annotations

import grpc

from checkpointd.v1.checkpoint_service_pb2 import GetCheckpointRequest, PutCheckpointRequest
from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd.v1.values_pb2 import Metadata, TypedValue


def put(target: str, thread_id: str, *, timeout: float = 10) -> int:
    with grpc.insecure_channel(target) as channel:
        request = PutCheckpointRequest(
            thread_id=thread_id,
            checkpoint_id="1",
            body=b"\x81\xa1v\x04",
            metadata=Metadata(value=TypedValue(type="msgpack", data=b"\x80")),
        )
        version: int = CheckpointServiceStub(channel).PutCheckpoint(request, timeout=timeout).version
        return version


def is_there(target: str, thread_id: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        request = GetCheckpointRequest(thread_id=thread_id)
        return bool(CheckpointServiceStub(channel).GetCheckpoint(request, timeout=10).HasField("tuple"))
