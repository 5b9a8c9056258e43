"""ThreadService: whole threads, and the runs within them."""

from __future__ import annotations

import asyncio
import json

from checkpointd.v1 import checkpoint_service_pb2 as checkpoints_pb
from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd.v1.values_pb2 import CheckpointTuple
from checkpointd_server.domain.errors import CheckpointNotFound, InvalidArgument
from checkpointd_server.domain.thread_lists import ThreadFilter
from checkpointd_server.domain.threads import CopyThread, PruneStrategy
from checkpointd_server.rpc.calls.executor import BoundedExecutor
from checkpointd_server.rpc.conversion.leases import read_thread_leases
from checkpointd_server.rpc.conversion.page_tokens import (
    read_nodes_token,
    read_threads_token,
    write_nodes_token,
    write_threads_token,
)
from checkpointd_server.rpc.conversion.shown_checkpoints import MAX_TOTAL_BYTES, Decoder, compare, show
from checkpointd_server.rpc.conversion.tenants import read_purge_token, write_report
from checkpointd_server.rpc.conversion.threads import (
    read_change,
    read_filter,
    read_page_size,
    write_node,
    write_thread,
)
from checkpointd_server.rpc.conversion.validation import (
    check_count,
    check_lease_token,
    check_text,
    check_texts,
    check_token,
    read_optional_id,
)
from checkpointd_server.rpc.operations import Operations, read_get_checkpoint

_STRATEGIES = {
    pb.PRUNE_STRATEGY_UNSPECIFIED: PruneStrategy.KEEP_LATEST,
    pb.PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy.KEEP_LATEST,
    pb.PRUNE_STRATEGY_DELETE: PruneStrategy.DELETE,
}


class ThreadServicer:
    """Lists, changes, deletes, copies and prunes threads of a store.

    Each method takes a request and returns the encoded response.
    """

    def __init__(self, operations: Operations, executor: BoundedExecutor) -> None:
        self._operations = operations
        self._store = operations.store
        self._limits = operations.limits
        self._executor = executor

    async def delete_thread(self, request: pb.DeleteThreadRequest, tenant: str, timeout: float | None) -> bytes:
        """Deletes a thread."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        token = check_lease_token(request.lease_token)
        leases = {request.thread_id: token} if token else {}
        deleted = await self._store.delete_thread(tenant, request.thread_id, leases=leases, timeout=timeout)
        return pb.DeleteThreadResponse(deleted_checkpoints=deleted).SerializeToString()

    async def delete_runs(self, request: pb.DeleteRunsRequest, tenant: str, timeout: float | None) -> bytes:
        """Deletes the checkpoints of runs."""
        run_ids = list(request.run_ids)
        check_count(len(run_ids), "run_ids", self._limits.max_batch)
        check_texts(run_ids, "run_ids[{}]", self._limits.max_run_id_bytes)
        leases = read_thread_leases(request.leases, self._limits)
        deleted = await self._store.delete_runs(tenant, run_ids, leases=leases, timeout=timeout)
        return pb.DeleteRunsResponse(deleted_checkpoints=deleted).SerializeToString()

    async def copy_thread(self, request: pb.CopyThreadRequest, tenant: str, timeout: float | None) -> bytes:
        """Copies or forks a thread."""
        source, target = request.source_thread_id, request.target_thread_id
        check_text(source, "source_thread_id", self._limits.max_thread_id_bytes)
        check_text(target, "target_thread_id", self._limits.max_thread_id_bytes)
        if source == target:
            raise InvalidArgument("target_thread_id", "is the source itself; copy to a new thread")
        check_token(request.request_id, "request_id", self._limits.max_token_bytes)
        copy = CopyThread(
            tenant=tenant,
            source_thread_id=source,
            target_thread_id=target,
            checkpoint_id=read_optional_id(request.checkpoint_id, "checkpoint_id", self._limits),
            request_id=request.request_id,
            lease_token=check_lease_token(request.lease_token),
        )
        copied = await self._store.copy_thread(copy, timeout=timeout)
        return pb.CopyThreadResponse(copied_checkpoints=copied).SerializeToString()

    async def prune_threads(self, request: pb.PruneThreadsRequest, tenant: str, timeout: float | None) -> bytes:
        """Removes history from threads."""
        thread_ids = list(request.thread_ids)
        check_count(len(thread_ids), "thread_ids", self._limits.max_batch)
        check_texts(thread_ids, "thread_ids[{}]", self._limits.max_thread_id_bytes)
        strategy = _STRATEGIES.get(request.strategy)
        if strategy is None:
            raise InvalidArgument("strategy", f"{request.strategy} is not a strategy that this server knows")
        leases = read_thread_leases(request.leases, self._limits)
        deleted = await self._store.prune_threads(tenant, thread_ids, strategy, leases=leases, timeout=timeout)
        return pb.PruneThreadsResponse(deleted_checkpoints=deleted).SerializeToString()

    async def list_threads(self, request: pb.ListThreadsRequest, tenant: str, timeout: float | None) -> bytes:
        """Lists a page of threads."""
        page = await self._store.list_threads(
            tenant,
            read_filter(request.filter, self._limits),
            after=read_threads_token(request, tenant),
            page_size=read_page_size(request.page_size, self._limits.default_page_size, self._limits),
            page_bytes=self._limits.max_page_bytes,
            timeout=timeout,
        )
        response = pb.ListThreadsResponse()
        for thread in page.threads:
            write_thread(thread, response.threads.add())
            await asyncio.sleep(0)  # interrupts take a while to decode
        if page.after is not None:
            response.next_page_token = write_threads_token(page.after, request, tenant)
        return response.SerializeToString()

    async def count_threads(self, request: pb.CountThreadsRequest, tenant: str, timeout: float | None) -> bytes:
        """Counts threads."""
        found = await self._store.count_threads(tenant, read_filter(request.filter, self._limits), timeout=timeout)
        return pb.CountThreadsResponse(count=found.number, at_least=not found.is_complete).SerializeToString()

    async def get_thread(self, request: pb.GetThreadRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns a thread's details."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        response = pb.GetThreadResponse()
        write_thread(await self._store.get_thread(tenant, request.thread_id, timeout=timeout), response.thread)
        return response.SerializeToString()

    async def get_thread_tree(self, request: pb.GetThreadTreeRequest, tenant: str, timeout: float | None) -> bytes:
        """Lists a page of a thread's checkpoints."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        nodes, after = await self._store.list_nodes(
            tenant,
            request.thread_id,
            after=read_nodes_token(request, tenant, self._limits),
            page_size=read_page_size(request.page_size, self._limits.max_page_size, self._limits),
            timeout=timeout,
        )
        response = pb.GetThreadTreeResponse()
        for node in nodes:
            write_node(node, response.nodes.add())
        if after is not None:
            response.next_page_token = write_nodes_token(after, request, tenant)
        return response.SerializeToString()

    async def show_checkpoint(self, request: pb.ShowCheckpointRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns a checkpoint as plain data."""
        found = await self._read(request, request.checkpoint_id, "checkpoint_id", tenant, timeout)
        shown = await self._executor.run(lambda: json.dumps(show(found, Decoder(MAX_TOTAL_BYTES))))
        return pb.ShowCheckpointResponse(json=shown).SerializeToString()

    async def diff_checkpoints(self, request: pb.DiffCheckpointsRequest, tenant: str, timeout: float | None) -> bytes:
        """Returns the differences between two checkpoints, as plain data."""
        limit = self._limits.max_checkpoint_id_bytes
        for field in ("before_checkpoint_id", "after_checkpoint_id"):
            check_text(getattr(request, field), field, limit)
        before, after = [
            await self._read(request, checkpoint_id, field, tenant, timeout)
            for field, checkpoint_id in (
                ("before_checkpoint_id", request.before_checkpoint_id),
                ("after_checkpoint_id", request.after_checkpoint_id),
            )
        ]
        shown = await self._executor.run(lambda: json.dumps(compare(before, after, Decoder(MAX_TOTAL_BYTES))))
        return pb.DiffCheckpointsResponse(json=shown).SerializeToString()

    async def _read(
        self,
        request: pb.ShowCheckpointRequest | pb.DiffCheckpointsRequest,
        checkpoint_id: str,
        field: str,
        tenant: str,
        timeout: float | None,
    ) -> CheckpointTuple:
        """Reads a checkpoint whole. Raises CheckpointNotFound."""
        read_optional_id(checkpoint_id, field, self._limits)
        wanted = checkpoints_pb.GetCheckpointRequest(
            thread_id=request.thread_id, checkpoint_ns=request.checkpoint_ns, checkpoint_id=checkpoint_id
        )
        response = checkpoints_pb.GetCheckpointResponse()
        read = read_get_checkpoint(wanted, tenant, self._limits)
        await self._operations.get_checkpoint(read, response, timeout)
        if not response.HasField("tuple"):
            raise CheckpointNotFound(request.thread_id, checkpoint_id)
        return response.tuple

    async def archive_thread(self, request: pb.ArchiveThreadRequest, tenant: str, timeout: float | None) -> bytes:
        """Archives or unarchives a thread."""
        check_text(request.thread_id, "thread_id", self._limits.max_thread_id_bytes)
        token = check_lease_token(request.lease_token)
        changed = await self._store.archive_thread(
            tenant, request.thread_id, archives=not request.unarchive, lease=token, timeout=timeout
        )
        return pb.ArchiveThreadResponse(changed=changed).SerializeToString()

    async def update_thread(self, request: pb.UpdateThreadRequest, tenant: str, timeout: float | None) -> bytes:
        """Changes tags, the pin and the time to live of a thread."""
        await self._store.update_thread(read_change(request, tenant, self._limits), timeout=timeout)
        response = pb.UpdateThreadResponse()
        write_thread(await self._store.get_thread(tenant, request.thread_id, timeout=timeout), response.thread)
        return response.SerializeToString()

    async def purge_threads(self, request: pb.PurgeThreadsRequest, tenant: str, timeout: float | None) -> bytes:
        """Purges a page of threads."""
        wanted = read_filter(request.filter, self._limits)
        is_empty = wanted == ThreadFilter()
        if request.all_threads and not is_empty:
            raise InvalidArgument("filter", "can't be combined with all_threads: set one of them")
        if is_empty and not request.all_threads:
            raise InvalidArgument("filter", "is required: it says which threads; all_threads purges all of them")
        start = read_purge_token(request, tenant)
        tenants = self._store.tenants
        if request.all_threads:
            report = await tenants.purge_all(
                tenant,
                start=start,
                takes_pinned=request.include_pinned,
                is_dry_run=request.dry_run,
                timeout=timeout,
            )
        else:
            report = await tenants.purge_found(
                tenant,
                wanted,
                start=start,
                takes_pinned=request.include_pinned,
                is_dry_run=request.dry_run,
                timeout=timeout,
            )
        response = pb.PurgeThreadsResponse()
        write_report(report, response, request, tenant)
        return response.SerializeToString()
