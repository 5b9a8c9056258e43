"""Answers of a server that can't be trusted: valid ones, corrupted at random."""

from __future__ import annotations

import random
from typing import Any

from langgraph.checkpoint.grpc._store.operations import Submit

from checkpointd.v1 import store_service_pb2 as pb
from tests.support.spoiling import spoil


def sound_item(key: str = "k") -> pb.Item:
    """An item as a server would have stored it."""
    item = pb.Item(namespace=["a", "b"], key=key, version=7)
    item.value.type, item.value.data = "msgpack", b"\x81\xa1a\x01"
    item.created_at.seconds = item.updated_at.seconds = item.expires_at.seconds = 1_800_000_000
    return item


class HostileServer:
    """Answers every request, more or less correctly."""

    def __init__(self, dice: random.Random, rate: float) -> None:
        self._dice = dice
        self._rate = rate
        self.calls = 0

    def __call__(self, step: Any) -> Any:
        """Answers a step of a flow."""
        self.calls += 1
        if isinstance(step, Submit):
            request = pb.BatchRequest.FromString(step.operations.body)
            return self._spoilt(pb.BatchResponse(results=map(self._result, request.operations))).results
        return self._spoilt(self._answer(step))

    def _result(self, operation: pb.StoreOperation) -> pb.StoreResult:
        if operation.HasField("get"):
            if self._dice.random() < 0.1:
                failure = pb.StoreResult()
                failure.failure.code, failure.failure.reason = 8, "MESSAGE_TOO_LARGE"
                return failure
            return pb.StoreResult(get=self._answer(operation.get))
        if operation.HasField("put"):
            return pb.StoreResult(put=pb.PutItemResponse(version=8))
        return pb.StoreResult(delete=pb.DeleteItemResponse(deleted=True))

    def _answer(self, request: Any) -> Any:
        match request:
            case pb.GetItemRequest():
                return pb.GetItemResponse(item=sound_item())
            case pb.SearchItemsRequest():
                count = min(request.limit, 3)
                found = [pb.FoundItem(item=sound_item(str(number)), score=0.5) for number in range(count)]
                return pb.SearchItemsResponse(items=found, truncated=self._dice.random() < 0.5)
            case pb.CountItemsRequest():
                return pb.CountItemsResponse(count=3)
            case _:
                return pb.ListNamespacesResponse(namespaces=[pb.StoreNamespace(labels=["a"])] * min(request.limit, 3))

    def _spoilt(self, answer: Any) -> Any:
        if self._dice.random() < self._rate:
            for _ in range(self._dice.randrange(1, 4)):
                spoil(answer, self._dice)
        return answer
