"""The interface of a checkpoint store, which `rpc` talks to and `store` fulfils."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
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
from checkpointd_server.domain.retention import ExpiringPage, RetentionPage, RetentionPolicy, RetentionPosition
from checkpointd_server.domain.tenants import (
    PurgePosition,
    PurgeReport,
    Quotas,
    Statistics,
    TenantQuotas,
    Usage,
)
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


class TenantStore(Protocol):
    """Knows what tenants hold and may use, and purges. Raises what a CheckpointStore raises."""

    async def note(self, tenants: Sequence[str], *, timeout: float | None) -> None:
        """Records that tenants were seen."""
        ...

    async def list(self, *, after: str, limit: int, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads tenants and their own quotas, by name, behind one."""
        ...

    async def read_quotas(self, tenants: Iterable[str], *, timeout: float | None) -> Sequence[TenantQuotas]:
        """Reads the own quotas of those tenants that were noted."""
        ...

    async def set_quotas(self, tenant: str, quotas: Quotas, *, resets: bool, timeout: float | None) -> TenantQuotas:
        """Sets the quotas that aren't None, after taking back all others if wanted; returns what is set then."""
        ...

    async def find_threads(self, tenant: str, thread_ids: Iterable[str], *, timeout: float | None) -> Set[str]:
        """Returns those of some threads that hold anything."""
        ...

    async def read_usage(self, tenant: str, *, timeout: float | None) -> Usage:
        """Sums up what a tenant holds."""
        ...

    async def read_statistics(self, tenant: str, *, timeout: float | None) -> Statistics:
        """Sums up what a tenant holds, and looks at some of its threads."""
        ...

    async def purge_found(
        self,
        tenant: str,
        wanted: ThreadFilter,
        *,
        start: PurgePosition,
        takes_pinned: bool,
        is_dry_run: bool,
        timeout: float | None,
    ) -> PurgeReport:
        """Purges a page of the threads that a filter finds, archived or not; or tells what would go."""
        ...

    async def purge_all(
        self, tenant: str, *, start: PurgePosition, takes_pinned: bool, is_dry_run: bool, timeout: float | None
    ) -> PurgeReport:
        """Purges a page of all threads that a tenant had when the purge began; or tells what would go."""
        ...

    async def purge_rest(self, tenant: str, report: PurgeReport, *, timeout: float | None) -> None:
        """Purges what a tenant has besides its threads, and adds it to a report."""
        ...


class RetentionStore(Protocol):
    """Keeps retention policies, and applies them. What `CheckpointStore` says of arguments and errors goes here too."""

    async def set_policy(self, tenant: str, policy: RetentionPolicy, *, timeout: float | None) -> None:
        """Stores a policy in place of the one with its name. Raises InvalidArgument where there are too many."""
        ...

    async def delete_policy(self, tenant: str, name: str, *, timeout: float | None) -> bool:
        """Deletes a policy, and tells whether it was there."""
        ...

    async def list_policies(self, tenant: str, *, timeout: float | None) -> list[RetentionPolicy]:
        """Returns all policies of a tenant, by name."""
        ...

    async def preview(
        self, tenant: str, policy: RetentionPolicy | None, *, after: RetentionPosition | None, timeout: float | None
    ) -> RetentionPage:
        """Returns what would go of the next threads now; with a policy: if it was there too."""
        ...

    async def run(self, tenant: str, *, after: RetentionPosition | None, timeout: float | None) -> RetentionPage:
        """Applies the policies to the next threads now."""
        ...

    async def list_expiring(
        self, tenant: str, *, after: RetentionPosition | None, page_size: int, timeout: float | None
    ) -> ExpiringPage:
        """Reads a page of what is about to go and nobody has acknowledged, the next first."""
        ...

    async def acknowledge(self, tenant: str, thread_id: str, below: str, *, timeout: float | None) -> bool:
        """Lets what was announced of a thread go; tells whether it still is what was announced."""
        ...


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
        """Reads the checkpoint with this id, or the latest if None, without the values that are known."""
        ...

    async def get_metadata_index(
        self, namespace: Namespace, checkpoint_id: str, *, timeout: float | None
    ) -> str | None:
        """Reads what can be searched of a checkpoint's metadata: a JSON object, as text. None: it is not there."""
        ...

    async def put_part(
        self, tenant: str, thread_id: str, upload_id: bytes, offset: int, data: bytes, *, timeout: float | None
    ) -> None:
        """Stores a part of an upload ahead of a put. An upload that nothing names after a while is deleted."""
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
        """Reads a range of a stored value's bytes, or of a patch's instructions. None: it is not there."""
        ...

    async def list_checkpoints(self, query: ListQuery, *, timeout: float | None) -> Page:
        """Reads a page of checkpoints, newest first."""
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
        """Walks the ancestors of a checkpoint (None: of the latest) for writes and seeds of channels, a page a call.

        `after` continues where a page ended.
        """
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
        """Reads a page of threads, newest activity first. One that isn't full is the last only if it says so."""
        ...

    async def count_threads(self, tenant: str, wanted: ThreadFilter, *, timeout: float | None) -> ThreadCount:
        """Counts threads, as far as that is cheap."""
        ...

    async def get_thread(self, tenant: str, thread_id: str, *, timeout: float | None) -> Thread:
        """Reads what lists show of a thread, archived or not. Raises ThreadNotFound."""
        ...

    async def list_nodes(
        self, tenant: str, thread_id: str, *, after: NodePosition | None, page_size: int, timeout: float | None
    ) -> tuple[list[Node], NodePosition | None]:
        """Reads a page of a thread's checkpoints without what they hold, newest first, and where the next starts."""
        ...

    async def archive_thread(
        self, tenant: str, thread_id: str, *, archives: bool, lease: int, timeout: float | None
    ) -> bool:
        """Archives a thread, or brings it back; tells whether that changed anything.

        Raises ThreadNotFound, LeaseHeld, LeaseLost.
        """
        ...

    async def update_thread(self, change: ThreadChange, *, timeout: float | None) -> None:
        """Changes tags, the pin and the time to live of a thread. Raises ThreadNotFound, InvalidArgument."""
        ...

    async def note_read(self, tenant: str, thread_id: str, *, timeout: float | None) -> None:
        """Lets a read count as use of a thread, for how long it is kept."""
        ...

    @property
    def retention(self) -> RetentionStore:
        """Retention policies, and their runs by hand."""
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
        """Returns who may write to a thread."""
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
        """Runs a trivial query; raises DatabaseUnavailable if it doesn't go through."""
        ...
