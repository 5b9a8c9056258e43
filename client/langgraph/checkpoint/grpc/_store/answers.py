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

_OTHERS = "the server answered with results of other operations"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def single_result(kind: str, outcome: pb.StoreResult, serde: ItemSerde, target: str) -> StoredItem | None:
    """Returns the result of a single operation. Raises CheckpointdError."""
    answer = single_answer(kind, outcome, target)
    return read_item(answer, serde) if kind == "get" else None


def single_answer(kind: str, outcome: pb.StoreResult, target: str) -> Any:
    """Returns the answer to a single operation. Raises CheckpointdError."""
    found = outcome.WhichOneof("result")
    if found == kind:
        return getattr(outcome, kind)
    if found != "failure":
        raise CorruptValueError(_OTHERS)
    raise from_rpc_error(OperationError(outcome.failure), target=target, method=f"Batch ({kind})")


def is_too_large(outcome: pb.StoreResult) -> bool:
    """Returns whether an answer didn't fit beside others, and must be requested alone."""
    return outcome.HasField("failure") and outcome.failure.reason == "MESSAGE_TOO_LARGE"


def check_results(results: Sequence[pb.StoreResult], kinds: Sequence[str]) -> Sequence[pb.StoreResult]:
    """Returns the results of operations. Raises CorruptValueError if they aren't of their kinds."""
    if len(results) != len(kinds) or any(
        result.WhichOneof("result") not in (kind, "failure") for result, kind in zip(results, kinds, strict=True)
    ):
        raise CorruptValueError(_OTHERS)
    return results


def kind_of(operation: pb.StoreOperation) -> str:
    """Returns the kind of an operation."""
    return str(operation.WhichOneof("operation"))


def read_item(response: pb.GetItemResponse, serde: ItemSerde) -> StoredItem | None:
    """Reads the answer to a get. Raises CorruptValueError."""
    if not response.HasField("item"):
        return None
    message = response.item
    created_at, updated_at = _times(message)
    return StoredItem(
        value=serde.read(message.value),
        key=message.key,
        namespace=tuple(message.namespace),
        created_at=created_at,
        updated_at=updated_at,
        version=message.version,
        expires_at=_time(message.expires_at) if message.HasField("expires_at") else None,
    )


def read_found(message: pb.FoundItem, serde: ItemSerde) -> FoundItem:
    """Reads an item that was found. Raises CorruptValueError."""
    item = message.item
    created_at, updated_at = _times(item)
    return FoundItem(
        value=serde.read(item.value),
        key=item.key,
        namespace=tuple(item.namespace),
        created_at=created_at,
        updated_at=updated_at,
        version=item.version,
        expires_at=_time(item.expires_at) if item.HasField("expires_at") else None,
        score=message.score if message.HasField("score") else None,
    )


def _times(message: pb.Item) -> tuple[datetime, datetime]:
    """Returns when an item was created and when it was updated: the same, unless it was put again."""
    created, updated = message.created_at, message.updated_at
    created_at = _time(created)
    if created == updated:
        return created_at, created_at
    return created_at, _time(updated)


def _time(stamp: Timestamp) -> datetime:
    nanos = stamp.nanos
    try:
        if not 0 <= nanos < 1_000_000_000:
            raise ValueError("nanos")
        # Same result as ToDatetime, but much faster.
        return _EPOCH + timedelta(0, stamp.seconds, nanos // 1000)
    except (ValueError, OverflowError) as error:
        raise CorruptValueError("the server answered with an invalid time") from error
