"""The calls of runs: puts, task writes and reads, in order and over a pipeline. Once blocking, once awaiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc._runs.handover import InFlightWrite
from langgraph.checkpoint.grpc._runs.registry import Runs
from langgraph.checkpoint.grpc._transport import flows, fork
from langgraph.checkpoint.grpc._transport.client import Client
from langgraph.checkpoint.grpc._transport.loops import running_loop
from langgraph.checkpoint.grpc._transport.operation import GET, PUT, WRITES, Namespace, Operation
from langgraph.checkpoint.grpc._transport.unary_pipeline import UnaryPipeline
from langgraph.checkpoint.grpc._transport.waiters import LoopWaiter, ThreadWaiter, Waiter
from langgraph.checkpoint.grpc._values.outgoing import Outgoing, OutgoingCheckpoint
from langgraph.checkpoint.grpc._values.transfer import send_ahead

from checkpointd.v1 import checkpoint_service_pb2 as pb

ROUNDS = 10
"""For how many rounds of the event loop a read waits for what LangGraph is about to hand over: when a put has returned,
it takes a few until the next one is begun."""
HANDOVER_SECONDS = 0.002
"""The same time between threads, in seconds."""
MAX_WAIT_SECONDS = 1.0
"""Maximum time that a read waits while other runs keep writing, in seconds."""


class RunCalls:
    """Makes the calls of runs.

    Args:
        client: Makes calls that need no order.
        runs: The state of runs.
    """

    def __init__(self, client: Client, runs: Runs) -> None:
        self._client = client
        self._runs = runs
        self._token_differs = callable(client.options.token)
        self._metadata = () if self._token_differs else client.options.metadata()

    # Blocking.

    def put(self, config: RunnableConfig, put: OutgoingCheckpoint) -> None:
        """Stores a checkpoint, or has it stored before the task writes of its run end. Raises CheckpointdError."""
        pipeline, waiter = self._pipeline(), ThreadWaiter()
        if put.goes_ahead:
            self._send_ahead(config, put, put.request.checkpoint_id)
        self._wait(self._send_put(config, put, pipeline, waiter), pipeline)

    def put_writes(self, config: RunnableConfig, writes: Outgoing, *, are_special: bool) -> None:
        """Stores task writes, and waits for what is handed over to them. Raises CheckpointdError."""
        pipeline, waiter = self._pipeline(), ThreadWaiter()
        if writes.goes_ahead:
            self._send_ahead(config, writes, None)
        blocks_loop = running_loop() is not None
        write = self._send_writes(config, writes, pipeline, waiter, are_special=are_special, blocks_loop=blocks_loop)
        self._wait(write, pipeline)

    def call(self, config: RunnableConfig | None, request: Any) -> Any:
        """Makes the call of a request's type; a read is sent after the writes on its namespace."""
        if type(request) is not pb.GetCheckpointRequest or config is None:
            if (namespace := _namespace(request)) is not None:
                self.wait_for_writes(*namespace)
            return self._client.call(request)
        pipeline, waiter = self._pipeline(), ThreadWaiter()
        operation = self._read(request, waiter)
        if not self._runs.read(config, operation, pipeline, patient=running_loop() is None):
            self._wait_for_others(config, operation.namespace)
            self._runs.read(config, operation, pipeline, patient=False)
        if isinstance(pipeline, UnaryPipeline):
            pipeline.run(operation)
        try:
            waiter.wait()
        except BaseException:
            operation.abandoned = True
            raise
        if operation.error is not None:
            raise operation.error
        return operation.response

    def _wait(self, write: InFlightWrite, pipeline: Any) -> None:
        if write.is_handed_over:
            return
        if isinstance(pipeline, UnaryPipeline):
            pipeline.run(write.operation)
        assert isinstance(write.waiter, ThreadWaiter)
        try:
            write.waiter.wait()
        except BaseException:
            self._runs.abandon(write)
            raise
        self._end(write)

    def _send_ahead(self, config: RunnableConfig, put: Outgoing, checkpoint_id: str | None) -> None:
        try:
            with self._runs.about_to_write(config, put.key, None):
                flows.run(send_ahead(put), self._client.call)
        except Exception as error:
            if checkpoint_id is not None:
                self._runs.put_failed(config, put.key, checkpoint_id, error)
            raise

    def wait_for_writes(self, thread_id: str, checkpoint_ns: str | None = None) -> None:
        """Blocks until the writes in flight on a namespace, or on a thread, are settled.

        Does nothing in an event loop, in which these writes may be awaited.
        """
        until = time.monotonic() + MAX_WAIT_SECONDS
        while running_loop() is None and self._runs.in_flight(thread_id, checkpoint_ns, waiter := ThreadWaiter()):
            waiter.wait()
            if time.monotonic() > until:
                return

    def _wait_for_others(self, config: RunnableConfig, namespace: Namespace) -> None:
        """Blocks until other runs have no writes in flight on a namespace, nor are about to begin any."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            while self._runs.others_in_flight(config, namespace, waiter := ThreadWaiter()):
                waiter.wait()
            time.sleep(HANDOVER_SECONDS)
            if not self._runs.others_in_flight(config, namespace) or time.monotonic() > until:
                return

    # Awaiting.

    async def aput(self, config: RunnableConfig, put: OutgoingCheckpoint) -> None:
        """Awaits `put`."""
        if fork.lost_aio():
            return await asyncio.to_thread(self.put, config, put)
        pipeline, waiter = self._client.channels.aio().pipeline, LoopWaiter()
        if put.goes_ahead:
            await self._asend_ahead(config, put, put.request.checkpoint_id)
        return await self._await(self._send_put(config, put, pipeline, waiter))

    async def aput_writes(self, config: RunnableConfig, writes: Outgoing, *, are_special: bool) -> None:
        """Awaits `put_writes`."""
        if fork.lost_aio():
            return await asyncio.to_thread(self.put_writes, config, writes, are_special=are_special)
        pipeline, waiter = self._client.channels.aio().pipeline, LoopWaiter()
        if writes.goes_ahead:
            await self._asend_ahead(config, writes, None)
        return await self._await(self._send_writes(config, writes, pipeline, waiter, are_special=are_special))

    async def acall(self, config: RunnableConfig | None, request: Any) -> Any:
        """Awaits `call`."""
        if fork.lost_aio():
            return await asyncio.to_thread(self.call, config, request)
        if type(request) is not pb.GetCheckpointRequest or config is None:
            if (namespace := _namespace(request)) is not None:
                await self.await_writes(*namespace)
            return await self._client.acall(request)
        pipeline, waiter = self._client.channels.aio().pipeline, LoopWaiter()
        operation = self._read(request, waiter)
        if not self._runs.read(config, operation, pipeline):
            await self._await_others(config, operation.namespace)
            self._runs.read(config, operation, pipeline, patient=False)
        try:
            await waiter.wait()
        except BaseException:
            operation.abandoned = True
            raise
        if operation.error is not None:
            raise operation.error
        return operation.response

    async def _await(self, write: InFlightWrite) -> None:
        if write.is_handed_over:
            return
        assert isinstance(write.waiter, LoopWaiter)
        try:
            await write.waiter.wait()
        except BaseException:
            self._runs.abandon(write)
            raise
        self._end(write)

    async def _asend_ahead(self, config: RunnableConfig, put: Outgoing, checkpoint_id: str | None) -> None:
        try:
            with self._runs.about_to_write(config, put.key, asyncio.get_running_loop()):
                await flows.arun(send_ahead(put), self._client.acall)
        except Exception as error:
            if checkpoint_id is not None:
                self._runs.put_failed(config, put.key, checkpoint_id, error)
            raise

    async def await_writes(self, thread_id: str, checkpoint_ns: str | None = None) -> None:
        """Awaits `wait_for_writes`."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        while self._runs.in_flight(thread_id, checkpoint_ns, waiter := LoopWaiter()):
            await waiter.wait()
            if time.monotonic() > until:
                return

    async def _await_others(self, config: RunnableConfig, namespace: Namespace) -> None:
        """Awaits `_wait_for_others`."""
        until = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            while self._runs.others_in_flight(config, namespace, waiter := LoopWaiter()):
                await waiter.wait()
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            if self._runs.is_written_elsewhere(namespace):
                await asyncio.sleep(HANDOVER_SECONDS)
            if not self._runs.others_in_flight(config, namespace) or time.monotonic() > until:
                return

    # What both share.

    def _pipeline(self) -> Any:
        channels = self._client.channels
        return channels.plain() if fork.lost_aio() else channels.in_background().pipeline

    def _send_put(
        self, config: RunnableConfig, put: OutgoingCheckpoint, pipeline: Any, waiter: Waiter
    ) -> InFlightWrite:
        request = put.request
        write = self._write(PUT, put, request.checkpoint_id, waiter)
        try:
            self._runs.put(config, write, request.parent_checkpoint_id, pipeline)
        except BaseException:
            put.discard()
            raise
        return write

    def _send_writes(
        self, config: RunnableConfig, writes: Outgoing, pipeline: Any, waiter: Waiter, **how: bool
    ) -> InFlightWrite:
        write = self._write(WRITES, writes, writes.request.checkpoint_id, waiter)
        try:
            self._runs.put_writes(config, write, pipeline, **how)
        except BaseException:
            writes.discard()
            raise
        return write

    def _write(self, kind: Any, put: Outgoing, checkpoint_id: str, waiter: Waiter) -> InFlightWrite:
        """Builds the operation of a put or task writes."""
        body = put.request.SerializeToString()
        operation = Operation(kind, put.key, body, self._runs.settled)
        operation.owner = write = InFlightWrite(operation, checkpoint_id, len(body) + put.size, waiter, put.discard)
        operation.rebuild = _rebuild(put)
        self._attach_token(operation)
        put.stage()
        return write

    def _read(self, request: pb.GetCheckpointRequest, waiter: Waiter) -> Operation:
        key = (request.thread_id, request.checkpoint_ns)
        operation = Operation(GET, key, request.SerializeToString(), self._runs.settled)
        operation.owner = waiter
        self._attach_token(operation)
        return operation

    def _attach_token(self, operation: Operation) -> None:
        operation.metadata = self._client.options.metadata() if self._token_differs else self._metadata
        if self._client.tracing is not None:
            operation.trace_by(self._client.tracing.begin(operation.kind.method, operation.namespace[0]))
        if self._token_differs:
            operation.context = copy_context()

    @staticmethod
    def _end(write: InFlightWrite) -> None:
        if write.error is not None:
            raise write.error


def _rebuild(put: Outgoing) -> Callable[[], Generator[Any, Any, bytes | None]]:
    def rebuild() -> Generator[Any, Any, bytes | None]:
        put.discard()
        if not put.make_whole():
            return None
        if put.goes_ahead:
            yield from send_ahead(put)
        put.stage()
        return put.request.SerializeToString()

    return rebuild


def _namespace(request: Any) -> tuple[str, str | None] | None:
    """Returns the thread that a read is about, and the namespace or None for all of them. None: all threads."""
    match request:
        case pb.ListCheckpointsRequest() if request.HasField("thread_id"):
            return request.thread_id, None if request.all_namespaces else request.checkpoint_ns
        case pb.GetDeltaChannelHistoryRequest():
            return request.thread_id, request.checkpoint_ns
        case _:
            return None
