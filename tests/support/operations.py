"""Operations over a pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import store_service_pb2 as store_pb

GET = pb.GetCheckpointRequest(thread_id="thread-1")


def operation(number: int, request: Any, **fields: Any) -> pb.Operation:
    """Returns an operation of a pipeline."""
    kinds = {
        pb.PutCheckpointRequest: "put_checkpoint",
        pb.PutWritesRequest: "put_writes",
        pb.GetCheckpointRequest: "get_checkpoint",
        store_pb.BatchRequest: "store_batch",
    }
    return pb.Operation(id=number, **{kinds[type(request)]: request}, **fields)


async def send(stream: Any, *operations: pb.Operation) -> None:
    await stream.write(pb.PipelineRequest(operations=operations))


async def send_each(stream: Any, operations: Iterable[pb.Operation]) -> None:
    for one in operations:
        await send(stream, one)


async def results_of(stream: Any, count: int) -> list[pb.OperationResult]:
    """Reads a number of results, in order of arrival."""
    results: list[pb.OperationResult] = []
    async with asyncio.timeout(20):
        while len(results) < count:
            results += (await stream.read()).results
    assert len(results) == count
    return results


async def ask(stream: Any, request: Any, *, number: int = 1, **fields: Any) -> pb.OperationResult:
    """Sends an operation, and reads its result, which must be the next."""
    await send(stream, operation(number, request, **fields))
    (result,) = await results_of(stream, 1)
    assert result.id == number
    return result
