"""The three operations that are available as unary calls and in pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd_server.domain.checkpoints import Known, Namespace, PendingWrite, PutCheckpoint, PutWrites
from checkpointd_server.domain.errors import InvalidArgument
from checkpointd_server.domain.limits import Limits
from checkpointd_server.domain.store import CheckpointStore
from checkpointd_server.domain.tracing import current_spans
from checkpointd_server.rpc.calls.executor import BoundedExecutor
from checkpointd_server.rpc.calls.slow_call_log import SlowCallLog
from checkpointd_server.rpc.conversion.checkpoints import read_target, write_checkpoint, write_values
from checkpointd_server.rpc.conversion.metadata_index import unproject
from checkpointd_server.rpc.conversion.metadata_struct import write_struct
from checkpointd_server.rpc.conversion.values import read_known, write_stored_values
from checkpointd_server.rpc.values.whole_values import WholeValues


class GetCheckpoint(NamedTuple):
    """A checkpoint to read."""

    namespace: Namespace
    checkpoint_id: str | None
    """None: the latest."""
    known: Known
    patches: bool
    metadata_struct: bool = False
    metadata_index: bool = False
    """True if the searchable part of its metadata is requested too."""
    counts_as_use: bool = False
    """True if the read counts as use of the thread."""


def read_get_checkpoint(request: pb.GetCheckpointRequest, tenant: str, limits: Limits) -> GetCheckpoint:
    """Returns the read of a request. Raises InvalidArgument."""
    namespace, checkpoint_id = read_target(request, tenant, limits)
    known: Known = ()
    if request.known:
        if not request.patches:
            raise InvalidArgument("known", "must be empty where values are to come whole: set patches")
        known = read_known(request.known, limits)
    return GetCheckpoint(
        namespace,
        checkpoint_id,
        known,
        request.patches,
        request.metadata_struct,
        request.metadata_index,
        request.counts_as_use,
    )


class Operations:
    """Executes them.

    Args:
        store: The store of checkpoints.
        limits: The limits of requests and answers.
        executor: Assembles large values.
        slow_call_log: Warns of large checkpoints.
    """

    def __init__(
        self, store: CheckpointStore, limits: Limits, executor: BoundedExecutor, slow_call_log: SlowCallLog
    ) -> None:
        self.store = store
        self.slow_call_log = slow_call_log
        self.limits = limits
        self._executor = executor

    async def write(self, write: PutCheckpoint | PutWrites, timeout: float | None) -> int:
        """Stores the write of a unary call, and returns the version. Raises what the store's `submit` delivers.

        A cancelled call ends when the write has: until then it counts as in flight, and its memory is in use.
        """
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[None] = loop.create_future()

        def deliver(done: list[PendingWrite]) -> None:
            if not delivered.done():
                delivered.set_result(None)

        pending = PendingWrite(write, write.size, None if timeout is None else loop.time() + timeout, deliver)
        pending.spans = current_spans.get()
        self.store.submit((pending,))
        try:
            await asyncio.shield(delivered)
        except asyncio.CancelledError:
            give_up((pending,), loop.time())
            await delivered
            raise
        if isinstance(pending.result, int):
            return pending.result
        assert pending.result is not None
        try:
            raise pending.result
        finally:
            del pending  # breaks the reference cycle of error, traceback and frame

    async def get_checkpoint(
        self, read: GetCheckpoint, response: pb.GetCheckpointResponse, timeout: float | None
    ) -> None:
        """Reads one checkpoint into the response."""
        namespace, checkpoint_id, known, patches, metadata_struct, with_index, counts_as_use = read
        found = await self.store.get_checkpoint(namespace, checkpoint_id, known=known, timeout=timeout)
        checkpoint = found.checkpoint
        response.version = found.version
        if checkpoint is None:
            return
        if counts_as_use:
            await self.store.note_read(namespace.tenant, namespace.thread_id, timeout=timeout)
        if metadata_struct:
            write_struct(checkpoint.metadata, response.tuple.metadata, self.limits)
        if patches:
            write_checkpoint(checkpoint, response.tuple)
            write_stored_values(found.values, response.stored_values)
        else:
            whole = WholeValues((checkpoint,), found.values, self.limits)
            if whole.takes_long:
                values, writes = await self._executor.run(whole.of, checkpoint)
            else:
                values, writes = whole.of(checkpoint)
            write_checkpoint(checkpoint, response.tuple, writes)
            write_values(values, response.tuple)
        if with_index:
            index = await self.store.get_metadata_index(namespace, checkpoint.checkpoint_id, timeout=timeout)
            response.tuple.metadata.index = unproject(index or "{}")


def give_up(writes: Sequence[PendingWrite], now: float) -> None:
    """Cancels abandoned writes that the store hasn't begun."""
    for pending in writes:
        if pending.deadline is None or pending.deadline > now:
            pending.deadline = now
