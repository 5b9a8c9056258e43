"""The interface of a checkpoint store, which `rpc` talks to and `store` fulfils."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from checkpointd_server.domain.model import (
    AcquireLease,
    CopyThread,
    DeltaHistory,
    FoundPieces,
    Lease,
    LeaseState,
    ListQuery,
    Namespace,
    Page,
    Piece,
    PruneStrategy,
    PutCheckpoint,
    PutWrites,
    ReadResult,
)

NO_LEASES: Mapping[str, int] = MappingProxyType({})
"""For callers that hold none."""


class CheckpointStore(Protocol):
    """Keeps checkpoints durably.

    Arguments have passed the limits already. `timeout` is what remains of the caller's time, in seconds; None: no end.
    Every method raises DatabaseUnavailable if the database can't be reached and DeadlineExceeded if the time runs out;
    a write that raised anything else left nothing behind. A cancelled call gives its connection back.
    """

    async def put_checkpoint(self, put: PutCheckpoint, *, in_company: bool = False, timeout: float | None) -> int:
        """Stores a checkpoint and returns the namespace's new version.

        `in_company`: other writes come at the same moment, which may share its commit.

        Raises VersionConflict, LeaseHeld, LeaseLost, PiecesMissing.
        """
        ...

    async def put_writes(self, put: PutWrites, *, in_company: bool = False, timeout: float | None) -> int:
        """Stores task writes and returns the namespace's version (0: no checkpoint yet).

        Writes that were stored before, by their request id, change nothing. Where they would be refused now, the answer
        is 0. `in_company` as for `put_checkpoint`.

        Raises VersionConflict, LeaseHeld, LeaseLost, PiecesMissing.
        """
        ...

    async def get_checkpoint(
        self, namespace: Namespace, checkpoint_id: str | None, *, with_pieces: bool = True, timeout: float | None
    ) -> ReadResult:
        """Reads the checkpoint with this id, or the latest if None, and the first pieces of its values if wanted."""
        ...

    async def put_pieces(self, tenant: str, thread_id: str, pieces: Sequence[Piece], *, timeout: float | None) -> None:
        """Stores pieces ahead of a put. Those that nothing refers to after a while are deleted."""
        ...

    async def get_pieces(
        self, tenant: str, thread_id: str, names: Sequence[bytes], *, timeout: float | None
    ) -> FoundPieces:
        """Reads pieces in the order of the names, as many as fit into 2 MiB, and at least one."""
        ...

    async def list_checkpoints(self, query: ListQuery, *, timeout: float | None) -> Page:
        """Reads a page of checkpoints, newest first."""
        ...

    async def get_delta_history(
        self, namespace: Namespace, checkpoint_id: str | None, channels: Sequence[str], *, timeout: float | None
    ) -> DeltaHistory:
        """Walks the ancestors of a checkpoint (None: of the latest) for the writes and seeds of channels."""
        ...

    async def delete_thread(
        self, tenant: str, thread_id: str, *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes a thread and returns how many checkpoints it had. `leases`: the caller's, token by thread.

        Raises LeaseHeld, LeaseLost.
        """
        ...

    async def delete_runs(
        self, tenant: str, run_ids: Sequence[str], *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes the checkpoints of runs and returns how many there were. Raises LeaseHeld, LeaseLost."""
        ...

    async def copy_thread(self, copy: CopyThread, *, timeout: float | None) -> int:
        """Copies a thread and returns how many checkpoints.

        Raises ThreadExists, CheckpointNotFound, LeaseHeld, LeaseLost.
        """
        ...

    async def prune_threads(
        self,
        tenant: str,
        thread_ids: Sequence[str],
        strategy: PruneStrategy,
        *,
        leases: Mapping[str, int] = NO_LEASES,
        timeout: float | None,
    ) -> int:
        """Removes history from threads and returns how many checkpoints went. Raises LeaseHeld, LeaseLost."""
        ...

    async def acquire_lease(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes the lease on a thread, or waits in line for it.

        When it returns, every write that began before the lease has ended. Raises LeaseHeld when the wait is over.
        """
        ...

    async def renew_lease(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease to live `ttl` seconds from now. Raises LeaseLost."""
        ...

    async def release_lease(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Gives up a holder's lease or place in line, and tells whether it had the lease."""
        ...

    async def get_lease(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Tells who may write to a thread."""
        ...

    async def check(self, *, timeout: float | None) -> None:
        """Runs a trivial query; raises DatabaseUnavailable if it doesn't go through."""
        ...
