"""The interface of a store's threads: listing, changing, copying and deleting them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

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

NO_LEASES: Mapping[str, int] = MappingProxyType({})
"""The leases of callers that hold none."""


class ThreadStore(Protocol):
    """Keeps threads; a part of CheckpointStore."""

    async def delete_thread(
        self, tenant: str, thread_id: str, *, leases: Mapping[str, int] = NO_LEASES, timeout: float | None
    ) -> int:
        """Deletes a thread: all its namespaces, values and writes.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            leases: The tokens of leases that the caller holds, by thread.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The number of checkpoints deleted.

        Raises:
            LeaseHeld: Somebody else holds the lease on one of their threads.
            LeaseLost: The caller's lease on one has ended.
        """
        ...

    async def copy_thread(self, copy: CopyThread, *, timeout: float | None) -> int:
        """Copies a thread, whole or up to a checkpoint.

        Args:
            copy: The source, the target, and the caller's lease.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The number of checkpoints copied; 0: there is no source.

        Raises:
            ThreadExists: The target already has checkpoints.
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
        """Removes history from threads. Unknown ones are skipped.

        Args:
            tenant: The tenant.
            thread_ids: The threads.
            strategy: The part to keep.
            leases: The tokens of leases that the caller holds, by thread.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
        """Reads a page of threads, latest activity first.

        Args:
            tenant: The tenant.
            wanted: The selection.
            after: The position where the previous page ended. None: the first page.
            page_size: The maximum number of threads.
            page_bytes: The size at which the page is cut, in bytes.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The page. A page that isn't full isn't necessarily the last.
        """
        ...

    async def count_threads(self, tenant: str, wanted: ThreadFilter, *, timeout: float | None) -> ThreadCount:
        """Counts threads up to a limit.

        Args:
            tenant: The tenant.
            wanted: The selection.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The number, or a lower bound.
        """
        ...

    async def get_thread(self, tenant: str, thread_id: str, *, timeout: float | None) -> Thread:
        """Reads the same details of a thread as lists have, archived or not.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            timeout: The caller's remaining time, in seconds. None: no limit.

        Returns:
            The thread.

        Raises:
            ThreadNotFound: It holds nothing.
        """
        ...

    async def list_nodes(
        self, tenant: str, thread_id: str, *, after: NodePosition | None, page_size: int, timeout: float | None
    ) -> tuple[list[Node], NodePosition | None]:
        """Reads a page of a thread's checkpoints without their contents, newest first.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            after: The position where the previous page ended. None: the first page.
            page_size: The maximum number of checkpoints.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
            archives: Whether to archive it. False: unarchive it.
            lease: The token of the caller's lease on it; 0: none.
            timeout: The caller's remaining time, in seconds. None: no limit.

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
            timeout: The caller's remaining time, in seconds. None: no limit.

        Raises:
            ThreadNotFound: It holds nothing.
            InvalidArgument: It would have too many tags.
        """
        ...

    async def note_read(self, tenant: str, thread_id: str, *, timeout: float | None) -> None:
        """Records a read as use of a thread, which extends its time to live.

        Args:
            tenant: The tenant.
            thread_id: The thread.
            timeout: The caller's remaining time, in seconds. None: no limit.
        """
        ...
