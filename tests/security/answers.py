"""What the server answers to a token."""

from __future__ import annotations

import asyncio

import grpc

from checkpointd.v1 import checkpoint_service_pb2 as pb
from tests.support.rpc_client import Client, bearer


async def code(client: Client, token: str) -> grpc.StatusCode:
    try:
        await client.checkpoints.GetCheckpoint(pb.GetCheckpointRequest(thread_id="t"), metadata=bearer(token))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until(client: Client, token: str, expected: grpc.StatusCode) -> None:
    async with asyncio.timeout(20):
        while await code(client, token) is not expected:
            await asyncio.sleep(0.05)
