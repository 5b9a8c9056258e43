"""A real server of the RPC layer in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from checkpointd.v1.checkpoint_service_pb2_grpc import CheckpointServiceStub
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.rpc import RpcServer, ServerOptions
from tests.support.rpc_client import Client
from tests.support.until import auntil

Serve = Callable[..., AbstractAsyncContextManager[tuple[RpcServer, Client]]]


async def until_idle(server: RpcServer) -> None:
    """Waits until no call is at work: the server notices after PostgreSQL that a call was cancelled."""
    await auntil(lambda: server.active_calls, lambda number: number == 0)


@asynccontextmanager
async def serving(store: CheckpointStore, **options: Any) -> AsyncIterator[tuple[RpcServer, Client]]:
    """Serves a store with given options, and yields the server and its client."""
    server = RpcServer(store, ServerOptions(**{"listen": ("127.0.0.1:0",), **options}))
    address, *_ = await server.start()
    server.set_serving(True)
    channel_options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(address, options=channel_options) as channel:
            yield server, Client(channel)
    finally:
        await server.drain(0)


@asynccontextmanager
async def connection_of_its_own(target: str) -> AsyncIterator[Any]:
    """Yields a stub on a separate connection, since unread results would hold up other calls on it."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield CheckpointServiceStub(channel)
