"""Services that others wrote, health and reflection, behind the gate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

Admit = Callable[[grpc.aio.ServicerContext], Awaitable[None]]
"""Returns if a call may go on, and else ends it."""


class GuardedServer:
    """Stands for a server where a service registers itself: each of its calls is admitted first."""

    def __init__(self, server: grpc.aio.Server, admit: Admit) -> None:
        self._server = server
        self._admit = admit

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Adds handlers, each behind the gate."""
        self._server.add_generic_rpc_handlers(tuple(_Guarded(handler, self._admit) for handler in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Does nothing, as with every asyncio server: the generic handlers serve."""


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, inner: grpc.GenericRpcHandler, admit: Admit) -> None:
        self._inner = inner
        self._admit = admit

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._inner.service(handler_call_details)
        if handler is None:
            return None
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        inner = getattr(handler, kind)

        async def serve(request: Any, context: grpc.aio.ServicerContext) -> Any:
            await self._admit(context)
            answer = inner(request, context)
            if not hasattr(answer, "__aiter__"):
                return await answer
            async for response in answer:
                await context.write(response)
            return None

        return getattr(grpc, f"{kind}_rpc_method_handler")(
            serve, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )
