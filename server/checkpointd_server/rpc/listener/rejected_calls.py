"""Calls that no honest client makes: of unknown methods, and with huge headers."""

from __future__ import annotations

import grpc
import grpc.aio

from checkpointd_server.rpc.listener.connections import Connections

MAX_HEADER_BYTES = 16 * 1024
"""Maximum size of a call's headers, in bytes. Headers in several frames evade gRPC's own limit."""


class LargeHeadersRejector(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Rejects calls with too large headers. It must be the first of a server's handlers."""

    def __init__(self, connections: Connections) -> None:
        async def serve(requests: object, context: grpc.aio.ServicerContext) -> None:
            connections.waste(context.peer(), 10)
            message = f"the call has more than {MAX_HEADER_BYTES} bytes of headers"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)

        self._handler = grpc.stream_stream_rpc_method_handler(serve)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Returns a handler that rejects calls with too large headers, and None for others."""
        size = 0
        for name, value in handler_call_details.invocation_metadata or ():
            size += len(name) + len(value)
        return self._handler if size > MAX_HEADER_BYTES else None


class UnknownMethodsRejector(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers calls of unknown methods as gRPC does, and counts them as wasted.

    It must be the last of a server's handlers.
    """

    def __init__(self, connections: Connections) -> None:
        async def serve(requests: object, context: grpc.aio.ServicerContext) -> None:
            connections.waste(context.peer())
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

        self._handler = grpc.stream_stream_rpc_method_handler(serve)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Returns a handler for any call."""
        return self._handler
