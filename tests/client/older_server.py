"""Servers of an earlier release."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import grpc
import grpc.aio


@asynccontextmanager
async def older_server(target: str, unknown: Collection[str] = ("StreamBatches", "Batch")) -> AsyncIterator[str]:
    """A server that doesn't know some RPCs, in front of one that does."""
    async with grpc.aio.insecure_channel(target) as channel:

        class Forward(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
                if details.method.rpartition("/")[2] in unknown:
                    return None
                forward = channel.unary_unary(details.method)

                async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
                    return bytes(await forward(request))

                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Forward(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(0)
