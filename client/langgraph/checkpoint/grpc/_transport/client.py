"""Calls with deadlines, retries within a budget, and the saver's errors; blocking and awaiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypedDict

from langgraph.checkpoint.grpc._transport import flows, fork
from langgraph.checkpoint.grpc._transport.channels import Channels, Connection, Stubs
from langgraph.checkpoint.grpc._transport.retry import Attempts
from langgraph.checkpoint.grpc._transport.tracing import Headers, tracing_of
from langgraph.checkpoint.grpc.errors import CheckpointdError
from langgraph.checkpoint.grpc.options import ClientOptions

import grpc
import grpc.aio
from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import info_service_pb2 as info_pb
from checkpointd.v1 import lease_service_pb2 as leases_pb
from checkpointd.v1 import retention_service_pb2 as retention_pb
from checkpointd.v1 import store_service_pb2 as store_pb
from checkpointd.v1 import thread_service_pb2 as threads_pb
from checkpointd.v1 import value_service_pb2 as values_pb

_RPCS: dict[type, tuple[str, Callable[[Stubs], Any]]] = {
    pb.GetCheckpointRequest: ("GetCheckpoint", lambda stubs: stubs.checkpoints.GetCheckpoint),
    pb.PutCheckpointRequest: ("PutCheckpoint", lambda stubs: stubs.checkpoints.PutCheckpoint),
    pb.PutWritesRequest: ("PutWrites", lambda stubs: stubs.checkpoints.PutWrites),
    pb.ListCheckpointsRequest: ("ListCheckpoints", lambda stubs: stubs.checkpoints.ListCheckpoints),
    pb.GetDeltaChannelHistoryRequest: (
        "GetDeltaChannelHistory",
        lambda stubs: stubs.checkpoints.GetDeltaChannelHistory,
    ),
    values_pb.PutPartRequest: ("PutPart", lambda stubs: stubs.values.PutPart),
    values_pb.GetValueRequest: ("GetValue", lambda stubs: stubs.values.GetValue),
    threads_pb.ListThreadsRequest: ("ListThreads", lambda stubs: stubs.threads.ListThreads),
    threads_pb.CountThreadsRequest: ("CountThreads", lambda stubs: stubs.threads.CountThreads),
    threads_pb.GetThreadRequest: ("GetThread", lambda stubs: stubs.threads.GetThread),
    threads_pb.GetThreadTreeRequest: ("GetThreadTree", lambda stubs: stubs.threads.GetThreadTree),
    threads_pb.ArchiveThreadRequest: ("ArchiveThread", lambda stubs: stubs.threads.ArchiveThread),
    threads_pb.UpdateThreadRequest: ("UpdateThread", lambda stubs: stubs.threads.UpdateThread),
    threads_pb.DeleteThreadRequest: ("DeleteThread", lambda stubs: stubs.threads.DeleteThread),
    threads_pb.DeleteRunsRequest: ("DeleteRuns", lambda stubs: stubs.threads.DeleteRuns),
    threads_pb.CopyThreadRequest: ("CopyThread", lambda stubs: stubs.threads.CopyThread),
    threads_pb.PruneThreadsRequest: ("PruneThreads", lambda stubs: stubs.threads.PruneThreads),
    leases_pb.AcquireLeaseRequest: ("AcquireLease", lambda stubs: stubs.leases.AcquireLease),
    leases_pb.RenewLeaseRequest: ("RenewLease", lambda stubs: stubs.leases.RenewLease),
    leases_pb.ReleaseLeaseRequest: ("ReleaseLease", lambda stubs: stubs.leases.ReleaseLease),
    leases_pb.GetLeaseRequest: ("GetLease", lambda stubs: stubs.leases.GetLease),
    retention_pb.ListExpiringRequest: ("ListExpiring", lambda stubs: stubs.retention.ListExpiring),
    retention_pb.AcknowledgeExpiringRequest: (
        "AcknowledgeExpiring",
        lambda stubs: stubs.retention.AcknowledgeExpiring,
    ),
    store_pb.BatchRequest: ("Batch", lambda stubs: stubs.store.Batch),
    store_pb.GetItemRequest: ("GetItem", lambda stubs: stubs.store.GetItem),
    store_pb.SearchItemsRequest: ("SearchItems", lambda stubs: stubs.store.SearchItems),
    store_pb.CountItemsRequest: ("CountItems", lambda stubs: stubs.store.CountItems),
    store_pb.ListNamespacesRequest: ("ListNamespaces", lambda stubs: stubs.store.ListNamespaces),
    info_pb.GetServerInfoRequest: ("GetServerInfo", lambda stubs: stubs.info.GetServerInfo),
}


class _CallOptions(TypedDict):
    """Options of one attempt, as gRPC takes them."""

    timeout: float
    metadata: tuple[tuple[str, str], ...]


class Client:
    """Calls RPCs on a saver's connections."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self.tracing = tracing_of(options.tracing)
        """The tracing of calls, if any."""
        self.channels = Channels(options, self._adrive, self._drive)

    def call(self, request: Any, *, timeout: float | None = None, retry_budget: float | None = None) -> Any:
        """Makes the call that belongs to a request's type, and blocks for its answer. Raises CheckpointdError.

        Args:
            request: What to send.
            timeout: How long one attempt may take, in seconds. Default: the saver's.
            retry_budget: How long to retry temporary failures, in seconds. Default: the saver's.
        """
        if self.tracing is not None:
            with self.tracing.call(_RPCS[type(request)][0], request) as headers:
                return self._call_traced(request, timeout, retry_budget, headers)
        return self._call_traced(request, timeout, retry_budget, ())

    def _call_traced(self, request: Any, timeout: float | None, retry_budget: float | None, headers: Headers) -> Any:
        if fork.lost_aio():
            return self._call(request, timeout, retry_budget, headers)
        connection = self.channels.in_background()
        elsewhere = self._acall(connection, request, timeout, retry_budget, headers)
        return asyncio.run_coroutine_threadsafe(elsewhere, connection.loop).result()

    async def acall(self, request: Any, *, timeout: float | None = None, retry_budget: float | None = None) -> Any:
        """Awaits `call`."""
        if self.tracing is not None:
            with self.tracing.call(_RPCS[type(request)][0], request) as headers:
                return await self._acall_traced(request, timeout, retry_budget, headers)
        return await self._acall_traced(request, timeout, retry_budget, ())

    async def _acall_traced(
        self, request: Any, timeout: float | None, retry_budget: float | None, headers: Headers
    ) -> Any:
        if fork.lost_aio():
            return await asyncio.to_thread(self._call, request, timeout, retry_budget, headers)
        connection = self.channels.aio()
        elsewhere = self._acall(connection, request, timeout, retry_budget, headers)
        if connection.loop is asyncio.get_running_loop():
            return await elsewhere
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(elsewhere, connection.loop))

    def _call(self, request: Any, timeout: float | None, retry_budget: float | None, headers: Headers) -> Any:
        method = _RPCS[type(request)][1]

        def attempt(options: _CallOptions) -> Any:
            return method(self.channels.sync())(request, **options)

        return flows.run(self._retried(request, timeout, retry_budget, headers), attempt)

    async def _acall(
        self,
        connection: Connection,
        request: Any,
        timeout: float | None,
        retry_budget: float | None,
        headers: Headers,
    ) -> Any:
        rpc = _RPCS[type(request)][1](connection.stubs)

        async def attempt(options: _CallOptions) -> Any:
            return await rpc(request, **options)

        return await flows.arun(self._retried(request, timeout, retry_budget, headers), attempt)

    def _retried(
        self, request: Any, timeout: float | None, retry_budget: float | None, headers: Headers
    ) -> flows.Flow[Any]:
        """Yields the options of one attempt after another. Returns the response."""
        timeout = timeout or self.options.timeout
        attempts = Attempts(self.options, _RPCS[type(request)][0], retry_budget, timeout=timeout)
        while True:
            metadata = self.options.metadata() + headers
            attempts.attempt()
            try:
                return (yield _CallOptions(timeout=timeout, metadata=metadata))
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            except (ValueError, grpc.aio.UsageError) as error:
                raise _closed_under(error) from error
            yield flows.Pause(pause)

    def _drive(self, flow: Generator[Any, Any, bytes | None]) -> bytes | None:
        return flows.run(flow, self.call)

    async def _adrive(self, flow: Generator[Any, Any, bytes | None]) -> bytes | None:
        return await flows.arun(flow, self.acall)


def _closed_under(error: Exception) -> Exception:
    """A channel that was closed by another thread while this one was about to call."""
    if "closed" in str(error).lower():
        return CheckpointdError("this saver was closed while a call was about to start")
    return error
