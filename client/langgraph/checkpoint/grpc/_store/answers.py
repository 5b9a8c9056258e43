"""Conversion of the server's answers to LangGraph's items. Answers aren't trusted to be valid."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from langgraph.checkpoint.grpc._store.items import FoundItem, StoredItem
from langgraph.checkpoint.grpc._store.values import ItemSerde
from langgraph.checkpoint.grpc._transport.operation import OperationError
from langgraph.checkpoint.grpc._transport.rpc_errors import from_rpc_error
from langgraph.checkpoint.grpc.errors import CorruptValueError

from checkpointd.v1 import store_service_pb2 as pb

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def single_result(
    operation: pb.StoreOperation, outcome: pb.StoreResult, serde: ItemSerde, target: str
) -> StoredItem | None:
    """Returns the result of a single operation. Raises CheckpointdError."""
    if outcome.HasField("failure"):
        raise from_rpc_error(OperationError(outcome.failure), target=target, method=f"Batch ({kind_of(operation)})")
    return read_item(outcome.get, serde) if outcome.HasField("get") else None


def is_too_large(outcome: pb.StoreResult) -> bool:
    """Returns whether an answer didn't fit beside others, and must be requested alone."""
    return outcome.HasField("failure") and outcome.failure.reason == "MESSAGE_TOO_LARGE"


def check_results(response: pb.BatchResponse, request: pb.BatchRequest) -> Sequence[pb.StoreResult]:
    """Returns a batch's results. Raises CorruptValueError if they don't belong to its operations."""
    results = list(response.results)
    kinds = [result.WhichOneof("result") for result in results]
    if len(results) != len(request.operations) or any(
        found not in (kind_of(operation), "failure") for operation, found in zip(request.operations, kinds, strict=True)
    ):
        raise CorruptValueError("the server answered with results of other operations")
    return results


def kind_of(operation: pb.StoreOperation) -> str:
    """Returns the kind of an operation."""
    return str(operation.WhichOneof("operation"))


def read_item(response: pb.GetItemResponse, serde: ItemSerde) -> StoredItem | None:
    """Reads the answer to a get. Raises CorruptValueError."""
    if not response.HasField("item"):
        return None
    return StoredItem(**_fields(response.item, serde))


def read_found(message: pb.FoundItem, serde: ItemSerde) -> FoundItem:
    """Reads an item that was found. Raises CorruptValueError."""
    return FoundItem(**_fields(message.item, serde), score=message.score if message.HasField("score") else None)


def _fields(message: pb.Item, serde: ItemSerde) -> dict[str, Any]:
    return {
        "namespace": tuple(message.namespace),
        "key": message.key,
        "value": serde.read(message.value),
        "created_at": _time(message.created_at),
        "updated_at": _time(message.updated_at),
        "version": message.version,
        "expires_at": _time(message.expires_at) if message.HasField("expires_at") else None,
    }


def _time(stamp: Timestamp) -> datetime:
    nanos = stamp.nanos
    try:
        if not 0 <= nanos < 1_000_000_000:
            raise ValueError("nanos")
        # Same result as ToDatetime, but much faster.
        return _EPOCH + timedelta(0, stamp.seconds, nanos // 1000)
    except (ValueError, OverflowError) as error:
        raise CorruptValueError("the server answered with an invalid time") from error
