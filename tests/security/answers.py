"""Status codes of calls with a token."""

from __future__ import annotations

import grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.support.rpc_client import Client, bearer
from tests.support.until import auntil


async def code(client: Client, token: str) -> grpc.StatusCode:
    try:
        await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t"), metadata=bearer(token))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until_answered(client: Client, token: str, expected: grpc.StatusCode) -> None:
    """Waits until calls with a token end with this status code."""
    await auntil(lambda: code(client, token), lambda answer: answer is expected, pause=0.05)
