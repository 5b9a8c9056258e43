"""A proxy between a saver and its server that refuses operations, loses answers or breaks streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import grpc
import grpc.aio

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1.operation_failure_pb2 import OperationFailure

Verdict = OperationFailure | Literal["pass", "lose", "break"]
"""The fate of an operation: it is refused; forwarded; forwarded with its answer lost, as are all later ones on its
stream; or its stream breaks before it."""


def overloaded(milliseconds: int = 1) -> OperationFailure:
    """Returns a temporary refusal."""
    return OperationFailure(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0],
        message="too much to do",
        reason="OVERLOADED",
        retry_after_ms=milliseconds,
    )


def refusal(reason: str, code: grpc.StatusCode, **metadata: str) -> OperationFailure:
    """Returns a refusal."""
    return OperationFailure(code=code.value[0], message=reason.lower(), reason=reason, metadata=metadata)


class PipelineProxy:
    """Forwards operations to a server in order, as its `judge` decides, and records them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.judge: Callable[[pb.Operation], Verdict] = lambda operation: "pass"
        """Decides the fate of each operation."""
        self.messages: list[list[pb.Operation]] = []
        """The received operations, by message."""
        self.streams = 0
        """The number of streams that were opened."""
        self.knows_pipelines = True
        """Whether the RPC exists."""
        self.target = ""

    @property
    def operations(self) -> list[pb.Operation]:
        """The received operations."""
        return [operation for message in self.messages for operation in message]

    def kinds(self) -> list[str]:
        """Returns the kind and checkpoint of each operation."""
        kinds = []
        for operation in self.operations:
            kind = operation.WhichOneof("operation")
            kinds.append(f"{kind} {getattr(operation, kind).checkpoint_id}".strip())
        return kinds

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Returns the handler of a method."""
        if not details.method.endswith("/Pipeline"):
            forward = self._channel.unary_unary(details.method)

            async def answer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
                try:
                    return bytes(await forward(request, metadata=context.invocation_metadata()))
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details(), tuple(error.trailing_metadata()))
                    raise

            return grpc.unary_unary_rpc_method_handler(answer)
        if not self.knows_pipelines:
            return None
        return grpc.stream_stream_rpc_method_handler(self._pipe, pb.PipelineRequest.FromString)

    async def _pipe(self, requests: Any, context: grpc.aio.ServicerContext) -> None:
        self.streams += 1
        await context.send_initial_metadata(())
        upstream = self._channel.stream_stream(
            "/checkpointd.v1.CheckpointService/Pipeline",
            pb.PipelineRequest.SerializeToString,
            pb.PipelineResponse.FromString,
        )(metadata=context.invocation_metadata())
        stream = _Stream(self, context, upstream)
        answering = asyncio.ensure_future(stream.answer())
        forwarding = asyncio.ensure_future(stream.forward())
        try:
            # If either ends, the other might wait for as long as the client does.
            await asyncio.wait({answering, forwarding}, return_when=asyncio.FIRST_COMPLETED)
            if forwarding.done() and isinstance(forwarding.exception(), grpc.aio.AbortError):
                forwarding.result()
            await answering
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), tuple(error.trailing_metadata()))
        finally:
            answering.cancel()
            forwarding.cancel()
            upstream.cancel()


class _Stream:
    """One stream. Results are forwarded in the order of their operations within each namespace."""

    def __init__(self, proxy: PipelineProxy, context: grpc.aio.ServicerContext, upstream: Any) -> None:
        self._proxy = proxy
        self._context = context
        self._upstream = upstream
        self._lost = False
        self._results: dict[tuple[str, str], dict[int, pb.OperationResult | None]] = {}
        self._names: dict[int, tuple[str, str]] = {}
        self._writing = asyncio.Lock()

    async def forward(self) -> None:
        """Forwards operations."""
        while (request := await self._context.read()) is not grpc.aio.EOF:
            self._proxy.messages.append(list(request.operations))
            for operation in request.operations:
                verdict = self._proxy.judge(operation)
                name = _name(operation)
                results = self._results.setdefault(name, {})
                if verdict == "break":
                    await self._context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                elif isinstance(verdict, OperationFailure):
                    results[operation.id] = pb.OperationResult(id=operation.id, failure=verdict)
                else:
                    self._lost = self._lost or verdict == "lose"
                    self._names[operation.id], results[operation.id] = name, None
                    await self._upstream.write(pb.PipelineRequest(operations=[operation]))
            await self._tell()
        await self._upstream.done_writing()

    async def answer(self) -> None:
        """Forwards results."""
        async for response in self._upstream:
            if self._lost:
                await self._context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            for result in response.results:
                self._results[self._names.pop(result.id)][result.id] = result
            await self._tell()

    async def _tell(self) -> None:
        """Sends results, those of a namespace in order: refusals, too, wait for their turn."""
        async with self._writing:
            ready = []
            for results in self._results.values():
                for number, result in list(results.items()):
                    if result is None:
                        break
                    ready.append(result)
                    del results[number]
            if ready:
                await self._context.write(pb.PipelineResponse(results=ready).SerializeToString())


@asynccontextmanager
async def pipeline_proxy(target: str) -> AsyncIterator[PipelineProxy]:
    """Starts a proxy in this event loop."""
    async with grpc.aio.insecure_channel(target) as channel:
        proxy = PipelineProxy(channel)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handlers(proxy),))
        proxy.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield proxy
        finally:
            await server.stop(0)


def _name(operation: pb.Operation) -> tuple[str, str]:
    """Returns the namespace in whose order an operation is answered. Batches of the store have none."""
    if operation.HasField("store_batch"):
        return "", f"batch {operation.id}"
    request = getattr(operation, operation.WhichOneof("operation"))
    return request.thread_id, request.checkpoint_ns


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, proxy: PipelineProxy) -> None:
        self._proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._proxy.service(details)
