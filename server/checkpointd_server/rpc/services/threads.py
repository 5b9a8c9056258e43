"""ThreadService: whole threads, and the runs within them."""

from __future__ import annotations

from checkpointd.v1 import thread_service_pb2 as pb
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.threads import CopyThread, PruneStrategy
from checkpointd_server.rpc.conversion.leases import read_thread_leases
from checkpointd_server.rpc.conversion.validation import (
    check_count,
    check_lease_token,
    check_text,
    check_texts,
    check_token,
    read_optional_id,
)

_STRATEGIES = {
    pb.PRUNE_STRATEGY_UNSPECIFIED: PruneStrategy.KEEP_LATEST,
    pb.PRUNE_STRATEGY_KEEP_LATEST: PruneStrategy.KEEP_LATEST,
    pb.PRUNE_STRATEGY_DELETE: PruneStrategy.DELETE,
}


class ThreadServicer:
    """Deletes, copies and prunes threads of a store. Each method takes a request and returns the encoded response."""

    def __init__(self, store: CheckpointStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits

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
        """Copies a thread, or forks it."""
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
