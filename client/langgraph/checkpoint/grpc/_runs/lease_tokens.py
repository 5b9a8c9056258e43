"""The leases of contexts, and their tokens in requests.

A context variable marks code within a lease's block. LangGraph propagates contexts to its threads and tasks, so a graph
that runs in the block writes under the lease, but a run of the same saver that was started elsewhere doesn't.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TypeVar

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import thread_service_pb2 as threads_pb

OfOneThread = TypeVar(
    "OfOneThread",
    pb.PutCheckpointRequest,
    pb.PutWritesRequest,
    threads_pb.DeleteThreadRequest,
    threads_pb.ArchiveThreadRequest,
)
OfManyThreads = TypeVar("OfManyThreads", threads_pb.DeleteRunsRequest, threads_pb.PruneThreadsRequest)


class Lease:
    """A lease on a thread. Made by `GrpcSaver.lease` and `alease`, and held as long as their block lasts.

    Args:
        thread_id: The thread.
        token: The fencing token.
        valid_until: Until when it is in force without a renewal, on this process's monotonic clock, in seconds.
    """

    def __init__(self, thread_id: str, token: int, valid_until: float) -> None:
        self.thread_id = thread_id
        """The thread."""
        self.token = token
        """The fencing token: greater than that of every lease before it on the thread. Another system that the holder
        writes to can refuse whoever comes with a token below the greatest it has seen."""
        self._valid_until = valid_until
        self._lost = False
        self._released = False

    @property
    def lost(self) -> bool:
        """True if the lease has ended before its block, as far as this process knows.

        Its writes are refused then, or will be. Worth a look before a step that can't be taken back.
        """
        return self._lost or (not self._released and time.monotonic() >= self._valid_until)

    def __repr__(self) -> str:
        return f"Lease(thread_id={self.thread_id!r}, token={self.token}, lost={self.lost})"


class LeaseTokens:
    """The leases that are taken through a saver and its clones."""

    def held(self, thread_id: str) -> Lease | None:
        """Returns the lease that this context holds on a thread, even a lost one."""
        leases = _held.get(_NONE)
        return leases.get((self, thread_id)) if leases else None

    def enter(self, lease: Lease) -> None:
        """Adds a lease to this context, and those copied from it."""
        _held.set({**_held.get(_NONE), (self, lease.thread_id): lease})

    def leave(self, lease: Lease) -> None:
        """Removes a lease from this context. Contexts copied from it keep it, and their writes are refused."""
        _held.set({key: held for key, held in _held.get(_NONE).items() if held is not lease})

    def attach(self, request: OfOneThread) -> OfOneThread:
        """Writes the token of this context's lease into a request that writes to a thread."""
        lease = self.held(request.thread_id)
        if lease is not None:
            request.lease_token = lease.token
        return request

    def attach_to_copy(self, request: threads_pb.CopyThreadRequest) -> threads_pb.CopyThreadRequest:
        """Writes the token of this context's lease on the target into a copy."""
        lease = self.held(request.target_thread_id)
        if lease is not None:
            request.lease_token = lease.token
        return request

    def attach_all(self, requests: Iterable[OfManyThreads]) -> list[OfManyThreads]:
        """Writes this context's leases into requests that write to many threads."""
        attached = list(requests)
        for (leases, thread_id), lease in _held.get(_NONE).items():
            if leases is self:
                for request in attached:
                    if isinstance(request, threads_pb.DeleteRunsRequest) or thread_id in request.thread_ids:
                        request.leases.add(thread_id=thread_id, token=lease.token)
        return attached


_held: ContextVar[Mapping[tuple[LeaseTokens, str], Lease]] = ContextVar("checkpointd_leases")
_NONE: Mapping[tuple[LeaseTokens, str], Lease] = MappingProxyType({})
