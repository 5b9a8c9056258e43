"""The interface of a checkpoint store, which `rpc` talks to and `store` fulfils."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from checkpointd_server.domain.checkpoints import (
    DeltaHistory,
    Known,
    ListQuery,
    Namespace,
    Page,
    PendingWrite,
    ReadResult,
)
from checkpointd_server.domain.items import ItemStore
from checkpointd_server.domain.leases import AcquireLease, Lease, LeaseState
from checkpointd_server.domain.retention_store import RetentionStore
from checkpointd_server.domain.tenant_store import TenantStore
from checkpointd_server.domain.thread_lists import (
    Node,
    NodePosition,
    Thread,
    ThreadChange,
    ThreadCount,
    ThreadFilter,
    ThreadPage,
    ThreadPosition,
)
from checkpointd_server.domain.threads import CopyThread, PruneStrategy
from checkpointd_server.domain.values import ChannelValueKey, TaskWriteKey, ValueRange

NO_LEASES: Mapping[str, int] = MappingProxyType({})
"""For callers that hold none."""


class CheckpointStore(Protocol):
    """Keeps checkpoints durably.

    Arguments have passed the limits already. `timeout` is what remains of the caller's time, in seconds; None: no end.
    Every method raises DatabaseUnavailable if the database can't be reached and DeadlineExceeded if the time runs out;
    a write that raised anything else left nothing behind. A cancelled call gives its connection back.
    """

    @property
    def tenants(self) -> TenantStore:
        """The store of tenants: what they hold and may use."""
        ...

    def submit(self, writes: Sequence[PendingWrite]) -> None:
        """Takes writes of one tenant, in order; hands each back by its `deliver` once it is stored or refused.

        Returns at once. The writes on one namespace are done in the order in which they were submitted, and handed back
        in that order; those that come together may share a commit. Each stands for itself: what builds on another one
        says so by its precondition. A result is the version, or VersionConflict, PredecessorMissing, LeaseHeld,
        LeaseLost, BaseMissing, ChainTooLong, InvalidArgument, Overloaded, DatabaseUnavailable, DeadlineExceeded.
        """
        ...

    async def get_checkpoint(
        self, namespace: Namespace, checkpoint_id: str | None, *, known: Known = (), timeout: float | None
    ) -> ReadResult:
        """Reads a checkpoint, without the values that are known to the caller.

        Args:
            namespace: Its namespace.
            checkpoint_id: Its id. None: the latest.
            known: Versions of channels whose values are left out.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The checkpoint, or that there is none.
        """
        ...

    async def get_metadata_index(
        self, namespace: Namespace, checkpoint_id: str, *, timeout: float | None
    ) -> str | None:
        """Reads the searchable part of a checkpoint's metadata.

        Args:
            namespace: The checkpoint's namespace.
            checkpoint_id: Its id.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            A JSON object, as text. None: it is not there.
        """
        ...

    async def put_part(
        self, tenant: str, thread_id: str, upload_id: bytes, offset: int, data: bytes, *, timeout: float | None
    ) -> None:
        """Stores a part of an upload ahead of a put. An upload that nothing names after a while is deleted.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            upload_id: The upload.
            offset: The part's place in the value, in bytes.
            data: The part.
            timeout: The time that the caller has left, in seconds; None: no end.
        """
        ...

    async def get_value(
        self,
        namespace: Namespace,
        key: ChannelValueKey | TaskWriteKey,
        *,
        offset: int,
        max_bytes: int,
        timeout: float | None,
    ) -> ValueRange | None:
        """Reads a range of a stored value's bytes, or of a patch's instructions.

        Args:
            namespace: The value's namespace.
            key: The value: a channel's version, or a task write.
            offset: The beginning of the range, in bytes.
            max_bytes: The most bytes to read.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The range. None: the value is not there.
        """
        ...

    async def list_checkpoints(self, query: ListQuery, *, timeout: float | None) -> Page:
        """Reads a page of checkpoints, newest first.

        Args:
            query: The selection, and the place of the page.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The page, and where the next one starts.
        """
        ...

    async def get_delta_history(
        self,
        namespace: Namespace,
        checkpoint_id: str | None,
        channels: Sequence[str],
        *,
        after: str | None = None,
        page_bytes: int,
        timeout: float | None,
    ) -> DeltaHistory:
        """Walks the ancestors of a checkpoint for writes and seeds of channels, a page a call.

        Args:
            namespace: The checkpoint's namespace.
            checkpoint_id: Its id. None: the latest.
            channels: The channels.
            after: The place where a page ended. None: the first page.
            page_bytes: The size at which the page is cut, in bytes.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The writes and seeds of the page.
        """
        ...

    async def delete_thread(
        self, tenant: str, thread_id: str, *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes a thread: all its namespaces, values and writes.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            leases: The tokens of leases that the caller holds, by thread.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The number of checkpoints that it had; 0: there was none.

        Raises:
            LeaseHeld: Somebody else holds the lease on it.
            LeaseLost: The caller's lease has ended.
        """
        ...

    async def delete_runs(
        self, tenant: str, run_ids: Sequence[str], *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes the checkpoints of runs, in all threads.

        Args:
            tenant: The tenant.
            run_ids: The runs.
            leases: The tokens of leases that the caller holds, by thread.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The number of checkpoints deleted.

        Raises:
            LeaseHeld: Somebody else holds the lease on a thread of theirs.
            LeaseLost: The caller's lease on one has ended.
        """
        ...

    async def copy_thread(self, copy: CopyThread, *, timeout: float | None) -> int:
        """Copies a thread, whole or up to a checkpoint.

        Args:
            copy: The source, the target, and the caller's lease.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The number of checkpoints copied; 0: there is no source.

        Raises:
            ThreadExists: The target holds checkpoints already.
            CheckpointNotFound: The source has no such checkpoint.
            LeaseHeld: Somebody else holds the lease on the target.
            LeaseLost: The caller's lease on it has ended.
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
        """Removes history from threads. Unknown ones are passed over.

        Args:
            tenant: The tenant.
            thread_ids: The threads.
            strategy: The part that is kept.
            leases: The tokens of leases that the caller holds, by thread.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The number of checkpoints deleted.

        Raises:
            LeaseHeld: Somebody else holds the lease on one of them.
            LeaseLost: The caller's lease on one has ended.
        """
        ...

    async def list_threads(
        self,
        tenant: str,
        wanted: ThreadFilter,
        *,
        after: ThreadPosition | None,
        page_size: int,
        page_bytes: int,
        timeout: float | None,
    ) -> ThreadPage:
        """Reads a page of threads, newest activity first.

        Args:
            tenant: The tenant.
            wanted: The selection.
            after: The place where the page before ended. None: the first page.
            page_size: The most threads.
            page_bytes: The size at which the page is cut, in bytes.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The page. One that isn't full is the last only if it says so.
        """
        ...

    async def count_threads(self, tenant: str, wanted: ThreadFilter, *, timeout: float | None) -> ThreadCount:
        """Counts threads, as far as that is cheap.

        Args:
            tenant: The tenant.
            wanted: The selection.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The number, or a lower bound.
        """
        ...

    async def get_thread(self, tenant: str, thread_id: str, *, timeout: float | None) -> Thread:
        """Reads what lists show of a thread, archived or not.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The thread.

        Raises:
            ThreadNotFound: It holds nothing.
        """
        ...

    async def list_nodes(
        self, tenant: str, thread_id: str, *, after: NodePosition | None, page_size: int, timeout: float | None
    ) -> tuple[list[Node], NodePosition | None]:
        """Reads a page of a thread's checkpoints without what they hold, newest first.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            after: The place where the page before ended. None: the first page.
            page_size: The most checkpoints.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The checkpoints, and where the next page starts. None: this was the last one.
        """
        ...

    async def archive_thread(
        self, tenant: str, thread_id: str, *, archives: bool, lease: int, timeout: float | None
    ) -> bool:
        """Archives or unarchives a thread.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            archives: False: it is brought back.
            lease: The token of the caller's lease on it; 0: none.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            Whether that changed anything.

        Raises:
            ThreadNotFound: It holds nothing.
            LeaseHeld: Somebody else holds the lease on it.
            LeaseLost: The caller's lease has ended.
        """
        ...

    async def update_thread(self, change: ThreadChange, *, timeout: float | None) -> None:
        """Changes tags, the pin and the time to live of a thread.

        Args:
            change: The thread, and what to change.
            timeout: The time that the caller has left, in seconds; None: no end.

        Raises:
            ThreadNotFound: It holds nothing.
            InvalidArgument: It would have too many tags.
        """
        ...

    async def note_read(self, tenant: str, thread_id: str, *, timeout: float | None) -> None:
        """Lets a read count as use of a thread, for how long it is kept.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            timeout: The time that the caller has left, in seconds; None: no end.
        """
        ...

    @property
    def retention(self) -> RetentionStore:
        """Retention policies, and their runs by hand."""
        ...

    async def acquire_lease(self, acquire: AcquireLease, *, timeout: float | None) -> Lease:
        """Takes the lease on a thread, or waits in line for it.

        When it returns, every write that began before the lease has ended.

        Args:
            acquire: The thread, the holder, and how long to wait.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The lease.

        Raises:
            LeaseHeld: Somebody else has it still when the wait is over.
        """
        ...

    async def renew_lease(self, tenant: str, thread_id: str, token: int, *, ttl: float, timeout: float | None) -> Lease:
        """Extends a lease.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            token: The lease's token.
            ttl: How long it lives from now, in seconds.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            The lease.

        Raises:
            LeaseLost: It has ended.
        """
        ...

    async def release_lease(self, tenant: str, thread_id: str, holder: bytes, *, timeout: float | None) -> bool:
        """Gives up a holder's lease or place in line.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            holder: The holder.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            Whether the holder had the lease.
        """
        ...

    async def get_lease(self, tenant: str, thread_id: str, *, timeout: float | None) -> LeaseState:
        """Reads the state of a thread's lease.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            timeout: The time that the caller has left, in seconds; None: no end.

        Returns:
            Who may write to the thread.
        """
        ...

    @property
    def id(self) -> str:
        """A UUID that tells it from other stores."""
        ...

    @property
    def has_vectors(self) -> bool:
        """True if items can have vectors."""
        ...

    def items(self, tenant: str) -> ItemStore:
        """Returns what keeps a tenant's items."""
        ...

    async def check(self, *, timeout: float | None) -> None:
        """Runs a trivial query.

        Args:
            timeout: The time that the caller has left, in seconds; None: no end.

        Raises:
            DatabaseUnavailable: It doesn't go through.
        """
        ...
