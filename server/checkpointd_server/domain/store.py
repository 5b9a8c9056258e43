"""The interface of a checkpoint store, which `rpc` uses and `store` implements."""

from __future__ import annotations

from collections.abc import Sequence
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
from checkpointd_server.domain.lease_store import LeaseStore
from checkpointd_server.domain.retention_store import RetentionStore
from checkpointd_server.domain.tenant_store import TenantStore
from checkpointd_server.domain.thread_store import ThreadStore
from checkpointd_server.domain.values import ChannelValueKey, TaskWriteKey, ValueRange


class CheckpointStore(ThreadStore, LeaseStore, Protocol):
    """Keeps checkpoints durably, with their threads and the leases on threads.

    Arguments are already within the limits. `timeout` is the caller's remaining time, in seconds; None: no limit.
    Every method raises DatabaseUnavailable if the database can't be reached and DeadlineExceeded if the time runs out.
    A write that raises any other error has stored nothing. A cancelled call returns its connection.
    """

    @property
    def tenants(self) -> TenantStore:
        """The store of tenants: their usage and quotas."""
        ...

    def submit(self, writes: Sequence[PendingWrite]) -> None:
        """Queues writes of one tenant, in order; calls the `deliver` of each once it is stored or rejected.

        Returns at once. The writes to one namespace are done, and their results delivered, in the order in which they
        were submitted. Writes that arrive together may share a commit. Each is independent: a write that builds on
        another one says so by its precondition. A result is the version, or VersionConflict, PredecessorMissing,
        LeaseHeld, LeaseLost, BaseMissing, ChainTooLong, InvalidArgument, Overloaded, DatabaseUnavailable,
        DeadlineExceeded.
        """
        ...

    async def get_checkpoint(
        self, namespace: Namespace, checkpoint_id: str | None, *, known: Known = (), timeout: float | None
    ) -> ReadResult:
        """Reads a checkpoint, without the values that the caller has already.

        Args:
            namespace: Its namespace.
            checkpoint_id: Its id. None: the latest.
            known: The versions of channels whose values to leave out.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            A JSON object, as text. None: there is no such checkpoint.
        """
        ...

    async def put_part(
        self, tenant: str, thread_id: str, upload_id: bytes, offset: int, data: bytes, *, timeout: float | None
    ) -> None:
        """Stores a part of an upload before its put. An upload that no put names after a while is deleted.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            upload_id: The upload.
            offset: The part's offset in the value, in bytes.
            data: The part.
            timeout: The caller's remaining time, in seconds. None: no limit.
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
            max_bytes: The maximum number of bytes to read.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The range. None: there is no such value.
        """
        ...

    async def list_checkpoints(self, query: ListQuery, *, timeout: float | None) -> Page:
        """Reads a page of checkpoints, newest first.

        Args:
            query: The selection, and the place of the page.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
        """Walks the ancestors of a checkpoint for writes and seeds of channels, one page per call.

        Args:
            namespace: The checkpoint's namespace.
            checkpoint_id: Its id. None: the latest.
            channels: The channels.
            after: The position where the previous page ended. None: the first page.
            page_bytes: The size at which the page is cut, in bytes.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The writes and seeds of the page.
        """
        ...

    @property
    def retention(self) -> RetentionStore:
        """The store of retention policies, which can also apply them on request."""
        ...

    @property
    def id(self) -> str:
        """A UUID that identifies the store."""
        ...

    @property
    def has_vectors(self) -> bool:
        """True if items can have vectors."""
        ...

    def items(self, tenant: str) -> ItemStore:
        """Returns the item store of a tenant."""
        ...

    async def check(self, *, timeout: float | None) -> None:
        """Runs a trivial query.

        Args:
            timeout: The caller's remaining time, in seconds. None: no limit.

        Raises:
            DatabaseUnavailable: The query fails.
        """
        ...
